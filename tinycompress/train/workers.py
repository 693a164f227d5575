"""Workers: a function applied to the pieces of a batch, on several cores, results in order.

The pieces are fixed by the batch and never by the number of workers, and what they return comes
back in their order, so one and two workers give the same result to the bit. BLAS runs one thread
meanwhile (``blas.py``).

Workers are forked processes where forking is safe (``processes.py``: Linux, no GPU in use), and
threads elsewhere. Both begin with the first call that has more than one piece.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from tinycompress.allocator import keep_freed_memory
from tinycompress.nn import fusion, fusion_enabled
from tinycompress.train.blas import one_blas_thread
from tinycompress.train.processes import Processes
from tinycompress.train.reachable import Reached
from tinycompress.train.shared_state import shareable

Piece = TypeVar("Piece")
Result = TypeVar("Result")

KINDS = ("auto", "process", "thread")
PATIENCE = 600.0  # seconds; a piece takes milliseconds
KEPT = 4  # works that the processes know at a time: training and validation, and a spare


def available_cores() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def forking_is_safe() -> bool:
    """Whether a fork of this process can go on computing.

    Not on macOS, whose libraries forbid it, nor on Windows, which cannot; not once CuPy is loaded,
    since a GPU's state does not survive; and a worker of somebody's pool may have no children.
    """
    return (
        sys.platform == "linux"
        and "cupy" not in sys.modules
        and not multiprocessing.current_process().daemon
    )


class _Local(threading.local):
    is_worker = False


_local = _Local()


class Workers:
    """Several that share the work, as a context: ``with Workers(2) as workers: …``.

    Args:
        count: how many, this process included; "auto" or None for one per available core.
        kind: "process", "thread", or "auto" for processes where forking is safe.
        patience: the seconds that a worker process may take longer than this one before it counts
            as hung.

    Raises:
        ValueError: a count below 1, something that is not a whole number, or an unknown kind;
            processes where there is no fork.
    """

    def __init__(
        self, count: int | str | None = "auto", kind: str = "auto", patience: float = PATIENCE
    ) -> None:
        if count in (None, "auto"):
            count = available_cores()
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f'workers must be a whole number ≥ 1, "auto" or None, got {count!r}')
        if kind not in KINDS:
            raise ValueError(f"Workers: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if kind == "process" and not forking_is_safe():
            raise ValueError(
                'Workers: kind="process" needs Linux, no CuPy in use, and a process that may have '
                'children; use kind="auto"'
            )
        self.count, self.kind, self.patience = count, kind, patience
        self._at_work = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._processes: Processes | None = None
        self._works: list[Callable[[Any], Any]] = []
        self._signatures: dict[int, list[Any]] = {}
        self._remembered: dict[Hashable, Any] = {}

    def __enter__(self) -> Self:
        keep_freed_memory()
        if not _local.is_worker:  # there somebody has done it already
            one_blas_thread.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._stop(kill=any(exc))
        finally:
            if not _local.is_worker:
                one_blas_thread.__exit__()

    def map(
        self, work: Callable[[Piece], Result], pieces: Iterable[Piece], unchanged: bool = False
    ) -> list[Result]:
        """``[work(p) for p in pieces]``. The first piece that raises, in order, raises here.

        A piece that calls ``map`` itself works alone: its colleagues may all be waiting like it.
        Processes are forked anew for a ``work`` that they do not know, so one that is used often
        should be the same object each time. What a piece changes in a worker process stays there:
        it returns its result.

        Args:
            work: what to do with a piece.
            pieces: any number of them.
            unchanged: promises that but for numbers in parameters and buffers nothing that
                ``work`` reaches has changed since it was mapped last; then nobody looks.

        Raises:
            WorkerError: a process died or hung.
            RuntimeError: the team is at work for another thread.
        """
        pieces = list(pieces)
        if self.count == 1 or len(pieces) < 2 or _local.is_worker:
            return [work(piece) for piece in pieces]
        if not self._at_work.acquire(blocking=False):
            raise RuntimeError(
                "Workers.map: this team is at work for another thread; give each thread a Workers "
                "of its own"
            )
        try:
            return self._share(work, pieces, unchanged)
        finally:
            self._at_work.release()

    def _share(
        self, work: Callable[[Piece], Result], pieces: list[Piece], unchanged: bool
    ) -> list[Result]:
        if self.kind != "thread" and forking_is_safe() and self._ready(work, unchanged):
            return self._map_on_processes(work, pieces)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.count, thread_name_prefix="tinycompress", initializer=_mark_as_worker
            )
        fused = fusion_enabled()  # a mode of this thread

        def there(piece: Piece) -> Result:
            with fusion(fused):
                return work(piece)

        return list(self._pool.map(there, pieces))

    def remember(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """What ``make`` gave for this key the first time: so that a ``work`` is the same object."""
        if key not in self._remembered:
            if len(self._remembered) >= KEPT:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = make()
        return self._remembered[key]

    def _ready(self, work: Callable[[Any], Any], unchanged: bool) -> bool:
        """Have processes that know ``work`` as it is now; False where its numbers cannot be shared.

        They are forked anew for a work that they do not know, or one that has changed.
        """
        if self._processes is not None and self._processes.state.intact():
            known = self._signatures.get(id(work))
            if known is not None and (unchanged or known == Reached(work).signature):
                return True
        self._stop()
        known = [w for w in self._works if w is not work]
        self._works = [*known[-(KEPT - 1) :], work]
        everything = {id(w): Reached(w) for w in self._works}
        modules = list({id(m): m for r in everything.values() for m in r.modules}.values())
        if not shareable(modules):
            return False
        self._kept = list(everything.values())  # alive: the signatures speak of them
        self._signatures = {key: r.signature for key, r in everything.items()}
        self._processes = Processes(
            self.count, self._works, modules, self.patience, _mark_as_worker
        )
        return True

    def _map_on_processes(self, work: Callable[[Any], Any], pieces: list[Any]) -> list[Any]:
        assert self._processes is not None
        _local.is_worker = True  # this process takes a share, too
        try:
            return self._processes.map(work, pieces)
        except BaseException:
            self._processes = None  # it has closed itself
            raise
        finally:
            _local.is_worker = False

    def _stop(self, kill: bool = False) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        if self._processes is not None:
            processes, self._processes = self._processes, None
            processes.close(kill)


def _mark_as_worker() -> None:
    _local.is_worker = True
