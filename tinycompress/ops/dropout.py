"""Dropout (Srivastava et al. 2014): zero values with probability p, scale the rest."""

from __future__ import annotations

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.random import hash_bits


def dropout(x: Array, p: float, key: int) -> Result:
    """``x · keep / (1 − p)``; which values are kept is a pure function of ``key`` (random.py).

    Value ``i`` in row-major order is dropped when its 32 hash bits, as a fraction, are below p.
    """
    xp = array_module(x)
    if p >= 1:
        return xp.zeros_like(x), (lambda g: xp.zeros_like(g),)
    drop_below = min(round(p * 2**32), 2**32 - 1)
    bits = hash_bits(key, x.size, x).reshape(x.shape)
    keep = (bits >= xp.uint32(drop_below)).astype(x.dtype)
    keep *= 1 / (1 - p)
    return x * keep, (lambda g: g * keep,)
