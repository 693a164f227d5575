"""Sums of floats that do not depend on the order: whole numbers, one for each exponent.

``(a + b) + c`` and ``a + (b + c)`` differ in floats by a rounding. A float32, however, is
``m · 2ᵉ`` with a whole number m of 24 bits, and whole numbers add exactly. So a sum is kept as one
int64 for each e that a float32 can have (277 of them), and is turned into a number at the end. It
is what reproducible summation does (Demmel & Nguyen 2013), made simple by a small range of e.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

EXPONENTS = 277
_SMALLEST = -172
"""The exponent of the first unit: the smallest subnormal number, 2⁻¹⁴⁹, is 2²³ of them."""


def exact_parts(x: np.ndarray) -> np.ndarray:
    """(277) int64: the sum of ``x``, which is rounded to float32 first, and clipped there."""
    limit = np.finfo(np.float32).max
    numbers = np.clip(x, -limit, limit).astype(np.float32).ravel()
    mantissas, exponents = np.frexp(numbers)  # x = mantissa · 2^exponent
    parts = np.zeros(EXPONENTS, np.int64)
    np.add.at(parts, exponents - 24 - _SMALLEST, (mantissas * 2**24).astype(np.int64))
    return parts


def exact_value(parts: np.ndarray) -> Fraction:
    """The sum itself."""
    total = sum(int(part) << i for i, part in enumerate(parts))
    return Fraction(total) * Fraction(2) ** _SMALLEST
