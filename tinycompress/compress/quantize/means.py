"""The mean of codes, as a code: exact sums, one division, rounded half to even.

    n_y = rint( Σ n / count )        n = code − zero point; padding is n = 0

The mean of a window stays on the grid of what comes in. It is rounded *before* the zero point is
added, as everywhere (``affine.py``), so that a tie does not depend on the zero point. Adding up and
multiplying by 1/count, as an average of floats does, would decide some ties the wrong way: 3/6
becomes 0.5 or a little more. Sums of codes are whole numbers, so they are exact in float64, and the
quotient of two whole numbers, correctly rounded, is a half only where it is one.

The derivative is that of the mean, straight through.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, device_of, to_device
from tinycompress.ops import pool
from tinycompress.ops.elementwise import Result

Pair = tuple[int, int]


def rounded_avg_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Result:
    """Steps x (N, C, H, W) → (N, C, oh, ow): the mean of each window, as a whole number."""
    sizes = (kernel, stride, padding, ceil_mode)
    window = np.ones((1, 1, *x.shape[2:]))
    inside = _sums(window, *sizes)  # how many pixels of the image each window has
    share = pool.avg_pool2d(window, *sizes, count_include_pad)[0]
    counts = to_device(np.rint(inside / share), device_of(x))
    y = _rounded(_sums(x, *sizes), counts, x.dtype)
    # The derivative is linear and does not depend on x.
    return y, (lambda g: pool.avg_pool2d(x, *sizes, count_include_pad)[1][0](g),)


def rounded_adaptive_avg_pool2d(x: Array, output: Pair) -> Result:
    """Steps x (N, C, H, W) → (N, C, oh, ow): the mean over a grid of windows, as whole numbers."""
    counts = np.multiply.outer(*map(_adaptive_sizes, x.shape[2:], output))
    counts = to_device(counts.astype(np.float64), device_of(x))
    means = pool.adaptive_avg_pool2d(x.astype(np.float64), output)[0]
    sums = array_module(x).rint(means * counts)  # off by far less than a half before
    y = _rounded(sums, counts, x.dtype)
    return y, (lambda g: pool.adaptive_avg_pool2d(x, output)[1][0](g),)


def _sums(x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Array:
    """The sum of each window, (N, C, oh, ow), in float64."""
    windows = pool.Windows(x, kernel, stride, padding, ceil_mode)
    image = windows.padded(x, 0.0)
    taps = list(windows.taps())
    y = image[taps[0]].astype(np.float64)
    for tap in taps[1:]:
        y += image[tap]
    return y.transpose(1, 3, 0, 2)  # (oh, N, ow, C) -> (N, C, oh, ow)


def _rounded(sums: Array, counts: Array, dtype: Any) -> Array:
    return array_module(sums).rint(sums / counts).astype(dtype)


def _adaptive_sizes(size: int, windows: int) -> np.ndarray:
    """How many pixels each window has along one axis; see ``pool.adaptive_avg_pool2d``."""
    p = np.arange(windows)
    return -(-(p + 1) * size // windows) - p * size // windows
