"""The error function, which NumPy does not have and GELU needs.

``erf(x) = 2/√π ∫₀ˣ exp(−t²) dt`` by three rational functions: near zero for erf itself, then for
``exp(x²)·erfc(x)`` up to 4, then for the tail in ``1/x²``. W. J. Cody, "Rational Chebyshev
approximations for the error function", Mathematics of Computation 23 (1969), 631–637; correct to
about 1 part in 10¹⁶, so that it serves float64 as well as float32.
"""

from __future__ import annotations

import math

from tinycompress.backend import Array, array_module

# |x| ≤ 0.46875: erf(x) = x · A(x²) / B(x²). Highest power first, here and below.
A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2,
     3.77485237685302021e2, 3.20937758913846947e3)  # fmt: skip
B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3)  # fmt: skip
# 0.46875 < x ≤ 4: erfc(x) = exp(−x²) · C(x) / D(x)
C = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3)  # fmt: skip
D = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3)  # fmt: skip
# x > 4: erfc(x) = exp(−x²)/x · (1/√π − P(1/x²)/(x² Q(1/x²)))
P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
Q = (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3)  # fmt: skip


def _ratio(x: Array, over: tuple[float, ...], under: tuple[float, ...]) -> Array:
    """Two polynomials by Horner's rule, divided."""
    top, bottom = x * 0 + over[0], x * 0 + under[0]
    for p in over[1:]:
        top = top * x + p
    for q in under[1:]:
        bottom = bottom * x + q
    return top / bottom


def erf(x: Array) -> Array:
    """The error function of each value; ``erf(−x) = −erf(x)``, ``erf(±∞) = ±1``."""
    xp = array_module(x)
    a = xp.abs(x)
    near, far = xp.minimum(a, 0.46875), xp.clip(a, 4.0, 6.0)  # beyond 6, 1 − erf is below 1e-16
    middle = xp.clip(a, 0.46875, 4.0)
    centre = near * _ratio(near * near, A, B)
    body = 1 - xp.exp(-middle * middle) * _ratio(middle, C, D)
    z = 1 / (far * far)
    tail = 1 - xp.exp(-far * far) / far * (1 / math.sqrt(math.pi) - z * _ratio(z, P, Q))
    y = xp.where(a <= 0.46875, centre, xp.where(a <= 4.0, body, tail))
    return xp.where(xp.isnan(x), x, xp.copysign(y, x))
