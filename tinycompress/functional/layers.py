"""The functions behind the layers with weights, and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import random
from tinycompress.backend import Array, check_same_device, on_device
from tinycompress.functional.pooling import check_window
from tinycompress.graph import is_grad_enabled
from tinycompress.ops import conv, dropout as dropout_op, linear as linear_op, losses, norm
from tinycompress.ops.steps import Steps
from tinycompress.shapes import flat, number, pair, whole
from tinycompress.tensor import Tensor, apply, as_float_tensor, as_tensor

Size = int | tuple[int, int]


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """``x wᵀ + b``.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features), or None.

    Returns:
        (..., out_features).
    """
    return linear_chain(x, weight, bias, ())


def linear_chain(x: Any, weight: Any, bias: Any, steps: Steps) -> Tensor:
    """:func:`linear` and the elementwise ``steps`` that follow it, as one operation."""
    x, weight = as_float_tensor(x), as_float_tensor(weight)
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must be (out, in), got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input of shape {x.shape} must end in in_features = {weight.shape[1]} "
            f"(weight {weight.shape})"
        )
    bias = _bias("linear", bias, weight.shape[0])
    keep = _differentiated(x, weight, bias)
    return apply(linear_op.linear, x, weight, bias, steps=steps, keep=keep)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional cross-correlation.

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, kh, kw).
        bias: (O), or None.
        stride, dilation: whole numbers ≥ 1, or pairs (height, width).
        padding: zeros on each side, a whole number ≥ 0, or a pair.
        groups: input and output channels are cut into this many independent groups.

    Returns:
        (N, O, oh, ow), see :func:`tinycompress.ops.conv.output_size`.
    """
    return conv2d_chain(x, weight, bias, stride, padding, dilation, groups, ())


def conv2d_chain(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
    steps: Steps,
) -> Tensor:
    """:func:`conv2d` and the ``steps`` that follow it, as one operation.

    At most one step has a window (its stride is its kernel), and that must fit into the output.
    """
    x, weight = as_float_tensor(x), as_float_tensor(weight)
    groups = whole("conv2d: groups", groups, 1)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            "conv2d: input must be (N, C, H, W) and weight (O, C/groups, kh, kw), "
            f"got shapes {x.shape} and {weight.shape}"
        )
    sizes = (
        pair("conv2d: stride", stride, 1),
        pair("conv2d: padding", padding, 0),
        pair("conv2d: dilation", dilation, 1),
    )
    _check_channels(x.shape, weight.shape, groups)
    _check_fits(x.shape, weight.shape, *sizes)
    _check_windows(x.shape, weight.shape, steps, *sizes)
    bias = _bias("conv2d", bias, weight.shape[0])
    names = dict(zip(("stride", "padding", "dilation"), sizes, strict=True))
    keep = _differentiated(x, weight, bias)
    return apply(conv.conv2d, x, weight, bias, groups=groups, steps=steps, keep=keep, **names)


def _check_channels(x: tuple[int, ...], w: tuple[int, ...], groups: int) -> None:
    if w[0] % groups or x[1] % groups:
        raise ValueError(
            f"conv2d: groups={groups} must divide {x[1]} input and {w[0]} output channels"
        )
    if x[1] != w[1] * groups:
        raise ValueError(
            f"conv2d: input of shape {x} has {x[1]} channels, but weight {w} with "
            f"groups={groups} takes {w[1] * groups}"
        )


def _check_fits(
    x: tuple[int, ...], w: tuple[int, ...], stride: Any, padding: Any, dilation: Any
) -> None:
    for axis, name in ((0, "height"), (1, "width")):
        args = (x[2 + axis], w[2 + axis], stride[axis], padding[axis], dilation[axis])
        if min(w[2 + axis], conv.output_size(*args)) < 1:
            span = dilation[axis] * (w[2 + axis] - 1) + 1
            raise ValueError(
                f"conv2d: the kernel spans {span} pixels, but the input's {name} is {x[2 + axis]} "
                f"with padding {padding[axis]} on each side; pad more or use a smaller kernel"
            )


def _check_windows(
    x: tuple[int, ...], w: tuple[int, ...], steps: Steps, stride: Any, padding: Any, dilation: Any
) -> None:
    for step in steps:
        if step.window is not None:
            sizes = zip(x[2:], w[2:], stride, padding, dilation, strict=True)
            output = (x[0], w[0], *(conv.output_size(*axis) for axis in sizes))
            check_window(step.name, output, step.window, step.window, (0, 0), ceil_mode=False)


def _differentiated(*tensors: Tensor | None) -> bool:
    """Whether an operation on these will be recorded."""
    return is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _bias(name: str, bias: Any, size: int) -> Tensor | None:
    if bias is None:
        return None
    bias = as_float_tensor(bias)
    if bias.shape != (size,):
        raise ValueError(f"{name}: bias must have shape ({size},), got {bias.shape}")
    return bias


# ----------------------------------------------------------------------------------- normalisation


