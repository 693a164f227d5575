"""The C library is told to keep memory that was freed, instead of giving it back to the system.

A training step makes a few dozen arrays of a megabyte or more and drops them again. glibc gives
large blocks back to the system as soon as they are free, and the end of its heap once a few
megabytes of it are; the next step gets new pages. The first touch of each page (4 KB) stops the
program until the kernel has found one and filled it with zeros. Kept, the same memory serves the
next step, with its pages in place. It matters where arrays are large (a batch in one shard, layers
that are not fused); blocks that fit the cache are small enough for glibc to keep anyway.

What it costs: the process stays as large as it once was. ``TINYCOMPRESS_MALLOC=0`` in the
environment switches it off. Other C libraries (musl, macOS, Windows) are left as they are; so is
each of the three numbers that the environment sets already, as ``MALLOC_TOP_PAD_`` or in
``GLIBC_TUNABLES``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

MB = 1 << 20

# From malloc.h: the name that the environment and glibc's tunables have for it, its number, and
# the value that it gets.
SETTINGS = {
    "mmap_threshold": (-3, 32 * MB),  # blocks below this come from the heap; the most there is
    "trim_threshold": (-1, 1024 * MB),  # the heap shrinks when so much is free at its end
    "top_pad": (-2, 64 * MB),  # and grows by so much at a time
}


@cache
def keep_freed_memory() -> bool:
    """Make the setting, for the whole process; only the first call does something.

    Returns:
        Whether it was made: False where it is switched off, where there is no glibc, or where
        nothing of it was left to set.
    """
    if os.environ.get("TINYCOMPRESS_MALLOC") == "0":
        return False
    glibc = _glibc()
    if glibc is None:
        return False
    free = [setting for name, setting in SETTINGS.items() if not _is_set_by_user(name)]
    taken = [glibc.mallopt(ctypes.c_int(number), ctypes.c_int(size)) for number, size in free]
    return 1 in taken


def _glibc() -> Any:
    """The C library of this process, if it is glibc; None for any other."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such thing as "this process"
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None


def _is_set_by_user(name: str) -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables
