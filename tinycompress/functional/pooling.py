"""Pooling of images; the windows and derivatives are in ``ops/pool.py``."""

from __future__ import annotations

from typing import Any

from tinycompress.ops import pool
from tinycompress.shapes import pair
from tinycompress.tensor import Tensor, apply, as_float_tensor

Pair = tuple[int, int]
Size = int | Pair


def max_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window of x (N, C, H, W).

    Args:
        kernel_size: of the window, a whole number or (height, width).
        stride: from window to window; None means ``kernel_size``.
        padding: −∞ on each side, at most half the kernel.
        ceil_mode: let the last window hang over the edge, if it starts inside.
    """
    x = _images("max_pool2d", x)
    sizes = _window("max_pool2d", x, kernel_size, stride, padding, ceil_mode)
    return apply(pool.max_pool2d, x, **sizes)


def avg_pool2d(
    x: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of x (N, C, H, W); arguments as for :func:`max_pool2d`.

    ``count_include_pad`` counts the zeros of the padding as values.
    """
    x = _images("avg_pool2d", x)
    sizes = _window("avg_pool2d", x, kernel_size, stride, padding, ceil_mode)
    return apply(pool.avg_pool2d, x, **sizes, count_include_pad=count_include_pad)


def adaptive_avg_pool2d(x: Any, output_size: Size) -> Tensor:
    """The mean over a grid of ``output_size`` windows that cover x (N, C, H, W)."""
    x = _images("adaptive_avg_pool2d", x)
    output = pair("adaptive_avg_pool2d: output_size", output_size, 1)
    return apply(pool.adaptive_avg_pool2d, x, output=output)


def _images(name: str, x: Any) -> Tensor:
    x = as_float_tensor(x)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"{name}: input must be (N, C, H, W) with pixels, got shape {x.shape}")
    return x


def _window(
    name: str, x: Tensor, kernel: Size, stride: Size | None, padding: Size, ceil_mode: bool
) -> dict[str, Any]:
    k = pair(f"{name}: kernel_size", kernel, 1)
    s = k if stride is None else pair(f"{name}: stride", stride, 1)
    p = pair(f"{name}: padding", padding, 0)
    check_window(name, x.shape, k, s, p, ceil_mode)
    return {"kernel": k, "stride": s, "padding": p, "ceil_mode": ceil_mode}


def check_window(
    name: str, shape: tuple[int, ...], k: Pair, s: Pair, p: Pair, ceil_mode: bool
) -> None:
    """Raise unless a window of size ``k`` fits into an input of ``shape`` (N, C, H, W)."""
    for axis, side in ((0, "height"), (1, "width")):
        if 2 * p[axis] > k[axis]:
            raise ValueError(
                f"{name}: padding {p} must be at most half of kernel_size {k} in each direction"
            )
        size = shape[2 + axis]
        if pool.pooled_size(size, k[axis], s[axis], p[axis], ceil_mode) < 1:
            raise ValueError(
                f"{name}: a window of {k} does not fit into input {shape}: its {side} is {size} "
                f"with padding {p[axis]} on each side"
            )
