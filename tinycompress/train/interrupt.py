"""Ctrl-C between two steps rather than inside one, so that a checkpoint is always whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class DeferredInterrupt:
    """Inside this context the first Ctrl-C only sets :attr:`requested`; the second one raises.

    The training loop looks at ``requested`` after every step. One that nobody heeded is raised
    when the context ends. It does nothing outside the main thread, where Python delivers no
    signals, and where Ctrl-C is ignored, as in a job that a shell put into the background.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if handler not in (signal.SIG_IGN, None):  # None: set by something else than Python
                self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
        if self.requested and kind is None:
            raise KeyboardInterrupt("training was interrupted")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
