"""One BLAS thread while somebody computes: the cores are spent on images, not inside of products.

Two workers whose products run on two threads each would fight over two cores, and a product's order
of summation would depend on how many there are. The limit is set around the work and taken off
afterwards, never by importing anything.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


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


one_blas_thread = _OneBlasThread()
