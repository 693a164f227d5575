"""The article's formula, as it stands there, and what is wrong with it for a network.

    ``q = round((x − min) / (max − min) · (2ᵇ − 1))``
    ``x ≈ q / (2ᵇ − 1) · (max − min) + min``

The smallest number becomes code 0, the largest 2ᵇ − 1, and every number comes back with an error of
at most half a step. But what is exactly 0 need not come back as 0: where 0 falls depends on the
data. In a network 0 is not just any number: padding is 0, ReLU gives 0, and a pruned weight *is*
its zero. :func:`article_zero` shows what becomes of them, and :func:`zero_preserving` the default
of this package beside it: the range is widened to include 0, and the formula is shifted by at most
half a step so that 0 gets a code of its own (``affine.py``). What that costs is a step which
is wider where the data are all of one sign.

Example: 2 bits for weights between −0.5 and 0.9. The article's codes stand for −0.5, −0.033, 0.433
and 0.9, so a pruned weight comes back as −0.033. The default's stand for −0.467, 0, 0.467, 0.933.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.affine import (
    choose_qparams,
    dequantize,
    min_max,
    quantize,
)
from tinycompress.compress.quantize.ranges import IntegerRange, check_bits


class ArticleCodes(NamedTuple):
    """Codes 0 … 2ᵇ − 1 in the smallest unsigned dtype, and what it takes to read them."""

    codes: Array
    minimum: float
    maximum: float
    bits: int


def article_quantize(x: Array, bits: int = 8) -> ArticleCodes:
    """``round((x − min) / (max − min) · (2ᵇ − 1))``, in float64.

    Args:
        x: floats of any shape.
        bits: 1 to 16.

    Raises:
        ValueError: NaN or infinity, or all of ``x`` is one number: the formula divides by 0.
    """
    check_bits(bits)
    lo, hi = (float(end[0]) for end in min_max(x))
    if lo == hi:
        raise ValueError(f"x: every number is {lo}, and the article's formula divides by max − min")
    xp = array_module(x)
    dtype = xp.uint8 if bits <= 8 else xp.uint16
    with on_device(x):
        q = xp.rint((x.astype(xp.float64) - lo) / (hi - lo) * (2**bits - 1))
        return ArticleCodes(q.astype(dtype), lo, hi, bits)


def article_dequantize(q: ArticleCodes) -> Array:
    """``q / (2ᵇ − 1) · (max − min) + min``, in float64 and then rounded to float32."""
    xp = array_module(q.codes)
    with on_device(q.codes):
        x = q.codes.astype(xp.float64) / (2**q.bits - 1) * (q.maximum - q.minimum) + q.minimum
        return x.astype(xp.float32)


def article_zero(x: Array, bits: int = 8) -> float:
    """What a 0 in ``x`` comes back as by the article's formula: in general, not 0."""
    _, lo, hi, _ = article_quantize(x, bits)
    q = np.clip(np.rint((0 - lo) / (hi - lo) * (2**bits - 1)), 0, 2**bits - 1)
    return float(np.float32(q / (2**bits - 1) * (hi - lo) + lo))


def zero_preserving(x: Array, bits: int = 8) -> Array:
    """``x`` quantized and dequantized by the default, with which 0 stays 0; 2 to 16 bits."""
    target = IntegerRange(bits, signed=False)
    scale, zero_point = choose_qparams(*min_max(x), target)
    return dequantize(quantize(x, scale, zero_point, target), scale, zero_point)
