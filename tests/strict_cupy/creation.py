"""Functions that make arrays: the only ones that take data from the host.

``cupy.array`` and ``cupy.asarray`` upload; ``empty`` gives poisoned memory; ``zeros`` and the
rest are kernels on the current device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from strict_cupy import counters, devices, rules
from strict_cupy.array import fresh, ndarray, poison, view
from strict_cupy.calls import arrays_in, run


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    blocking: bool = False,
) -> ndarray:
    """A new array on the current device, from a CuPy array, host data, or a list of CuPy arrays."""
    if subok:
        raise NotImplementedError
    result = _from_any(obj, dtype, copy, order or "K")
    missing = ndmin - result.ndim
    return result.reshape((1,) * missing + result.shape) if missing > 0 else result


def _from_any(obj: Any, dtype: Any, copy: bool | None, order: str) -> ndarray:
    if isinstance(obj, ndarray):
        dtype = obj.dtype if dtype is None else dtype
        if obj._device != devices.current():
            return obj.copy(order=order).astype(dtype, copy=False)
        return obj.astype(dtype, order=order, copy=copy is True)
    if isinstance(obj, list | tuple) and any(True for _ in arrays_in(obj)):
        rules.refuse_numpy(obj)
        return run("array", lambda items: np.array(items, dtype), (list(obj),), {})
    host = np.array(obj, dtype=dtype, order=order)
    rules.check_dtype(host.dtype)
    if not host.flags.f_contiguous:  # the copy of a transposed view is in C order
        host = np.array(host, order="C")
    counters.upload()
    return view(host, devices.current())


def asarray(
    a: Any,
    dtype: Any = None,
    order: str | None = None,
    *,
    copy: bool | None = None,
    blocking: bool = False,
) -> ndarray:
    """The array itself where it is a CuPy array of that dtype on the current device."""
    return array(a, dtype, copy, order or "K")


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream, order, out)
    return np.array(a, order=order)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def empty_like(
    prototype: ndarray, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None
) -> ndarray:
    rules.refuse_numpy(prototype)
    rules.check_operand(prototype, ndarray)
    return view(
        poison(np.empty_like(prototype._array, dtype, order, True, shape)), devices.current()
    )


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    rules.refuse_numpy([start, stop, step])
    if stop is None:
        start, stop = 0, start
    return fresh(np.arange(start, stop, step, dtype=dtype))


def get_array_module(*args: Any) -> Any:
    from strict_cupy.namespace import MODULES

    return MODULES["cupy"] if any(isinstance(x, ndarray) for x in args) else np


FUNCTIONS = (array, asarray, asnumpy, empty, empty_like, arange, get_array_module)
