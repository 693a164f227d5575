"""Fixed point: multiplying a whole number by a real one, with whole numbers, and rounding once.

A layer adds up products of codes in int32. What it hands on are codes on another grid, so the sum
must be multiplied by a real number ``M = s_x·s_w / s_y``. In fixed point that is a *mantissa* m of
31 bits and a *shift* (Jacob et al. 2018, arXiv:1712.05877, section 2.2):

    M ≈ m · 2⁻ˢʰⁱᶠᵗ        2³⁰ ≤ m < 2³¹        :func:`multiplier`
    ⌊acc · m · 2⁻ˢʰⁱᶠᵗ + ½⌋ = (acc·m + 2ˢʰⁱᶠᵗ⁻¹) >> shift        :func:`rounded`

in int64, where nothing is lost, with ONE rounding, to the nearest whole number, halves upwards.
(gemmlowp rounds twice, first to 32 bits and then by the shift: up to 0.75 of a step away, and
another code in 2.6% of cases.) Then the zero point is added, and the result is clipped; a ReLU is a
lower end of that clip (:func:`requantize`).

NumPy multiplies float64 much faster than int64. A product of up to 53 bits is exact in float64, and
one that has more is so large that it is clipped, unless the shift is large, too. So where
``shift + bits of the largest code ≤ 52`` the same numbers come from ``floor(acc · M + ½)`` in
float64, to the bit; and elsewhere from int64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from tinycompress.backend import Array, array_module, on_device, to_device
from tinycompress.compress.quantize.ranges import IntegerRange

MANTISSA_BITS = 31
SMALLEST_SHIFT, LARGEST_SHIFT = 1, 63
EXACT_BITS = 52
"""Whole numbers and halves below 2⁵² are exact in float64."""
MOST_SUMMANDS = 16


@overload
def multiplier(real: float) -> tuple[int, int]: ...
@overload
def multiplier(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
def multiplier(real: Any) -> Any:
    """Mantissa and shift with ``m · 2⁻ˢʰⁱᶠᵗ ≈ real``, as close as 31 bits can be.

    Below 2⁻³³ the shift stays 63, above 2³⁰ it stays 1 (with the largest m): an int32 times such a
    number rounds to 0, or is beyond all codes of 16 bits, in either way.

    Args:
        real: above 0; one number, or a NumPy array of them.

    Returns:
        Two ints, or two int64 arrays.

    Raises:
        ValueError: a number that is not above 0, or not finite.
    """
    numbers = np.asarray(real, np.float64)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(f"a multiplier must be above 0 and finite, got {real}")
    fraction, exponent = np.frexp(numbers)  # fraction · 2^exponent, 1/2 ≤ fraction < 1
    m = np.rint(np.ldexp(fraction, MANTISSA_BITS)).astype(np.int64)
    carried = m == 1 << MANTISSA_BITS
    m = np.where(carried, m // 2, m)
    shift = MANTISSA_BITS - exponent.astype(np.int64) - carried
    m = np.where(shift < SMALLEST_SHIFT, (1 << MANTISSA_BITS) - 1, m)
    shift = np.clip(shift, SMALLEST_SHIFT, LARGEST_SHIFT)
    return (m, shift) if isinstance(real, np.ndarray) else (int(m), int(shift))


def requantize(
    acc: Array,
    m: Array | int,
    shift: Array | int,
    zero_point: int,
    target: IntegerRange,
    low: int | None = None,
) -> Array:
    """Codes of accumulators: ``clip(⌊acc · m · 2⁻ˢʰⁱᶠᵗ + ½⌋ + zero_point, qmin, qmax)``.

    Args:
        acc: whole numbers within int32, as integers or as floats.
        m, shift: as :func:`multiplier` gives them, on the device of ``acc``; arrays broadcast.
        zero_point: of the result.
        target: the codes to use.
        low: the lowest code (None: qmin). ``zero_point`` makes a ReLU.

    Returns:
        Codes of ``target.dtype``; where ``acc`` is an array of floats, as floats of its dtype.
    """
    low = target.qmin if low is None else low
    dtype = acc.dtype if acc.dtype.kind == "f" else target.dtype
    with on_device(acc):
        y = rounded(acc, m, shift, max(target.qmax - zero_point, zero_point - target.qmin))
        y += zero_point
        return array_module(y).clip(y, low, target.qmax, out=y).astype(dtype)


def rounded(acc: Array, m: Array | int, shift: Array | int, largest: int) -> Array:
    """``⌊acc · m · 2⁻ˢʰⁱᶠᵗ + ½⌋``, in a new array of float64 or int64.

    Numbers beyond ±``largest`` may come back as others that are beyond it.

    Args:
        acc, m, shift: as for :func:`requantize`.
        largest: what the result will be clipped to, or less.
    """
    xp = array_module(acc)
    if int(xp.max(xp.asarray(shift))) + int(largest).bit_length() <= EXACT_BITS:
        return rounded_floats(acc, factor(m, shift, xp))
    return rounded_integers(acc, m, xp.asarray(shift))


def rounded_integers(acc: Array, m: Array | int, shift: Array) -> Array:
    """:func:`rounded` in int64, where it is always exact."""
    xp = array_module(acc)
    y = acc.astype(xp.int64) * m
    y += xp.left_shift(xp.ones_like(shift), shift - 1)
    return xp.right_shift(y, shift)


def rounded_floats(acc: Array, real: Array | float) -> Array:
    """:func:`rounded` in float64, for those who know that it is exact there."""
    xp = array_module(acc)
    y = acc * real if acc.dtype == np.float64 else acc.astype(xp.float64) * real
    y += 0.5
    return xp.floor(y, out=y)


def factor(m: Any, shift: Any, xp: Any = np) -> Any:
    """``m · 2⁻ˢʰⁱᶠᵗ`` in float64, where it is exact."""
    return xp.ldexp(xp.asarray(m, dtype=xp.float64), xp.asarray(-shift, dtype=xp.int32))


# ------------------------------------------------------------------------------------------ sums


def common_multipliers(reals: Sequence[float]) -> tuple[list[int], int]:
    """Mantissas of several numbers with the same shift, that of the largest: ``m_i · 2⁻ˢʰⁱᶠᵗ``.

    The largest has 31 bits, the others are as far off as it is, at most ``2⁻ˢʰⁱᶠᵗ⁻¹``.
    """
    _, shift = multiplier(max(float(real) for real in reals))
    return [
        min(round(math.ldexp(float(real), shift)), 2**MANTISSA_BITS - 1) for real in reals
    ], shift


def rounded_sum(steps: Sequence[Array], reals: Sequence[float]) -> Array:
    """``⌊Σ_i m_i·steps_i · 2⁻ˢʰⁱᶠᵗ + ½⌋``: steps on several grids, added on another, rounded once.

    With ``m_i · 2⁻ˢʰⁱᶠᵗ ≈ s_i/s_y`` from :func:`common_multipliers`. One array alone changes its
    grid, as by :func:`rounded`. A step has 17 bits with its sign, so each product has 47, and a sum
    of up to 16 of them is exact in float64.

    Args:
        steps: whole numbers (codes − zero point) as integers or floats, which broadcast.
        reals: ``s_i/s_y``, one for each.

    Returns:
        A new float64 array of steps of the output, before clipping.
    """
    if not 1 <= len(steps) <= MOST_SUMMANDS:
        raise ValueError(f"a sum needs 1 to {MOST_SUMMANDS} arrays, got {len(steps)}")
    mantissas, shift = common_multipliers(reals)
    xp = array_module(steps[0])
    total: Any = None
    for x, m in zip(steps, mantissas, strict=True):
        product = x.astype(xp.float64) * math.ldexp(m, -shift)
        total = product if total is None else total + product
    return xp.floor(total + 0.5)


# ------------------------------------------------------------------------- prepared, for a layer

CHUNK = 1 << 16
"""Numbers that are worked on at once: their float64 stay in a core's cache."""


