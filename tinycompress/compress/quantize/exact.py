"""Sums of products of whole numbers, exactly, at the speed of float BLAS.

NumPy multiplies matrices of integers without BLAS, some hundred times slower than matrices of
floats. But a float32 holds every whole number up to 2²⁴, so sums of products of codes come out
exact in float32 as long as no partial sum, in whatever order BLAS takes them, is larger. How large
they can be is known before anything runs. With activations between −a ≤ 0 and b ≥ 0 (in steps,
code − zero point), a partial sum of channel o lies between

    low  = Σ_k min(−a·w[o, k], b·w[o, k])        high = Σ_k max(−a·w[o, k], b·w[o, k])

(never farther from 0 than K·|x|max·|w|max, and for real weights a few times nearer). So:

1. ``−low, high < 2²⁴`` (bias included): one product in float32, which is exact;
2. else the input channels are cut into blocks for which that holds, and the exact float32 sums of
   the blocks are added in int32;
3. where that takes too many blocks, or even one channel is too much: one product in float64, which
   is exact up to 2⁵³.

That int32 cannot hold a sum is seen from the same bounds, and refused: :func:`check_accumulator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, on_device, to_device
from tinycompress.ops import conv, linear
from tinycompress.ops.layout import to_hnwc, to_nchw
from tinycompress.ops.steps import Step

FLOAT32_LIMIT = 1 << 24
INT32_LARGEST = (1 << 31) - 1
MOST_BLOCKS = 6
"""One convolution in float64 takes about twice as long as in float32, and so do about 7 blocks."""

Steps = tuple[int, int]
"""The smallest (≤ 0) and the largest (≥ 0) ``code − zero point`` of an activation. Steps on a grid
are numbers; a :class:`Step` of ``ops/steps.py`` is an operation."""


# ------------------------------------------------------------------------------- how large sums get


class Bounds(NamedTuple):
    """Between which numbers every partial sum lies, int64 arrays."""

    low: np.ndarray
    high: np.ndarray

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(int(-self.low.min(initial=0)), int(self.high.max(initial=0)))


def bounds(codes: np.ndarray, steps: Steps) -> Bounds:
    """What the sums of products of weights (O, C, ...) can be, for each input channel: (O, C)."""
    w = codes.reshape(*codes.shape[:2], -1).astype(np.int64)
    positive, negative = np.maximum(w, 0).sum(axis=2), np.minimum(w, 0).sum(axis=2)
    low, high = steps
    return Bounds(positive * low + negative * high, positive * high + negative * low)


def check_accumulator(
    name: str, codes: np.ndarray, steps: Steps, bias: np.ndarray | None = None
) -> None:
    """Refuse a layer whose sums could leave int32, before anything runs.

    Args:
        name: the layer's, for the error.
        codes: of the weights, (O, C / groups, ...), on the host.
        steps: of the incoming activation, ``Grid.steps``.
        bias: (O) whole numbers, in units of s_x·s_w; or None.

    Raises:
        ValueError: with the largest sum, what it is made of, and what to change.
    """
    low, high = (b.sum(axis=1) for b in bounds(codes, steps))
    shift = np.zeros_like(low) if bias is None else bias.astype(np.int64)
    reach = np.maximum(np.maximum(-low, high), np.maximum(-(low + shift), high + shift))
    reach = np.maximum(reach, np.abs(shift))
    worst = int(reach.argmax())
    if reach[worst] <= INT32_LARGEST:
        return
    terms = codes[0].size
    raise ValueError(
        f"{name}: the sum of {terms:,} products of activations {steps[0]} … {steps[1]} and weights "
        f"{int(codes[worst].min())} … {int(codes[worst].max())}, with a bias of "
        f"{int(shift[worst]):,}, can reach {int(reach[worst]):,} in output channel {worst}, beyond "
        f"the {INT32_LARGEST:,} of int32; use fewer bits for the weights or for the activations"
    )


def fits_float32(codes: np.ndarray, steps: Steps, bias: np.ndarray | None) -> bool:
    """Whether one product in float32 is exact, with the bias added to it."""
    low, high = (b.sum(axis=1) for b in bounds(codes, steps))
    shift = np.zeros_like(low) if bias is None else np.abs(bias.astype(np.int64))
    return Bounds(low - shift, high + shift).largest < FLOAT32_LIMIT


def blocks_of(codes: np.ndarray, steps: Steps) -> list[slice] | None:
    """The input channels in blocks whose sums are exact in float32; None: float64 must do it.

    As few as can be had from left to right.
    """
    low, high = bounds(codes, steps)
    channels = codes.shape[1]
    blocks: list[slice] = []
    first = 0
    while first < channels:
        below, above = (np.cumsum(b[:, first:], axis=1) for b in (low, high))
        fits = (-below < FLOAT32_LIMIT).all(axis=0) & (above < FLOAT32_LIMIT).all(axis=0)
        count = int(fits.sum())  # both only grow
        if count == 0 or len(blocks) == MOST_BLOCKS:
            return None
        blocks.append(slice(first, first + count))
        first += count
    return blocks


# ------------------------------------------------------------------------------------- the products


class Product:
    """A weight, ready to be multiplied with activations exactly.

    Args:
        codes: of the weights, (O, C / groups, kh, kw) or (O, C), on the host.
        bias: (O) whole numbers within int32, or None.
        steps: the smallest and the largest of the activations.
        device: where they will live.
        options: of :func:`tinycompress.ops.conv.conv2d`; None for a linear layer.
    """

    def __init__(
        self,
        codes: np.ndarray,
        bias: np.ndarray | None,
        steps: Steps,
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        everything = [slice(0, codes.shape[1])]
        self.at_once = fits_float32(codes, steps, bias)
        blocks = everything if self.at_once else blocks_of(codes, steps)
        self.dtype: np.dtype = np.dtype(np.float32)
        if blocks is None:
            self.dtype, self.at_once, blocks = np.dtype(np.float64), True, everything
        self.blocks = blocks
        self.options, self.groups = options, (options or {}).get("groups", 1)
        self.weights = [
            to_device(np.ascontiguousarray(codes[:, block], self.dtype), device)
            for block in self.blocks
        ]
        kind = self.dtype if self.at_once else np.dtype(np.int32)
        self.bias = None if bias is None else to_device(bias.astype(kind), device)

    def __call__(self, x: Array, *steps: Step) -> Array:
        """The sums, with the bias: whole numbers in float32, float64 or int32.

        Args:
            x: the activation, ``codes − zero point`` as floats: (N, C, H, W) or (..., C).
            steps: operations that follow on the sums, channels last (``ops/steps.py``).
        """
        with on_device(x), np.errstate(all="ignore"):
            x = x.astype(self.dtype, copy=False)
            if self.at_once:
                return self._product(x, self.weights[0], self.bias, steps)
            return self._after(self._sum_of_blocks(x), steps)

    def _product(self, x: Array, w: Array, b: Array | None, steps: tuple[Step, ...]) -> Array:
        if self.options is None:
            return linear.linear(x, w, b, steps, keep=False)[0]
        return conv.conv2d(x, w, b, **self.options, steps=steps, keep=False)[0]

    def _sum_of_blocks(self, x: Array) -> Array:
        parts = (
            self._product(self._channels(x, block), w, None, ()).astype(np.int32)
            for block, w in zip(self.blocks, self.weights, strict=True)
        )
        total = next(parts)
        for part in parts:
            total += part
        if self.bias is not None:
            total += self.bias if self.options is None else self.bias[:, None, None]
        return total

    def _channels(self, x: Array, block: slice) -> Array:
        """These input channels, of every group."""
        if self.options is None:
            return x[..., block]
        if self.groups == 1:
            return x[:, block]
        N, C, H, W = x.shape
        split = x.reshape(N, self.groups, C // self.groups, H, W)[:, :, block]
        return split.reshape(N, -1, H, W)

    def _after(self, y: Array, steps: tuple[Step, ...]) -> Array:
        """The steps, one by one, on sums that are whole."""
        for step in steps:
            if step.window is not None:
                y = step.op(y, **step.params)[0]
            else:
                rows = y if self.options is None else to_hnwc(y)  # channels last
                rows = step.op(rows, **step.params)[0]
                y = rows if self.options is None else to_nchw(rows)
        return y
