"""A histogram that does not depend on the order or the split of the data.

Most histograms for calibration choose their bins from the first batch and stretch or re-bin them
when a later one is wider. What comes out depends on which batch came first. Here the width of a bin
is a power of two, and each edge is a multiple of it::

    bin i holds  i · w ≤ x < (i + 1) · w,   w = 2ᵉ,   i = −2048 … 2047

with the smallest e for which every number fits. Two bins next to each other are exactly one bin of
a histogram of twice the width, so the finer of two histograms becomes the coarser one by adding
whole numbers, exactly as if its data had been counted there in the first place. Half of the bins of
one side, at least, are in use.

Zeros are not counted: they have a code of their own, are never wrong, and after ReLU would drown
everything else. The smallest and the largest number are kept beside it, to the bit.

Traps: ``x / w`` of a tiny negative number may become −0, whose floor is bin 0 and not −1; and w may
be smaller than any float. So numbers are scaled in float64 by ``ldexp``, and the sign decides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, on_device, to_numpy
from tinycompress.compress.quantize.affine import min_max

SIDE_BITS = 11
SIDE = 1 << SIDE_BITS
"""Bins on each side of 0."""

NO_EXPONENT = -10_000
"""Of a histogram that holds nothing: finer than any other."""


class Histogram(NamedTuple):
    """On the host. ``low`` and ``high`` include 0.

    Attributes:
        total: (1) int64, how many numbers were seen, zeros included.
        low, high: (1) float64, the smallest and the largest number.
        exponent: (1) int64, e: the width of a bin is 2ᵉ.
        bins: (4096) int64, how many numbers fell into bin i − 2048.
    """

    total: np.ndarray
    low: np.ndarray
    high: np.ndarray
    exponent: np.ndarray
    bins: np.ndarray

    def in_use(self) -> tuple[np.ndarray, np.ndarray]:
        """(centres in units of the width, within the range; how many numbers) of filled bins."""
        filled = np.flatnonzero(self.bins)
        centres = np.clip(filled - SIDE + 0.5, *self.range_in_widths())
        return centres, self.bins[filled]

    def range_in_widths(self) -> tuple[float, float]:
        """The smallest and the largest number in units of the width: at most 2048 in size."""
        e = int(self.exponent[0])
        return math.ldexp(float(self.low[0]), -e), math.ldexp(float(self.high[0]), -e)

    def coarser(self, doublings: int) -> Histogram:
        """The histogram of the same data in bins of ``2^doublings`` times the width."""
        bins = _coarsened(self.bins, doublings)
        return self._replace(exponent=self.exponent + doublings, bins=bins)

    def in_numbers(self, lo: float, hi: float) -> tuple[float, float]:
        """Ends within :meth:`range_in_widths`, as numbers."""
        e = int(self.exponent[0])
        return math.ldexp(lo, e), math.ldexp(hi, e)


def histogram_of(x: Array, name: str = "x") -> Histogram:
    """The histogram of one array of floats.

    Raises:
        ValueError: it is empty, or holds NaN or infinity; ``name`` says where.
    """
    low, high = (to_numpy(end) for end in min_max(x, name=name))
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    total = np.array([x.size], np.int64)
    largest = max(-float(low[0]), float(high[0]))
    if largest == 0:
        return Histogram(total, low, high, np.array([NO_EXPONENT]), np.zeros(2 * SIDE, np.int64))
    exponent = math.frexp(largest)[1] - SIDE_BITS  # largest < 2^exponent · SIDE
    xp = array_module(x)
    with on_device(x):
        numbers = x.ravel(order="K").astype(xp.float64)  # as they lie: their order says nothing
        widths = xp.ldexp(numbers, xp.full(1, -exponent, xp.int32))
        places = xp.floor(widths) - ((numbers < 0) & (widths == 0))
        numbered = xp.bincount(places.astype(xp.int64) + SIDE, minlength=2 * SIDE)
        zeros = int((numbers == 0).sum())
    bins = to_numpy(numbered).astype(np.int64)
    bins[SIDE] -= zeros
    return Histogram(total, low, high, np.array([exponent]), bins)


def joined(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the data of both, exactly."""
    exponent = np.maximum(a.exponent, b.exponent)
    bins = sum(_coarsened(h.bins, int((exponent - h.exponent)[0])) for h in (a, b))
    return Histogram(
        a.total + b.total,
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
        exponent,
        np.asarray(bins),
    )


def _coarsened(bins: np.ndarray, doublings: int) -> np.ndarray:
    """The same numbers in bins of ``2^doublings`` times the width."""
    padding = np.zeros(SIDE // 2, np.int64)
    for _ in range(min(doublings, SIDE_BITS)):  # by then each side is in one bin, and stays there
        bins = np.concatenate([padding, bins.reshape(-1, 2).sum(axis=1), padding])
    return bins