@dataclass(frozen=True)
class Requantization:
    """Accumulators (..., O) to steps (codes − zero point), with one multiplier for each channel.

        ``clip(⌊acc · m · 2⁻ˢʰⁱᶠᵗ + ½⌋, low, high)``

    What :func:`requantize` computes, as float32, prepared once and applied to many arrays.

    Attributes:
        m, shift: (O) int64, on the device of the accumulators.
        real: ``m · 2⁻ˢʰⁱᶠᵗ``, (O) float64.
        slow: the numbers of the channels for which float64 is not exact: usually none, and where
            codes have many bits, all.
        low, high: the ends of the clip: steps of the output's grid.
    """

    m: Array
    shift: Array
    real: Array
    slow: Array
    low: int
    high: int

    @classmethod
    def of(cls, real: np.ndarray, low: int, high: int, device: str = "cpu") -> Requantization:
        """For real multipliers (O) on the host."""
        m, shift = multiplier(real)
        bits = max(abs(low), abs(high)).bit_length()
        slow = np.flatnonzero(shift + bits > EXACT_BITS)
        put = lambda a: to_device(a, device)  # noqa: E731
        return cls(put(m), put(shift), put(factor(m, shift)), put(slow), low, high)

    def __call__(self, acc: Array) -> Array:
        """Steps of whole numbers in floats or integers. Float32 accumulators are written over."""
        xp = array_module(acc)
        acc = xp.ascontiguousarray(acc)
        out = acc if acc.dtype == np.float32 else xp.empty(acc.shape, np.float32)
        exactly = None
        if self.slow.size:
            y = rounded_integers(acc[..., self.slow], self.m[self.slow], self.shift[self.slow])
            exactly = xp.clip(y, self.low, self.high)
        if self.slow.size < self.m.size:
            if xp is np:
                self._in_chunks(acc, out)
            else:
                out[...] = xp.clip(rounded_floats(acc, self.real), self.low, self.high)
        if exactly is not None:
            out[..., self.slow] = exactly
        return out

    def _in_chunks(self, acc: np.ndarray, out: np.ndarray) -> None:
        """All channels in float64, piece by piece, without large arrays in between."""
        rows, results = acc.reshape(-1, acc.shape[-1]), out.reshape(-1, acc.shape[-1])
        count = max(1, CHUNK // max(1, rows.shape[1]))
        memory = np.empty((min(count, len(rows)), rows.shape[1]))
        for start in range(0, len(rows), count):
            part = rows[start : start + count]
            y = np.multiply(part, self.real, out=memory[: len(part)])
            y += 0.5
            np.floor(y, out=y)
            np.clip(y, self.low, self.high, out=y)
            results[start : start + count] = y
