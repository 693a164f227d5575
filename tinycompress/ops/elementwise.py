"""Arithmetic and elementwise functions: the table of derivatives that everybody has learned once.

Inputs broadcast as in NumPy; a vjp may return the broadcast shape, the engine sums it back. Either
operand of a binary operation may be a Python number. At kinks the choice is torch's: ``abs`` has
derivative 0 at 0, ``clamp`` lets the gradient through at both ends, and equal operands of
``maximum`` and ``minimum`` share the gradient half and half.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, is_array

Result = tuple[Array, Any]
"""The output, and one vjp per array input, or one function for all (see ``graph.py: Joint``)."""


def library_of(*operands: Any) -> ModuleType:
    """The array library of the first operand that is an array (the others may be numbers)."""
    return array_module(next(x for x in operands if is_array(x)))


# ------------------------------------------------------------------------------------ arithmetic


def add(a: Array, b: Array) -> Result:
    """``d(a + b) = da + db``."""
    return a + b, (lambda g: g, lambda g: g)


def subtract(a: Array, b: Array) -> Result:
    """``d(a − b) = da − db``."""
    return a - b, (lambda g: g, lambda g: -g)


def multiply(a: Array, b: Array) -> Result:
    """``d(ab) = b da + a db``."""
    return a * b, (lambda g: g * b, lambda g: g * a)


def divide(a: Array, b: Array) -> Result:
    """``d(a/b) = da/b − a/b² db``."""
    return a / b, (lambda g: g / b, lambda g: -g * a / (b * b))


def power(a: Array, b: Array) -> Result:
    """``d(aᵇ) = b aᵇ⁻¹ da + aᵇ ln a db``; ``x⁰`` is constant, even at 0; so is ``0ᵇ``, b ≥ 0."""
    xp = library_of(a, b)
    y = a**b

    def d_a(g: Array) -> Array:
        if is_array(b):
            return g * xp.where(b == 0, 0, b * a ** xp.where(b == 0, 1, b - 1))
        return g * (b * a ** (b - 1)) if b != 0 else xp.zeros_like(g)

    def d_b(g: Array) -> Array:
        log_a = xp.log(a) if is_array(a) else float(np.log(a))
        return g * xp.where((a == 0) & (b >= 0), 0, y * log_a)

    return y, (d_a, d_b)


def negative(x: Array) -> Result:
    """``d(−x) = −dx``."""
    return -x, (lambda g: -g,)


# --------------------------------------------------------------------------- functions of one array


def exp(x: Array) -> Result:
    """``d eˣ = eˣ dx``."""
    y = array_module(x).exp(x)
    return y, (lambda g: g * y,)


def log(x: Array) -> Result:
    """``d ln x = dx / x``."""
    return array_module(x).log(x), (lambda g: g / x,)


def sqrt(x: Array) -> Result:
    """``d √x = dx / (2√x)``."""
    y = array_module(x).sqrt(x)
    return y, (lambda g: g / (y * 2),)


def absolute(x: Array) -> Result:
    """``d|x| = sign(x) dx``."""
    xp = array_module(x)
    return xp.abs(x), (lambda g: g * xp.sign(x),)


def clamp(x: Array, low: float | None, high: float | None) -> Result:
    """``min(max(x, low), high)``; the gradient passes where ``low ≤ x ≤ high``, ends included."""
    xp = array_module(x)

    def d_x(g: Array) -> Array:
        inside = x == x if low is None else x >= low
        if high is not None:
            inside &= x <= high
        return xp.where(inside, g, 0)  # not g · inside: ∞ · 0 is no number

    return xp.clip(x, low, high), (d_x,)


# ------------------------------------------------------------------------------------- selections


def where(condition: Array, a: Array, b: Array) -> Result:
    """``a`` where ``condition`` holds, else ``b``. The condition has no derivative."""
    xp = array_module(condition)

    def d_a(g: Array) -> Array:
        return xp.where(condition, g, 0)  # not g · condition: ∞ · 0 is no number

    return xp.where(condition, a, b), (None, d_a, lambda g: xp.where(condition, 0, g))


def maximum(a: Array, b: Array) -> Result:
    """The larger of each pair, and its gradient; equal values get half each."""
    return library_of(a, b).maximum(a, b), _winner_takes(a, b, lambda p, q: p > q)


def minimum(a: Array, b: Array) -> Result:
    """The smaller of each pair, and its gradient; equal values get half each."""
    return library_of(a, b).minimum(a, b), _winner_takes(a, b, lambda p, q: p < q)


def _winner_takes(a: Array, b: Array, wins: Any) -> tuple[Any, ...]:
    def share(g: Array, mine: Array, other: Array) -> Array:
        half = 0.5 * (mine == other).astype(g.dtype)
        return g * (wins(mine, other).astype(g.dtype) + half)

    return (lambda g: share(g, a, b), lambda g: share(g, b, a))
