"""Random numbers: one seed, the same numbers on every device and for any number of workers.

Two kinds are needed, and they are made differently on purpose.

*Initial weights* are few and are drawn on the host by a NumPy ``Generator`` that
:func:`manual_seed` restarts; CuPy's own streams differ from NumPy's, so a GPU gets copies. (The
order of the samples is drawn on the host too, from the seed that ``fit`` is given: see
``data/batching.py``.)

*Dropout masks* are many and are drawn inside a training step whose pieces may run on several
workers. They come from a hash of a counter: element ``i`` under key ``k`` is ``hash(k, i)``,
whoever computes it and wherever (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011, gives the idea; the mixing function is the 32-bit finaliser of MurmurHash3).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, on_device

_default = np.random.default_rng(0)  # the stream that manual_seed restarts; see default_generator
_local = threading.local()

MASK32 = 0xFFFFFFFF
GOLDEN = 0x9E3779B1  # odd and near 2^32 / golden ratio: its multiples spread evenly, never meet


def manual_seed(seed: int) -> None:
    """Restart the stream from which initial weights and dropout keys are drawn.

    Args:
        seed: an integer ≥ 0. A program that never calls this starts as if with seed 0.
    """
    _default.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def default_generator() -> np.random.Generator:
    """The host generator that initialisers draw from."""
    return _default


def get_state() -> dict[str, Any]:
    """The state of the default generator, as JSON-able integers (checkpoints keep it)."""
    return dict(_default.bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Put back what :func:`get_state` gave."""
    _default.bit_generator.state = state


# -------------------------------------------------------------------- keys for counter-based masks


@contextmanager
def key_stream(key: int, shard: int) -> Iterator[None]:
    """Inside, :func:`next_key` on this thread counts up from ``(key, shard)``.

    A training step draws one key and gives each shard its number, so that a mask depends on the
    step and the shard alone and not on which worker runs it, or when.
    """
    outer = getattr(_local, "stream", None)
    _local.stream = [mix32(mix32(key) ^ (shard + 1)), 0]
    try:
        yield
    finally:
        _local.stream = outer


def next_key() -> int:
    """A fresh 32-bit key: from this thread's :func:`key_stream`, else from the default stream."""
    stream = getattr(_local, "stream", None)
    if stream is None:
        return int(_default.integers(0, 1 << 32))
    stream[1] += 1
    return mix32(stream[0] + stream[1] * GOLDEN)


def mix32(h: int) -> int:
    """MurmurHash3's finaliser on one Python integer: a bijection of the 32-bit numbers."""
    h &= MASK32
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & MASK32
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & MASK32
    return h ^ (h >> 16)


def hash_bits(key: int, size: int, like: Array) -> Array:
    """``size`` pseudo-random uint32 numbers under ``key``, on the device of ``like``."""
    xp = array_module(like)
    with on_device(like):
        h = xp.arange(size, dtype=xp.uint32)
        h *= xp.uint32(GOLDEN)  # spread neighbouring counters over the whole word
        h ^= xp.uint32(mix32(key))
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h ^= h >> xp.uint32(shift)
            h *= xp.uint32(factor)
        h ^= h >> xp.uint32(16)
    return h
