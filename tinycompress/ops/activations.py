"""Activation functions. Each derivative is written in terms of what is cheapest to keep."""

from __future__ import annotations

import math

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.ops.special import erf


def relu(x: Array, out: Array | None = None) -> Result:
    """``max(x, 0)``, written into ``out`` where that is given; the derivative at 0 is 0."""
    xp = array_module(x)
    y = xp.maximum(x, 0, out=out)

    def d_x(g: Array) -> Array:
        on = xp.empty_like(y)  # as floats: a boolean mask would be converted in each product
        xp.greater(y, 0, out=on, casting="unsafe")
        on *= g
        return on

    return y, (d_x,)


def leaky_relu(x: Array, slope: float) -> Result:
    """``x`` above 0, ``slope · x`` below (Maas et al. 2013)."""
    factor = array_module(x).where(x > 0, 1.0, slope).astype(x.dtype)
    return x * factor, (lambda g: g * factor,)


def sigmoid(x: Array) -> Result:
    """``1 / (1 + e⁻ˣ)``, ``y' = y(1 − y)``. Where ``e⁻ˣ`` overflows, 1/∞ is the right answer, 0."""
    y = 1 / (1 + array_module(x).exp(-x))
    return y, (lambda g: g * y * (1 - y),)


def tanh(x: Array) -> Result:
    """``y' = 1 − y²``."""
    y = array_module(x).tanh(x)
    return y, (lambda g: g * (1 - y * y),)


def gelu(x: Array) -> Result:
    """``x Φ(x)``, Φ the normal distribution (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    xp = array_module(x)
    cdf = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    density = 1 / math.sqrt(2 * math.pi)
    return x * cdf, (lambda g: g * (cdf + x * density * xp.exp(-0.5 * x * x)),)


def silu(x: Array) -> Result:
    """``x σ(x)`` (Elfwing et al. 2017, arXiv:1702.03118); ``y' = σ(1 + x(1 − σ))``."""
    s = sigmoid(x)[0]
    return x * s, (lambda g: g * s * (1 + x * (1 - s)),)


def softmax(x: Array, axis: int) -> Result:
    """``eˣ / Σeˣ``; ``dx = y(g − Σgy)``. The maximum is subtracted first, so nothing overflows."""
    xp = array_module(x)
    y = xp.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y, (lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True)),)


def log_softmax(x: Array, axis: int) -> Result:
    """``x − ln Σeˣ``; ``dx = g − softmax(x) Σg``."""
    xp = array_module(x)
    z = x - x.max(axis=axis, keepdims=True)
    y = z - xp.log(xp.exp(z).sum(axis=axis, keepdims=True))
    return y, (lambda g: g - xp.exp(y) * g.sum(axis=axis, keepdims=True),)
