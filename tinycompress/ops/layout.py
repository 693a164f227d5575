"""How images lie in memory: (H, N, W, C), seen as N, C, H, W.

Readers and shapes say N, C, H, W, as torch does. Memory holds H outermost and C innermost. Two
things follow. Moving a convolution kernel down by one row is another slice of the same block, so
columns are copied along the width only. And channels are the longest contiguous run, which is what
matrix products want. Elementwise NumPy operations keep the memory order of their input, so a
network stays in this layout from its first convolution to ``flatten`` without anybody asking.
"""

from __future__ import annotations

import numpy as np

from tinycompress.backend import Array, array_module


def to_hnwc(x: Array, padding: tuple[int, int] = (0, 0), value: float = 0.0) -> Array:
    """x (N, C, H, W) → (H + 2ph, N, W + 2pw, C), C-contiguous, ``value`` around the image.

    Without padding nothing is copied where ``x`` already lies in this order.
    """
    xp = array_module(x)
    ph, pw = padding
    inner = x.transpose(2, 0, 3, 1)  # (N, C, H, W) -> (H, N, W, C)
    if ph == pw == 0:
        return xp.ascontiguousarray(inner)
    H, N, W, C = inner.shape
    y = xp.full((H + 2 * ph, N, W + 2 * pw, C), value, x.dtype)
    y[ph : ph + H, :, pw : pw + W] = inner
    return y


def strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """``as_strided``: a view of the memory of ``x`` from its start on, with any steps in it."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        return np.ndarray(shape, x.dtype, x.data, 0, strides)  # the same, four times as fast
    return array_module(x).lib.stride_tricks.as_strided(x, shape, strides)


def to_nchw(y: Array, padding: tuple[int, int] = (0, 0)) -> Array:
    """y (H, N, W, C) → (N, C, H − 2ph, W − 2pw): a view, with the padding cut off."""
    ph, pw = padding
    H, _, W, _ = y.shape
    return y[ph : H - ph, :, pw : W - pw].transpose(1, 3, 0, 2)
