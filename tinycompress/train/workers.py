"""Workers: a function applied to the pieces of a batch, on several cores, results in order.

The pieces are fixed by the batch and never by the number of workers, and what they return comes
back in their order, so one and two workers give the same result to the bit. BLAS runs one thread
meanwhile: the cores are spent on images, and a product's order of summation stays fixed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Self, TypeVar

from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def available_cores() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _libraries() -> ThreadpoolController:
    """The thread pools of this process: looking for them takes milliseconds."""
    return ThreadpoolController()


class _OneBlasThread:
    """One BLAS thread while anybody wants it, then as many as before.

    The number belongs to the process, and two trainings may overlap on two threads: the first to
    come sets it, and the last to go puts back what the first one found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = _libraries().limit(limits=1, user_api="blas")
            self._users += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._before.restore_original_limits()


class _Local(threading.local):
    is_worker = False


_one_blas_thread = _OneBlasThread()
_local = _Local()


class Workers:
    """Threads that share the work, as a context: ``with Workers(2) as workers: …``.

    Args:
        count: how many; None for one per available core.

    Raises:
        ValueError: a count below 1, or something that is not a whole number.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"workers must be a whole number ≥ 1, or None, got {count!r}")
        self.count = available_cores() if count is None else count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        _one_blas_thread.__enter__()
        if self.count > 1:
            self._pool = ThreadPoolExecutor(
                self.count, thread_name_prefix="tinycompress", initializer=_mark_as_worker
            )
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        _one_blas_thread.__exit__()

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
        """``[work(p) for p in pieces]``. The first piece that raises, in order, raises here.

        A piece that calls ``map`` itself works alone: its colleagues may all be waiting like it.
        """
        if self._pool is None or _local.is_worker:
            return [work(piece) for piece in pieces]
        return list(self._pool.map(work, pieces))


def _mark_as_worker() -> None:
    _local.is_worker = True
