"""Workers: a function applied to the pieces of a batch, on several cores, results in order.

The pieces are fixed by the batch and never by the number of workers, and what they return comes
back in their order, so one and two workers give the same result to the bit. BLAS runs one thread
meanwhile: the cores are spent on images, and a product's order of summation stays fixed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from threadpoolctl import ThreadpoolController

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def available_cores() -> int:
    """The number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Threads that share the work, as a context: ``with Workers(2) as workers: …``.

    Args:
        count: how many; None for one per available core.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"workers must be a whole number ≥ 1, or None, got {count!r}")
        self.count = available_cores() if count is None else count
        self._pool: ThreadPoolExecutor | None = None
        self._blas = ThreadpoolController()
        self._limit: Any = None

    def __enter__(self) -> Self:
        self._limit = self._blas.limit(limits=1, user_api="blas")
        self._limit.__enter__()
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="tinycompress")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._limit.__exit__(None, None, None)

    def map(self, work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
        """``[work(p) for p in pieces]``. The first piece that raises, in order, raises here."""
        if self._pool is None:
            return [work(piece) for piece in pieces]
        return list(self._pool.map(work, pieces))
