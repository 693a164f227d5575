"""A strict stand-in for CuPy on machines without a GPU (tests only).

NumPy computes underneath, CuPy's rules lie on top: the names of the real CuPy's namespace and
their parameters (``cupy_api.json``, written by ``tools/gen_cupy_api.py``), what may be an operand,
what waits for the device, which order a result has in memory, which device it lives on. Where
CuPy answers a mistake in silence (an index out of range wraps, a cast out of range gives anything,
repeated indices race), the stand-in raises ``AssertionError``. Code that passes here touches CuPy
only in ways that CuPy allows; what it cannot show is rounding, races and speed.

Read in this order: ``counters.py`` (launches, synchronisations), ``devices.py`` (``cupy.cuda``),
``rules.py`` (what is refused), ``array.py`` (``cupy.ndarray``), ``functions.py`` and
``creation.py`` (what a call does), ``namespace.py`` (the modules). Use it so::

    with strict_cupy.install() as cupy, strict_cupy.counting() as counts:
        y = cupy.exp(cupy.asarray(x))
    assert (counts.launches, counts.syncs) == (1, [])
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from strict_cupy import devices
from strict_cupy.counters import Counts, counting, no_sync
from strict_cupy.namespace import MODULES

__all__ = ["Counts", "counting", "install", "no_sync"]


@contextmanager
def install(device_count: int = 2) -> Iterator[ModuleType]:
    """Inside, ``import cupy`` gives the stand-in; afterwards what was there before.

    Args:
        device_count: how many GPUs it pretends to have. With 0 it is a CuPy without a driver.
    """
    hidden = {name: sys.modules.pop(name) for name in _loaded_cupy_modules()}
    sys.modules.update(MODULES)
    before = devices.configure(device_count)
    try:
        yield MODULES["cupy"]
    finally:
        devices.configure(before)
        for name in _loaded_cupy_modules():
            del sys.modules[name]
        sys.modules.update(hidden)


def _loaded_cupy_modules() -> list[str]:
    return [name for name in sys.modules if name == "cupy" or name.startswith("cupy.")]
