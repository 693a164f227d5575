"""``cupy.cuda``: several pretended GPUs, each thread with its own current one.

An array is made on the current device, and a kernel runs on it; arrays of another device are
refused as CuPy refuses them where the two have no peer access. (Where they have it, real CuPy
warns and goes on; a program that relies on that is wrong on the next machine.)
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

from strict_cupy import counters

CUDA_VERSION = 12090
_thread = threading.local()  # .current: the device that new arrays and kernels use; .outer: a stack
_count = 0


class CUDARuntimeError(RuntimeError):
    """What the CUDA runtime says, by its own name."""


def configure(count: int) -> int:
    """Pretend to have ``count`` devices, make device 0 current; gives the count before."""
    global _count
    before, _count = _count, count
    _thread.current, _thread.outer = 0, []
    return before


def current() -> int:
    """The number of this thread's current device."""
    _require_driver()
    return getattr(_thread, "current", 0)


def set_device(number: int) -> None:
    if not 0 <= number < device_count():
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _thread.current = number


def device_count() -> int:
    _require_driver()
    return _count


def _require_driver() -> None:
    if _count == 0:
        raise CUDARuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for "
            "CUDA runtime version"
        )


def check_current(*numbers: int) -> None:
    """Refuse a kernel over arrays that live on another device than the current one."""
    for number in numbers:
        if number != current():
            raise ValueError(
                f"The device where the array resides ({number}) is different from the current "
                f"device ({current()}). Peer access is unavailable between these devices."
            )


class Device:
    """One GPU; as a context manager, the current one inside. ``x.device`` is one too."""

    def __init__(self, device: Any = None) -> None:
        self.id = current() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Device:
        outer = _thread.__dict__.setdefault("outer", [])
        before = current()
        set_device(self.id)
        outer.append(before)
        return self

    def __exit__(self, *error: object) -> None:
        _thread.current = _thread.outer.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> Device:
        set_device(self.id)
        return self

    def synchronize(self) -> None:
        counters.synchronise("Device.synchronize")

    @property
    def mem_info(self) -> tuple[int, int]:
        return 1 << 33, 1 << 34

    @property
    def compute_capability(self) -> str:
        return "90"


class Stream:
    """A stream that runs everything at once: order is kept, nothing overlaps."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.null_stream, self.non_blocking = null, non_blocking

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        counters.synchronise("Stream.synchronize")


Stream.null = Stream(null=True)


def build_cuda_module() -> tuple[ModuleType, ModuleType]:
    """``cupy.cuda`` and ``cupy.cuda.runtime``."""
    runtime = ModuleType("cupy.cuda.runtime")
    runtime.CUDARuntimeError = CUDARuntimeError
    runtime.getDeviceCount = device_count
    runtime.getDevice = current
    runtime.setDevice = set_device
    runtime.runtimeGetVersion = lambda: CUDA_VERSION
    runtime.driverGetVersion = lambda: CUDA_VERSION if _count else 0
    runtime.getDeviceProperties = lambda number: {"name": b"strict stand-in", "major": 9}
    runtime.deviceSynchronize = lambda: counters.synchronise("deviceSynchronize")
    cuda = ModuleType("cupy.cuda")
    cuda.runtime, cuda.Device, cuda.Stream = runtime, Device, Stream
    cuda.is_available = lambda: _count > 0
    cuda.get_device_id = current
    cuda.get_current_stream = lambda: Stream.null
    cuda.get_local_runtime_version = runtime.runtimeGetVersion
    return cuda, runtime
