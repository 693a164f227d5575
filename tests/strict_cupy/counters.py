"""What a computation costs on a GPU: kernels launched, copies from the host, waits for the device.

A launch takes some microseconds whatever it computes, and a synchronisation (``float(loss)``, an
index by a boolean mask) makes the host wait until everything before it is done. Both have budgets
in the tests: a training step may launch N kernels and wait never.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Counts:
    """What happened inside a :func:`counting` block."""

    launches: int = 0
    """Kernels launched: one a call that computes, none for a view (reshape, transpose, slice). A
    lower bound: some calls (``linalg.norm``, ``pad``) launch several on a real GPU."""
    uploads: int = 0
    """Arrays copied from the host to the device."""
    syncs: list[str] = field(default_factory=list)
    """What made the host wait for the device, in order."""


_open: list[Counts] = []  # every counting() block that is open now; all of them count
_forbidden: list[str] = []  # not empty inside no_sync()


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens inside. Blocks may be nested: the outer one counts everything."""
    counts = Counts()
    _open.append(counts)
    try:
        yield counts
    finally:
        _open[:] = [c for c in _open if c is not counts]


@contextmanager
def no_sync(what: str = "this region") -> Iterator[None]:
    """Inside, a synchronisation raises ``AssertionError``."""
    _forbidden.append(what)
    try:
        yield
    finally:
        _forbidden.pop()


def launch() -> None:
    for counts in _open:
        counts.launches += 1


def upload() -> None:
    for counts in _open:
        counts.uploads += 1


def synchronise(what: str) -> None:
    if _forbidden:
        raise AssertionError(f"{what} waits for the device, which {_forbidden[-1]} must not do")
    for counts in _open:
        counts.syncs.append(what)