def batch_norm(
    x: Any,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """``(x − mean)/√(var + eps) · weight + bias`` for each channel.

    Args:
        x: (N, C), (N, C, L) or (N, C, H, W).
        running_mean, running_var: (C) arrays, used unless ``training``. They are not changed here:
            ``nn.BatchNorm2d`` keeps them up to date.
        weight, bias: (C), or None.
        training: normalise with the statistics of ``x``.
    """
    if training:
        return batch_norm_training(x, weight, bias, eps)[0]
    x = _channelled(x)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: evaluation needs running_mean and running_var")
    w, b = _per_channel(x, weight, bias)
    mean, var = _statistics(x, running_mean, running_var)
    eps = number("batch_norm: eps", eps)
    return apply(norm.batch_norm, x, w, b, mean=mean, var=var, eps=eps, from_batch=False)


def batch_norm_training(
    x: Any, weight: Any, bias: Any, eps: float
) -> tuple[Tensor, tuple[Array, Array, int]]:
    """Batch norm with the batch's own statistics, and these: mean, variance (÷ n), and n."""
    x = _channelled(x)
    count = x.size // max(x.shape[1], 1)
    if count < 2:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, got shape {x.shape}; "
            "use batches of at least two (the last of an epoch may be smaller), or .eval()"
        )
    w, b = _per_channel(x, weight, bias)
    with on_device(x.data), np.errstate(all="ignore"):  # detect_anomaly reports infinities
        mean, var = norm.batch_statistics(x.data)
    eps = number("batch_norm: eps", eps)
    y = apply(norm.batch_norm, x, w, b, mean=mean, var=var, eps=eps, from_batch=True)
    return y, (mean, var, count)


def _channelled(x: Any) -> Tensor:
    x = as_float_tensor(x)
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"batch_norm: input must be (N, C), (N, C, L) or (N, C, H, W), got {x.shape}"
        )
    return x


def _statistics(x: Tensor, *running: Any) -> list[Array]:
    arrays = [as_tensor(a).data for a in running]
    check_same_device("batch_norm: running_mean and running_var", x.data, *arrays)
    for name, a in zip(("running_mean", "running_var"), arrays, strict=True):
        if a.shape != (x.shape[1],) or a.dtype != x.dtype:
            raise ValueError(
                f"batch_norm: {name} must be ({x.shape[1]},) {x.dtype} for input {x.shape}, "
                f"got {a.shape} {a.dtype}"
            )
    return arrays


def _per_channel(x: Tensor, weight: Any, bias: Any) -> tuple[Tensor | None, Tensor | None]:
    parts = [None if p is None else as_float_tensor(p) for p in (weight, bias)]
    for name, p in zip(("weight", "bias"), parts, strict=True):
        if p is not None and p.shape != (x.shape[1],):
            raise ValueError(
                f"batch_norm: {name} must have shape ({x.shape[1]},) for input {x.shape}, "
                f"got {p.shape}"
            )
    return parts[0], parts[1]


def layer_norm(
    x: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x − mean)/√(var + eps) · weight + bias`` over the last axes, ``normalized_shape``."""
    x = as_float_tensor(x)
    shape = flat("layer_norm: normalized_shape", (normalized_shape,))
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: input {x.shape} must end in normalized_shape {shape}")
    parts = [None if p is None else as_float_tensor(p) for p in (weight, bias)]
    for name, p in zip(("weight", "bias"), parts, strict=True):
        if p is not None and p.shape != shape:
            raise ValueError(f"layer_norm: {name} must have shape {shape}, got {p.shape}")
    eps = number("layer_norm: eps", eps)
    return apply(norm.layer_norm, x, *parts, axes=len(shape), eps=eps)


# ------------------------------------------------------------------------------------------- others


def dropout(x: Any, p: float = 0.5, training: bool = True, key: int | None = None) -> Tensor:
    """Zero each value with probability ``p`` and scale the others by 1/(1 − p).

    Args:
        p: 0 ≤ p ≤ 1.
        training: False returns ``x`` as it is.
        key: which mask; the same key gives the same mask on every device. None draws a fresh
            one (see :mod:`tinycompress.random`).
    """
    x = as_float_tensor(x)
    p = number("dropout: p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    return apply(dropout_op.dropout, x, p=p, key=random.next_key() if key is None else key)


def one_hot(labels: Any, num_classes: int) -> Tensor:
    """labels (N) integers → (N, num_classes) float32, 1 at the label."""
    labels, num_classes = as_tensor(labels), whole("one_hot: num_classes", num_classes, 1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"one_hot: labels must be (N) integers, got shape {labels.shape} {labels.dtype}"
        )
    if labels.device == "cpu" and labels.size:
        low, high = labels.data.min(), labels.data.max()
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"one_hot: labels must be in 0 … {num_classes - 1}, found {low} … {high}"
            )
    with on_device(labels.data):
        return Tensor(losses.one_hot(labels.data, num_classes))
