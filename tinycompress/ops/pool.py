"""Pooling: the largest or the mean value of each window.

    window (p, q) covers rows p·sh − ph … p·sh − ph + kh − 1, and columns likewise

Every window is visited tap by tap: tap (i, j) of *all* windows is one strided slice of the image,
so a 2×2 pool is four slices and three ``maximum`` calls, whatever the image's size.
Padding of a maximum is −∞, so a padded place never wins. Ties go to the first maximum in row-major
order, as in torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, device_of, to_device
from tinycompress.ops.elementwise import Result
from tinycompress.ops.layout import to_hnwc, to_nchw

Pair = tuple[int, int]


def pooled_size(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Windows along one axis. With ``ceil_mode`` the last may hang over, if it starts inside."""
    span = size + 2 * padding - kernel
    windows = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (windows - 1) * stride >= size + padding:
        windows -= 1
    return windows


class Windows:
    """The windows of one pooling: how the image is padded, and where each tap lies."""

    def __init__(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool
    ) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.image = x.shape[2:]
        self.output = tuple(
            pooled_size(n, k, s, p, ceil_mode)
            for n, k, s, p in zip(self.image, kernel, stride, padding, strict=True)
        )
        self.apart = all(s >= k for s, k in zip(stride, kernel, strict=True))
        # A window that hangs over (ceil_mode) needs more padding at the end than at the start.
        self.overhang = tuple(
            max(0, (o - 1) * s + k - (n + 2 * p))
            for o, s, k, n, p in zip(self.output, stride, kernel, self.image, padding, strict=True)
        )

    def padded(self, x: Array, value: float) -> Array:
        """x (N, C, H, W) → (H', N, W', C) with ``value`` wherever a window leaves the image."""
        image = to_hnwc(x, self.padding, value)
        if not any(self.overhang):
            return image
        widths = ((0, self.overhang[0]), (0, 0), (0, self.overhang[1]), (0, 0))
        return array_module(x).pad(image, widths, constant_values=value)

    def taps(self) -> Iterator[tuple[slice, slice, slice]]:
        """For each tap, in row-major order: where its pixels stand in (H', N, W', C)."""
        (kh, kw), (sh, sw), (oh, ow) = self.kernel, self.stride, self.output
        for i in range(kh):
            for j in range(kw):
                rows = slice(i, i + (oh - 1) * sh + 1, sh)
                yield rows, slice(None), slice(j, j + (ow - 1) * sw + 1, sw)

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Where the gradient of the image is collected: zeros, or nothing yet (:meth:`lay`)."""
        xp = array_module(like)
        full = all(o * k == n for o, k, n in zip(self.output, self.kernel, shape[::2], strict=True))
        return (xp.empty if self.apart and full else xp.zeros)(shape, like.dtype)

    def lay(self, dx: Array, tap: tuple[slice, slice, slice], d: Array) -> None:
        """Add what comes to the pixels of one tap; windows that do not overlap may just write."""
        if self.apart:
            dx[tap] = d
        else:
            dx[tap] += d

    def cropped(self, y: Array) -> Array:
        """The gradient of :meth:`padded`: (H', N, W', C) → (N, C, H, W)."""
        (bottom, right), (H, _, W, _) = self.overhang, y.shape
        return to_nchw(y[: H - bottom, :, : W - right], self.padding)


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Result:
    """x (N, C, H, W) → (N, C, oh, ow), the largest value of each window."""
    windows = Windows(x, kernel, stride, padding, ceil_mode)
    image = windows.padded(x, -np.inf)
    taps = list(windows.taps())
    y = largest([image[tap] for tap in taps])
    code = first_winner([image[tap] for tap in taps], y)
    shape = image.shape

    def d_x(g: Array) -> Array:
        gh = to_hnwc(g)
        dx = windows.zeros(shape, g)
        for k, tap in enumerate(taps):
            windows.lay(dx, tap, won(code, k, gh))
        return windows.cropped(dx)

    return to_nchw(y), (d_x,)


def largest(taps: list[Array]) -> Array:
    """The largest of the taps, place by place."""
    xp = array_module(taps[0])
    if len(taps) == 1:
        return taps[0].copy()
    y = xp.maximum(taps[0], taps[1])
    for tap in taps[2:]:
        xp.maximum(y, tap, out=y)
    return y


def first_winner(taps: list[Array], y: Array) -> Array:
    """The number of the first tap that is ``y``, in one byte; where none is (NaN), how many taps.

    It counts the taps, as long as none has been the largest.
    """
    beaten = taps[0] != y
    code = beaten.astype("uint8" if len(taps) < 256 else "int32")
    for tap in taps[1:]:
        beaten &= tap != y
        code += beaten.view("uint8")
    return code


def won(code: Array, k: int, g: Array, out: Array | None = None) -> Array:
    """``g`` where tap ``k`` has won, else 0. The mask is made of floats: a boolean one would be
    converted in the product.
    """
    xp = array_module(g)
    out = xp.empty_like(g) if out is None else out
    xp.equal(code, k, out=out, casting="unsafe")
    out *= g
    return out


def taps_of(y: Array, window: Pair) -> list[Array]:
    """The taps of a window as a convolution lays them out (``geometry.py``): one behind the other.

    y (oh, ow · N, C), the width phase by phase → a view (oh / v, ow / u · N, C) for each tap.
    """
    (v, u), (h, m, C) = window, y.shape
    by_tap = y.reshape(h // v, v * u, m // u, C)
    return [by_tap[:, k] for k in range(v * u)]


def max_of_taps(y: Array, window: Pair, keep: bool = True) -> tuple[Array, Any]:
    """The largest of the taps of each window, and (with ``keep``) its derivative."""
    taps, shape = taps_of(y, window), y.shape
    z = largest(taps)
    if not keep:
        return z, None
    code = first_winner(taps, z)

    def d_y(g: Array) -> Array:
        d = array_module(g).empty(shape, g.dtype)
        for k, tap in enumerate(taps_of(d, window)):
            won(code, k, g.reshape(code.shape), out=tap)
        return d

    return z, d_y


def mean_of_taps(y: Array, window: Pair, keep: bool = True) -> tuple[Array, Any]:
    """The mean of the taps of each window, and its derivative: every tap has its share."""
    taps, shape = taps_of(y, window), y.shape
    z = taps[0].copy()
    for tap in taps[1:]:
        z += tap
    z *= 1 / len(taps)
    small = z.shape

    def d_y(g: Array) -> Array:
        d = array_module(g).empty(shape, g.dtype)
        share = (g * (1 / (window[0] * window[1]))).reshape(small)
        for tap in taps_of(d, window):
            tap[...] = share
        return d

    return z, d_y


def avg_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool
) -> Result:
    """x (N, C, H, W) → (N, C, oh, ow), the mean of each window.

    ``count_include_pad`` counts padded zeros as values; what hangs over in ceil_mode never counts.
    """
    windows = Windows(x, kernel, stride, padding, ceil_mode)
    image = windows.padded(x, 0.0)
    share = _window_shares(
        windows.image, kernel, stride, padding, windows.output, count_include_pad,
        x.dtype, device_of(x),
    )  # fmt: skip
    taps = list(windows.taps())
    y = image[taps[0]].copy()
    for tap in taps[1:]:
        y += image[tap]
    y *= share
    shape = image.shape

    def d_x(g: Array) -> Array:
        gh = to_hnwc(g) * share
        dx = windows.zeros(shape, g)
        for tap in taps:
            windows.lay(dx, tap, gh)
        return windows.cropped(dx)

    return to_nchw(y), (d_x,)


@lru_cache(maxsize=64)
def _window_shares(
    image: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    output: Pair,
    count_include_pad: bool,
    dtype: np.dtype,
    device: str,
) -> Array:
    """1 / (values in each window), (oh, 1, ow, 1). Kept, so that it goes to a GPU only once."""
    counts = []
    for axis in (0, 1):
        size, p = image[axis], padding[axis]
        start = np.arange(output[axis]) * stride[axis] - p
        stop = np.minimum(start + kernel[axis], size + p)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size)
        counts.append(stop - start)
    share: Any = 1.0 / np.multiply.outer(*counts)[:, None, :, None]
    return to_device(share.astype(dtype), device)


def adaptive_avg_pool2d(x: Array, output: Pair) -> Result:
    """x (N, C, H, W) → (N, C, oh, ow): window p covers rows ⌊p·H/oh⌋ … ⌈(p+1)·H/oh⌉ − 1.

    A mean over rows, then over columns: two products with matrices of shares, so that the
    derivative is the same two products with the matrices transposed.
    """
    N, C, H, W = x.shape
    oh, ow = output
    rows = _share_matrix(H, oh, x.dtype, device_of(x))  # (oh, H)
    cols = _share_matrix(W, ow, x.dtype, device_of(x))  # (ow, W)

    def both(a: Array, left: Array, right: Array) -> Array:  # (h, N, w, C) -> (h', N, w', C)
        h, _, w, _ = a.shape
        tall = (left @ a.reshape(h, N * w * C)).reshape(len(left), N, w, C)
        return right @ tall  # broadcast over h' and N

    y = both(to_hnwc(x), rows, cols)
    return to_nchw(y), (lambda g: to_nchw(both(to_hnwc(g), rows.T, cols.T)),)


@lru_cache(maxsize=64)
def _share_matrix(size: int, output: int, dtype: np.dtype, device: str) -> Array:
    """(output, size); kept like :func:`_window_shares`."""
    shares = np.zeros((output, size), dtype)
    for p in range(output):
        start, stop = p * size // output, -(-(p + 1) * size // output)
        shares[p, start:stop] = 1.0 / (stop - start)
    return to_device(shares, device)
