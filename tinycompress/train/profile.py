"""Where the time of training goes: operation by operation, forward and backward, and beside them.

    with profile() as found:
        loss = objective(model, images, labels)
        loss.backward()
    for row in found.table():
        ...

A stopwatch is pressed around each operation (``tensor.py: apply``), each walk back through one
(``graph.py: backpropagate``) and each :func:`section` of the training step. What is measured is
*own* time: what passed, less what was measured further inside. So nothing counts twice, the times
add up to what passed on the clock, and what nobody claims is a row of its own, "rest".

Only this thread is measured, so a training needs ``workers=1``. On a GPU, operations are merely
started, and the times are those of starting them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tinycompress.graph import watch_operations
from tinycompress.train.callbacks import Callback

if TYPE_CHECKING:
    from tinycompress.train.run import Run


@dataclass(slots=True)
class Row:
    """One line of the table, with times in seconds.

    Attributes:
        name: of the operation or the section.
        calls: how often it ran (forward, for an operation).
        forward, backward: an operation's time in either direction.
        beside: a section's time.
    """

    name: str
    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    beside: float = 0.0

    @property
    def seconds(self) -> float:
        return self.forward + self.backward + self.beside


class Profile:
    """Measures this thread from :meth:`start` to :meth:`stop`, or in a ``with`` block.

    Attributes:
        seconds: the time on the clock, after :meth:`stop`.
        steps: how many training steps that was, where somebody counted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._rows: dict[tuple[str, bool], Row] = {}
        self._claimed = 0.0  # seconds that have a row
        self._period = 0  # odd while it measures
        self._started = 0.0

    def start(self) -> None:
        """Begin to measure.

        Raises:
            RuntimeError: this or another profile measures this thread already; a second one would
                see half of the truth.
        """
        if _local.profile is not None:
            raise RuntimeError("profile: this thread is being measured already; leave that first")
        _local.profile = self
        watch_operations(self._measured)
        self._period += 1
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Measure no more, until the next :meth:`start`. Does nothing where nothing is measured."""
        if self._period % 2:
            self.seconds += time.perf_counter() - self._started
            self._period += 1
            watch_operations(None)
            _local.profile = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def table(self) -> list[Row]:
        """A row for each operation and section, the longest first; last, the "rest" of the time."""
        rows = sorted(map(copy, self._rows.values()), key=lambda row: row.seconds, reverse=True)
        return [*rows, Row("rest", beside=max(self.seconds - self._claimed, 0.0))]

    def _measured(self, function: Callable[..., Any], name: str, part: str) -> Callable[..., Any]:
        """``function``, with its time entered under ``name`` as "forward" or "backward"."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with _Claim(self, name, part):
                return function(*args, **kwargs)

        return run


class _Claim:
    """The own time of a ``with`` block, for the row ``name``: all but what is claimed inside it."""

    __slots__ = ("before", "name", "part", "period", "profile", "start")

    def __init__(self, profile: Profile, name: str, part: str) -> None:
        self.profile, self.name, self.part = profile, name, part

    def __enter__(self) -> None:
        self.period, self.before = self.profile._period, self.profile._claimed
        self.start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        elapsed = time.perf_counter() - self.start
        profile, part = self.profile, self.part
        if profile._period != self.period:
            return  # it was stopped inside, and does not know the whole of the block
        own = elapsed - (profile._claimed - self.before)
        profile._claimed = self.before + elapsed
        row = profile._rows.setdefault((self.name, part == "beside"), Row(self.name))
        row.calls += part != "backward"
        setattr(row, part, getattr(row, part) + own)


class _Local(threading.local):
    profile: Profile | None = None


_local = _Local()
_nothing = nullcontext()


def profile() -> Profile:
    """Measure what the ``with`` block does: ``with profile() as found: …``, ``found.table()``.

    Raises:
        RuntimeError: inside another profile of this thread.
    """
    return Profile()


def section(name: str) -> AbstractContextManager[None]:
    """A part of the training step that is no operation: ``with section("optimizer"): …``.

    Its own time becomes a row of the profile that measures this thread. Where none does, this is
    next to nothing.
    """
    measuring = _local.profile
    return _nothing if measuring is None else _Claim(measuring, name, "beside")


class StepProfile(Callback):
    """Measures the steps of a training: ``fit(…, workers=1, callbacks=[StepProfile()])``.

    What stands between two epochs (validation, a checkpoint) is left out.

    Attributes:
        profile: what was found.
    """

    only_looks = True

    def __init__(self) -> None:
        self.profile = Profile()

    def on_epoch_begin(self, run: Run) -> None:
        self.profile.start()

    def on_step_end(self, run: Run) -> None:
        self.profile.steps += 1
        if run.stopped or run.batch == run.steps_per_epoch:
            self.profile.stop()

    def close(self, run: Run) -> None:
        self.profile.stop()
