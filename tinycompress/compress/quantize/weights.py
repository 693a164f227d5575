"""A weight as codes: which of the formulas a :class:`QuantConfig` asks for, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.affine import choose_qparams, dequantize, min_max, quantize
from tinycompress.compress.quantize.binary import binarize
from tinycompress.compress.quantize.blocks import block_shape
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.nn.skeleton import new_array


class QuantizedWeight(NamedTuple):
    """Codes of a weight (O, ...) with one scale and zero point per block.

    ``zero_point`` has the dtype of the codes and is 0 for the symmetric scheme; codes of one bit
    are −1 and 1.
    """

    codes: Array
    scale: Array
    zero_point: Array


def quantize_weight(w: Array, config: QuantConfig, name: str = "w") -> QuantizedWeight:
    """``w`` as ``config`` says. Zeros stay exactly 0.

    Raises:
        ValueError: ``w`` holds NaN or infinity, or, at one bit, a zero; ``name`` says where.
    """
    with on_device(w):
        return _binary(w, config, name) if config.bits == 1 else _affine(w, config, name)


def _affine(w: Array, config: QuantConfig, name: str) -> QuantizedWeight:
    axis, group = config.axis, config.group_size
    lo, hi = min_max(w, axis, group, name)
    dtype = np.float64 if w.dtype == np.float64 else np.float32
    scale, zero_point = choose_qparams(lo, hi, config.target, config.scheme, dtype, name)
    codes = quantize(w, scale, zero_point, config.target, axis, group, name)
    return QuantizedWeight(codes, scale, zero_point)


def _binary(w: Array, config: QuantConfig, name: str) -> QuantizedWeight:
    codes, scale = binarize(w, config.axis, config.group_size, name)
    zeros = int((w == 0).sum())
    if zeros:
        raise ValueError(
            f"{name}: {zeros} weights are exactly 0 (pruned?), and one bit has no code for zero; "
            "use bits=2, whose codes are −1, 0 and 1"
        )
    return QuantizedWeight(codes, scale, array_module(w).zeros_like(scale, dtype=codes.dtype))


def dequantize_weight(weight: QuantizedWeight, config: QuantConfig) -> Array:
    """The numbers that the codes stand for, of scale's dtype."""
    return dequantize(*weight, config.axis, config.group_size)


def blank_weight(shape: tuple[int, ...], config: QuantConfig) -> QuantizedWeight:
    """A new layer's weight: zeros, in arrays of the shapes and dtypes that a real one has."""
    blocks = block_shape(shape, config.axis, config.group_size)
    dtype = np.dtype(np.int8) if config.bits == 1 else config.target.dtype
    return QuantizedWeight(
        new_array(shape, 0, dtype), new_array(blocks, 1.0), new_array(blocks, 0, dtype)
    )
