"""Arrays that this process and the ones it forks see alike.

The memory is anonymous (``mmap`` with ``MAP_SHARED``): it has no name in the file system, so it
cannot be left behind, and the system takes it back when the last process that has it is gone.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np


def shared_empty(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """A new array of zeros in memory that processes forked from now on share with this one."""
    shape = shape if isinstance(shape, tuple) else (shape,)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))  # the array keeps it alive
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def shared_copy(array: np.ndarray) -> np.ndarray:
    """A copy in shared memory, in the same order, so that products with it give the same bits."""
    turned = array.flags.f_contiguous and not array.flags.c_contiguous
    copy = (
        shared_empty(array.shape[::-1], array.dtype).T
        if turned
        else shared_empty(array.shape, array.dtype)
    )
    copy[...] = array
    return copy


def is_shared(array: Any) -> bool:
    """Whether ``array`` lies, or is a view, in such memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return isinstance(array, mmap.mmap)
