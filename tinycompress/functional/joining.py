"""Choosing between tensors and putting them together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from tinycompress.backend import array_module
from tinycompress.ops import elementwise, gather as gather_op, shape
from tinycompress.shapes import axes_of, check_broadcast
from tinycompress.tensor import (
    Tensor,
    apply,
    as_float_tensor,
    as_tensor,
    binary,
    float32,
    int64,
    operand,
    operands,
)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where ``condition`` (boolean) holds, else ``b``; all three broadcast."""
    condition = as_tensor(condition)
    if condition.dtype.kind != "b":
        raise TypeError(f"where: condition must be boolean, got {condition.dtype}")
    a, b = operands(a, b)
    shapes = [condition.shape, *(x.shape for x in (a, b) if isinstance(x, Tensor))]
    for s, t in combinations(shapes, 2):
        check_broadcast("where", s, t)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        kind = float32 if isinstance(a, float) or isinstance(b, float) else int64
        a = Tensor(array_module(condition.data).asarray(a, dtype=kind))
    return apply(elementwise.where, condition, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger value of each pair; equal values share the gradient half and half."""
    return _extreme(elementwise.maximum, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller value of each pair; equal values share the gradient half and half."""
    return _extreme(elementwise.minimum, a, b)


def _extreme(op: Any, a: Any, b: Any) -> Tensor:
    numbers = not any(isinstance(operand(x), Tensor) for x in (a, b))
    return binary(op, as_tensor(a) if numbers else a, b)


def cat(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors one behind the other along ``axis``; their other sizes must agree."""
    parts = operands(*map(as_tensor, tensors))
    if not parts:
        raise ValueError("cat: needs at least one tensor")
    along = axes_of(parts[0].shape, axis)[0]
    if len({(t.ndim, t.shape[:along], t.shape[along + 1 :]) for t in parts}) != 1:
        raise ValueError(f"cat: sizes beside axis {axis} differ: {[t.shape for t in parts]}")
    return apply(shape.cat, *parts, axis=along)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape beside each other along a new axis."""
    parts: list[Tensor] = operands(*map(as_tensor, tensors))
    if len({t.shape for t in parts}) != 1:
        raise ValueError(f"stack: needs tensors of one shape, got {[t.shape for t in parts]}")
    return cat([t.unsqueeze(axis) for t in parts], axis)


def gather(codebook: Any, codes: Any) -> Tensor:
    """Look codes up in a codebook: 0 stands for 0, and k for the k-th number of the codebook.

    Args:
        codebook: (K) floats. Its derivative is the sum of those of the places that share a number.
        codes: whole numbers from 0 to K, of any shape. On a GPU they are not checked, which would
            wait for the device.

    Returns:
        Floats of the shape of ``codes`` and the dtype of the codebook.
    """
    codebook, codes = as_float_tensor(codebook), as_tensor(codes)
    if codebook.ndim != 1:
        raise ValueError(f"gather: codebook must be (K) numbers, got shape {codebook.shape}")
    if codes.dtype.kind not in "iu":
        raise TypeError(f"gather: codes must be whole numbers, got {codes.dtype}")
    if codes.device == "cpu" and codes.size:
        low, high = codes.data.min(), codes.data.max()
        if low < 0 or high > codebook.size:
            raise ValueError(
                f"gather: codes must be in 0 … {codebook.size}, for a codebook of {codebook.size}; "
                f"found {low} … {high}"
            )
    return apply(gather_op.gather, codebook, codes)
