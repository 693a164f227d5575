"""Skeletons: layers that know their shapes but own no memory, to be filled from a file.

A new ``Linear(800, 500)`` draws 400,000 random numbers, which a reader of a file would overwrite at
once; and a damaged file may ask for a layer of any size, before anything shows that the numbers to
fill it are there. Inside :func:`skeletons` a layer's arrays repeat a single value (all strides are
0): any shape costs a few bytes, nothing is drawn, and nothing can be written to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinycompress.backend import Array

_local = threading.local()


@contextmanager
def skeletons(on: bool = True) -> Iterator[None]:
    """On this thread, layers made inside are skeletons (or, with ``on=False``, ordinary again)."""
    outer = making_skeletons()
    _local.on = on
    try:
        yield
    finally:
        _local.on = outer


def making_skeletons() -> bool:
    """Whether a layer made now is a skeleton; then it must not draw initial values."""
    return getattr(_local, "on", False)


def new_array(shape: tuple[int, ...], value: float | None = None, dtype: Any = np.float32) -> Array:
    """A layer's new array, full of ``value`` (None: whatever is in memory, for an initialiser)."""
    if making_skeletons():
        return np.broadcast_to(np.zeros((), dtype), shape)
    return np.empty(shape, dtype) if value is None else np.full(shape, value, dtype)
