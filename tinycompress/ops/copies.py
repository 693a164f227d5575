"""Copies: the same numbers in other memory, as another type, on another device."""

from __future__ import annotations

import numpy as np

from tinycompress.backend import Array, device_of, to_device as move
from tinycompress.ops.elementwise import Result


def clone(x: Array) -> Result:
    """The same numbers in memory of their own, in the same order."""
    return x.copy(order="K"), (lambda g: g,)


def astype(x: Array, dtype: np.dtype) -> Result:
    """The nearest numbers of another type; the gradient comes back as the first."""
    return x.astype(dtype), (lambda g: g.astype(x.dtype),)


def to_device(x: Array, device: str) -> Result:
    """The same numbers on ``device``; the gradient comes home."""
    home = device_of(x)
    return move(x, device), (lambda g: move(g, home),)
