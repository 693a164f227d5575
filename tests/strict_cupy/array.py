"""``cupy.ndarray``: a NumPy array that nobody may use as one, and the device it lives on.

Here are what an array is, its ways back to the host, and indexing. ``methods.py`` adds the
operators and the methods that compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from strict_cupy import counters, devices, rules


class ndarray:
    """``ndarray(shape, dtype=float, order="C")``: memory that nobody has written (poisoned)."""

    __slots__ = ("__weakref__", "_array", "_device")
    __array_priority__ = 100
    __hash__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: None = None, strides: None = None, order="C"
    ) -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in has no memory pointers")
        self._array = poison(np.empty(shape, dtype, order=order or "C"))
        self._device = devices.current()
        rules.check_dtype(self._array.dtype)

    # ---------------------------------------------------------------- what NumPy must not do

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
            "construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"np.{function.__name__} called on a CuPy array: call xp's")

    # ---------------------------------------------------------------- attributes

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    strides = property(lambda self: self._array.strides)
    T = property(lambda self: view(self._array.T, self._device))
    mT = property(lambda self: view(self._array.mT, self._device))
    real = property(lambda self: view(self._array.real, self._device))
    flags = property(lambda self: Flags(self._array))
    device = property(lambda self: devices.Device(self._device))
    data = property(
        lambda self: SimpleNamespace(ptr=self._array.ctypes.data, device_id=self._device)
    )

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        self._array = self._array.reshape(shape, copy=False)

    # ---------------------------------------------------------------- back to the host

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray:
        """A NumPy copy; in C order unless asked otherwise, whatever the order on the device."""
        counters.synchronise("get")
        if out is None:
            return self._array.copy(order=order if order.upper() != "K" else "bad")
        if (out.shape, out.dtype) != (self.shape, self.dtype):
            raise TypeError(f"out is {out.dtype}{out.shape}, the array {self.dtype}{self.shape}")
        out[...] = self._array
        return out

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (host.shape, host.dtype) != (self.shape, self.dtype):
            raise ValueError(f"cannot set {host.dtype}{host.shape} to {self.dtype}{self.shape}")
        counters.upload()
        self._array[...] = host

    def item(self, *index: int) -> Any:
        counters.synchronise("item")
        return self._array.item(*index)

    def tolist(self) -> Any:
        counters.synchronise("tolist")
        return self._array.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        counters.synchronise("tobytes")
        return self._array.tobytes(order)

    def __bool__(self) -> bool:
        counters.synchronise("bool")
        return bool(self._array)

    def __int__(self) -> int:
        counters.synchronise("int")
        return int(self._array)

    def __float__(self) -> float:
        counters.synchronise("float")
        return float(self._array)

    def __complex__(self) -> complex:
        counters.synchronise("complex")
        return complex(self._array)

    def __repr__(self) -> str:
        counters.synchronise("repr")
        return repr(self._array)

    def __str__(self) -> str:
        counters.synchronise("str")
        return str(self._array)

    def __format__(self, specification: str) -> str:
        counters.synchronise("format")
        return format(self._array, specification)

    def __reduce__(self) -> tuple:
        from strict_cupy.creation import array

        return array, (self.get(order="A"),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: dict) -> ndarray:
        with self.device:
            return self.copy()

    # ---------------------------------------------------------------- a container

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        raw = self._raw_index(index)
        result = self._indexed(raw)
        if isinstance(result, np.generic):  # CuPy gives a 0-d array; for plain integers, a view
            result = self._array[(*raw, ...) if isinstance(raw, tuple) else (raw, ...)]
        if np.may_share_memory(result, self._array):
            return view(result, self._device)
        return fresh(result, self._device)

    def __setitem__(self, index: Any, value: Any) -> None:
        rules.check_operand(value, ndarray)
        raw, operands = self._raw_index(index), [self]
        if isinstance(value, ndarray):
            operands.append(value)
            self._refuse_overlap(raw, value._array)
            value = value._array
        devices.check_current(*(x._device for x in operands))
        rules.check_cast(value, self.dtype)
        rules.refuse_duplicates(self.shape, raw, value)
        self._indexed(raw)
        self._array[raw] = value
        counters.launch()

    def _indexed(self, raw: Any) -> Any:
        """What stands there; a mask's size, and with it the result's, only the device knows."""
        if any(_is_mask(part) for part in _parts(raw)):
            counters.synchronise("index by a boolean mask")
        if any(True for _ in rules.index_arrays(raw)):
            return rules.in_range(lambda: self._array[raw])
        return self._array[raw]

    def _refuse_overlap(self, index: Any, value: np.ndarray) -> None:
        """A contiguous piece assigned to another that overlaps it is one memcpy: undefined."""
        if any(True for _ in rules.index_arrays(index)) or not value.flags.c_contiguous:
            return
        target = self._array[index]
        same = isinstance(target, np.ndarray) and target.shape == value.shape
        memcpy = same and target.flags.c_contiguous and np.may_share_memory(target, value)
        if memcpy and target.ctypes.data != value.ctypes.data:
            raise AssertionError("a[...] = overlapping piece of a: undefined on a GPU")

    def _raw_index(self, index: Any) -> Any:
        """The index with CuPy arrays unwrapped; an index array from the host is uploaded."""
        for part in _parts(index):
            if isinstance(part, slice):
                for bound in (part.start, part.stop, part.step):
                    if isinstance(bound, ndarray):
                        raise TypeError("a CuPy array cannot be a slice's bound (no __index__)")
            elif isinstance(part, np.ndarray | list):
                counters.upload()
            elif isinstance(part, ndarray):
                devices.check_current(self._device, part._device)
        unwrap = [part._array if isinstance(part, ndarray) else part for part in _parts(index)]
        return tuple(unwrap) if isinstance(index, tuple) else unwrap[0]


def _parts(index: Any) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray | list) and np.asarray(part).dtype == bool


class Flags:
    """CuPy's flags: three of them, and no ``writeable``."""

    def __init__(self, array: np.ndarray) -> None:
        self.c_contiguous, self.f_contiguous = array.flags.c_contiguous, array.flags.f_contiguous
        self.owndata = array.flags.owndata
        self.fnc, self.forc = array.flags.fnc, array.flags.forc

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


def view(array: np.ndarray, device: int) -> ndarray:
    """``array`` as a CuPy array of ``device``; nothing is computed."""
    result = ndarray.__new__(ndarray)
    result._array, result._device = array, device
    return result


def fresh(array: np.ndarray, device: int | None = None) -> ndarray:
    """The result of a kernel: it runs on the current device, and writes its array there."""
    rules.check_dtype(array.dtype)
    devices.check_current(*([] if device is None else [device]))
    if array.size:
        counters.launch()
    return view(array, devices.current())


def poison(array: np.ndarray) -> np.ndarray:
    """Fill unwritten memory with NaN, True, or the integer that is all ones in bits."""
    array.fill(np.nan if array.dtype.kind in "fc" else True if array.dtype == bool else ~0 & 0x7F)
    if array.dtype.kind in "iu":
        array[...] = np.iinfo(array.dtype).max
    return array
