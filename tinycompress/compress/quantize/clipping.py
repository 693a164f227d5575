"""Which range to quantize: all of it, or less?

A wide range clips nothing and rounds coarsely; a narrow one rounds finely and clips what is
outside. Three answers, each a function of a :class:`~.histogram.Histogram`:

- :func:`percentile` leaves out a fixed share of the numbers at each end;
- :func:`least_error` tries ranges and takes the one with the smallest ``Σ (x − x̂)²``;
- :func:`least_divergence` takes the one whose codes keep the shape of the distribution, which is
  TensorRT's entropy calibration (Migacz 2017, "8-bit inference with TensorRT", GTC 2017)::

    P: how the numbers are distributed; those outside count in the last bin inside
    Q: the same after quantization: each code's numbers, spread evenly over the code's bins
    KL(P ‖ Q) = Σ P log(P / Q), smallest over the ranges

TensorRT makes 128 codes of 2048 bins: 16 for each where the range is widest. How large a divergence
is depends on that, so where there are fewer codes neighbouring bins are merged to as few for each.

Trap: a range with a bin for each code or less. There Q is what P would be without clipping, and if
the last bin holds much anyway, clipping costs little. Of pixels, mostly black or white, in 4 bits
and 2048 bins, the best "range" was the lowest hundredth: all but black was white. So a code must
have two bins on average, and no range is less than about an eighth of what was seen.

Trap: Q is made from the numbers inside alone. Were it made from P, with those from outside heaped
onto its last bin, clipping would cost nothing, and the narrowest range would win.

The ranges that are tried: all that was seen, times 128/128, 127/128 …; if there are numbers on both
sides of 0, then each end alone, twice, the other being the best so far. Everything is computed in
units of a bin's width, so that neither tiny nor huge numbers leave the floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinycompress.compress.quantize.affine import choose_qparams, fake_quantize, quantize
from tinycompress.compress.quantize.histogram import SIDE, Histogram
from tinycompress.compress.quantize.ranges import IntegerRange

FACTORS = np.arange(128, 0, -1) / 128
"""From wide to narrow; of two that are equally good the wider is taken."""

BINS_PER_CODE = (2, 16)
"""Of a range whose divergence is looked at: at least, and at most."""

Range = tuple[float, float]
Cost = Callable[[np.ndarray, np.ndarray], np.ndarray]


def percentile(h: Histogram, scheme: str, percent: float) -> Range:
    """The range that leaves out at most ``100 − percent`` percent of the numbers at each end.

    Zeros are no numbers here: they are never wrong, and after ReLU they may be almost all there is.
    With the symmetric scheme it is ``±t``, and the share is that of ``|x| > t``.
    """
    below, above = h.bins[:SIDE][::-1], h.bins[SIDE:]  # outward from 0
    allowed = math.floor(int(h.bins.sum()) * (1 - percent / 100))
    low, high = h.range_in_widths()
    if scheme == "symmetric":
        hi = min(_edge(below + above, allowed), max(-low, high))
        return _symmetric(h, hi)
    return h.in_numbers(max(0.0 - _edge(below, allowed), low), min(_edge(above, allowed), high))


def _edge(outward: np.ndarray, allowed: int) -> float:
    """The smallest edge, in widths from 0, beyond which at most ``allowed`` numbers lie."""
    beyond = np.append(np.cumsum(outward[::-1])[::-1], 0)
    return float(np.argmax(beyond <= allowed))


def _symmetric(h: Histogram, hi: float) -> Range:
    _, top = h.in_numbers(0.0, hi)
    return -top, top


def least_error(h: Histogram, target: IntegerRange, scheme: str) -> Range:
    """The range with the smallest squared error ``Σ (x − x̂)²``, each number at its bin's centre."""
    centres, counts = h.in_use()

    def cost(los: np.ndarray, his: np.ndarray) -> np.ndarray:
        x = np.broadcast_to(centres, (len(los), len(centres)))
        scale, zero_point = choose_qparams(los, his, target, scheme, np.float64)
        return (fake_quantize(x, scale, zero_point, target, axis=0) - x) ** 2 @ counts

    return _search(h, scheme, cost)


def least_divergence(h: Histogram, target: IntegerRange, scheme: str) -> Range:
    """The range with the smallest Kullback–Leibler divergence, of those with two bins per code.

    With about as many codes as bins nothing is lost, and it is the whole range.
    """
    number = target.qmax - target.qmin + 1
    fewest, most = (n * number for n in BINS_PER_CODE)
    h = _with_at_most(most, h, scheme)
    centres, counts = h.in_use()

    def divergence(lo: float, hi: float) -> float:
        if hi - lo < fewest:
            return math.inf
        first, last = np.searchsorted(centres, lo), np.searchsorted(centres, hi, side="right")
        x, inside = centres[first:last], counts[first:last].astype(np.float64)
        if not len(x):
            return math.inf
        p = inside.copy()
        p[0] += counts[:first].sum()
        p[-1] += counts[last:].sum()
        scale, zero_point = choose_qparams(lo, hi, target, scheme, np.float64)
        codes = quantize(x, scale, zero_point, target).astype(np.int64) - target.qmin
        mass, bins = np.bincount(codes, inside), np.bincount(codes)
        q = (mass[codes] / bins[codes]) / inside.sum()
        return float((p * np.log(p / p.sum() / q)).sum() / p.sum())

    def cost(los: np.ndarray, his: np.ndarray) -> np.ndarray:
        return np.array([divergence(lo, hi) for lo, hi in zip(los, his, strict=True)])

    return _search(h, scheme, cost)


def _with_at_most(bins: int, h: Histogram, scheme: str) -> Histogram:
    """``h`` with neighbouring bins merged until its range has at most so many."""
    low, high = h.range_in_widths()
    width = 2 * max(-low, high) if scheme == "symmetric" else high - low
    return h.coarser(max(0, math.ceil(math.log2(max(width, 1.0) / bins))))


def _search(h: Histogram, scheme: str, cost: Cost) -> Range:
    """The best range for this cost, which is given in widths; of equals the widest."""
    low, high = h.range_in_widths()
    if low == high:
        return 0.0, 0.0
    if scheme == "symmetric":
        tops = FACTORS * max(-low, high)
        return _symmetric(h, float(tops[np.argmin(cost(-tops, tops))]))
    best = int(np.argmin(cost(FACTORS * low, FACTORS * high)))
    lo, hi = float(FACTORS[best] * low), float(FACTORS[best] * high)
    for _ in range(2 if low < 0 < high else 0):
        los = FACTORS * low
        lo = float(los[np.argmin(cost(los, np.full_like(los, hi)))])
        his = FACTORS * high
        hi = float(his[np.argmin(cost(np.full_like(his, lo), his))])
    return h.in_numbers(lo, hi)
