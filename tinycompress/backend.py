"""Which array library an array belongs to, and how arrays move between devices.

An array *is* its device: a ``numpy.ndarray`` lives on ``"cpu"``, a ``cupy.ndarray`` on
``"cuda:0"`` (or another number). Nothing is stored beside it and there is no current backend;
code that computes asks :func:`array_module` for the library of the array in its hand and calls
``xp.exp(x)`` whatever that is. This is the only file that imports CuPy, and it does so when
somebody asks for a GPU, never before.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""A NumPy array, or a CuPy array of the same shape and dtype."""


class DeviceError(RuntimeError):
    """A device that cannot be had, or arrays of two devices in one operation."""


def array_module(x: Array) -> ModuleType:
    """``numpy`` or ``cupy``: the library that ``x`` belongs to."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    cupy = sys.modules.get("cupy")  # where no CuPy is loaded, no CuPy array exists
    if cupy is not None and isinstance(x, getattr(cupy, "ndarray", ())):
        return cupy
    raise TypeError(f"expected a NumPy or CuPy array, got {type(x).__name__}")


def is_array(x: Any) -> bool:
    """Whether ``x`` is a NumPy or CuPy array."""
    if isinstance(x, np.ndarray):
        return True
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, getattr(cupy, "ndarray", ()))


def device_of(x: Array) -> str:
    """``"cpu"`` or ``"cuda:N"``."""
    return "cpu" if array_module(x) is np else f"cuda:{x.device.id}"  # type: ignore[attr-defined]


def check_same_device(operation: str, *arrays: Array) -> None:
    """Raise :class:`DeviceError` when ``arrays`` do not all live on one device."""
    if all(isinstance(a, np.ndarray) for a in arrays):
        return
    devices = list(dict.fromkeys(device_of(a) for a in arrays))
    if len(devices) > 1:
        raise DeviceError(
            f"{operation}: arrays on {' and '.join(devices)} cannot meet in one operation; "
            f'move one of them with .to("{devices[0]}") or .to("{devices[1]}")'
        )


# ------------------------------------------------------------------------------------- devices


def parse_device(device: str) -> tuple[str, int]:
    """``"cpu"`` → ``("cpu", 0)``; ``"cuda"`` → ``("cuda", 0)``; ``"cuda:1"`` → ``("cuda", 1)``."""
    kind, _, number = str(device).partition(":")
    if kind in ("cpu", "cuda") and (number.isdecimal() or (number == "" and ":" not in device)):
        return kind, int(number or 0)
    raise ValueError(f'device must be "cpu", "cuda" or "cuda:N", got {device!r}')


def import_cupy() -> ModuleType:
    """The ``cupy`` module, or a :class:`DeviceError` that says what to install."""
    try:
        cupy = importlib.import_module("cupy")
        cupy.ndarray  # noqa: B018 (a folder that an uninstalled CuPy left behind imports, empty)
        return cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise _broken_install(error) from error
        raise DeviceError(
            "CuPy is not installed, so there is no GPU to use. Install it for your driver "
            "(nvidia-smi shows the CUDA version): pip install 'tinycompress[cuda13]' or "
            "pip install 'tinycompress[cuda12]'"
        ) from error
    except Exception as error:  # a CuPy built for another CUDA raises many things at import
        raise _broken_install(error) from error


def _broken_install(error: Exception) -> DeviceError:
    return DeviceError(
        f"CuPy is installed but does not import ({type(error).__name__}: {error}). Usually two "
        "CuPy packages are installed, or one for another CUDA: uninstall every cupy package, "
        "then pip install 'tinycompress[cuda13]' or 'tinycompress[cuda12]'"
    )


def require_cuda(index: int = 0) -> ModuleType:
    """The ``cupy`` module with GPU ``index`` usable, or a :class:`DeviceError` with the fix.

    The first call for a GPU runs a kernel and a matrix product on it (see ``_check_libraries``).
    """
    cupy = import_cupy()
    runtime = cupy.cuda.runtime
    if not cupy.cuda.is_available():
        raise DeviceError(
            "CuPy is installed, but it finds no usable GPU (CUDA runtime "
            f"{_version(runtime.runtimeGetVersion)}, driver {_version(runtime.driverGetVersion)}). "
            "Check nvidia-smi; a driver older than the runtime needs the other extra, "
            "'tinycompress[cuda12]', or a newer driver"
        )
    count = runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"cuda:{index} does not exist: this machine has {count} GPU(s), from 0")
    _check_libraries(cupy, index)
    return cupy


@cache
def _check_libraries(cupy: ModuleType, index: int) -> None:
    """Use the compiler and cuBLAS once: CuPy loads each library at its first use, and one that is
    missing should be missed here, not by an operation in the middle of a training.
    """
    try:
        with cupy.cuda.Device(index):
            ones = cupy.ones((2, 2), dtype=cupy.float32)
            _ = ones @ (ones + 1)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"cuda:{index} does not work: {error}") from error
    except Exception as error:  # ImportError for one library, RuntimeError for another
        raise DeviceError(
            f"a CUDA library did not load ({type(error).__name__}: {error}). Install the toolkit's "
            "libraries beside CuPy: pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]')"
        ) from error


def _version(read: Any) -> str:
    """CUDA packs 13.2 as 13020; a driver that is not there is 0."""
    try:
        number = int(read())
    except Exception:  # CUDARuntimeError where there is no driver at all
        return "unknown"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def cuda_is_available() -> bool:
    """Whether ``"cuda"`` can be used here. Never raises."""
    try:
        require_cuda()
    except Exception:
        return False
    return True


def to_device(x: Array, device: str) -> Array:
    """``x`` on ``device``: itself where it is there already, else a copy.

    Raises:
        DeviceError: there is no such device, or it cannot be used; the message says why.
    """
    kind, index = parse_device(device)
    if kind == "cpu":
        return to_numpy(x)
    cupy = require_cuda(index)
    with cupy.cuda.Device(index):
        if isinstance(x, np.ndarray | np.generic):
            return cupy.asarray(x)
        # From one GPU to another CuPy copies contiguous arrays only.
        return x if x.device.id == index else cupy.array(x, order="C")


def to_numpy(x: Array) -> np.ndarray:
    """``x`` as a NumPy array: itself on a CPU, a copy from a GPU."""
    if isinstance(x, np.ndarray):
        return x
    return np.asarray(x) if isinstance(x, np.generic) else x.get()


def on_device(x: Array) -> AbstractContextManager[Any]:
    """A context in which CuPy makes arrays, and runs kernels, on the GPU that holds ``x``."""
    return nullcontext() if isinstance(x, np.ndarray | np.generic) else x.device


def copy_of(x: Array) -> Array:
    """A copy on the same device, in the same memory order. (``x.copy()`` of a CuPy array lands on
    the current GPU.)"""
    with on_device(x):
        return x.copy(order="K")
