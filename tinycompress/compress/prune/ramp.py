"""Pruning while training goes on: at which steps, and how much by then.

    sparsity                     ___________ final
                           __---'
                       _--'                        s_t = schedule(t, final, initial)
    initial __________|'                           t = (step − begin) / (end − begin)
            0       begin            end   run's last step

It prunes after the updates ``begin``, ``begin + every``, … and ``end`` (0: before the first).
All that happens there is a function of the step and of what a checkpoint keeps, so a run that was
cut off and resumed ends with the same bits. Read ``schedules.py`` and ``train/callbacks.py`` first;
``gradual.py``, ``surgery.py`` and ``movement.py`` say what is pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from tinycompress import nn
from tinycompress.compress.prune.amounts import by_layer, check_sparsities, check_sparsity
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.schedules import cubic, exponential, linear
from tinycompress.train.callbacks import Callback

if TYPE_CHECKING:
    from tinycompress.train.run import Run

Schedule = Callable[[float, float, float], float]
"""``(t, final, initial) -> sparsity``, as those of ``schedules.py``."""

SCHEDULES: dict[str, Schedule] = {"cubic": cubic, "linear": linear, "exponential": exponential}
TIMES = 100  # how many prunings lie between begin and end, unless told otherwise


class Ramp(Callback):
    """Base of the callbacks that prune between two steps of a run: :meth:`prune_to` does it.

    Args:
        sparsity: the share of weights to be zero from ``end`` on: a number, or a number for each
            layer; None where the subclass has another target.
        schedule: "cubic", "linear", "exponential", or a function (t, final, initial) -> sparsity.
        begin, end: updates as whole numbers, or shares of the run as floats from 0.0 to 1.0.
        every: how many updates lie between two prunings; None for a hundredth of ``end − begin``.
        initial: the sparsity at ``begin``.
    """

    # What changes are numbers of parameters in place, and masks, which only optimizers look at:
    # worker processes see the first, and never ask for the second.
    only_looks = True
    alone: ClassVar[bool] = False  # whether weights come and go, so that no other may prune them
    skip: Any = ()
    settings: ClassVar[tuple[str, ...]] = ()  # of the subclass, that a resumed run must have again

    def __init__(
        self,
        sparsity: Any,
        schedule: str | Schedule,
        begin: float,
        end: float,
        every: int | None,
        initial: float,
    ) -> None:
        self.sparsity = dict(sparsity) if isinstance(sparsity, Mapping) else sparsity
        self.begin, self.end, self.every, self.initial = begin, end, every, initial
        self.schedule = schedule
        self.first = self.last = self.stride = 0  # begin, end and every, in updates of this run
        _check_time("begin", begin)
        _check_time("end", end)
        whole = isinstance(every, Integral) and not isinstance(every, bool)
        if every is not None and not (whole and every >= 1):
            raise ValueError(f"every must be a whole number of steps ≥ 1, or None, got {every!r}")
        check_sparsity("initial", initial)
        if sparsity is not None:
            check_sparsities(sparsity)
        self._schedule = _schedule(schedule)
        for final in self._finals():
            self._check_schedule(final)

    # ------------------------------------------------------------------ what a subclass provides

    def check(self, run: Run) -> None:
        """Before a run's first step: raise where it could not reach the target."""

    def ready(self, run: Run) -> None:
        """Before a run's first step, and not where it is resumed."""

    def again(self, run: Run) -> None:
        """Before the next step of a run that is resumed."""

    def prune_to(self, run: Run, t: float, step: int) -> None:
        """Prune, at progress t of the ramp; 1.0 at the end of it, once."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------- in training

    def on_fit_begin(self, run: Run) -> None:
        self._refuse_others(run)
        total = run.epochs * run.steps_per_epoch
        if run.step == 0:
            self.first, self.last = _steps(self.begin, total), _steps(self.end, total)
            self.stride = self.every or max(1, round((self.last - self.first) / TIMES))
        self._refuse_unreachable(total, run.steps_per_epoch)
        if run.step < self.last or run.step == 0:
            self.check(run)
        if run.step == 0:
            self.ready(run)
            self._act(run)
        else:
            self.again(run)

    def on_step_end(self, run: Run) -> None:
        self._act(run)

    def on_fit_end(self, run: Run) -> None:
        if run.step < self.last:
            raise RuntimeError(
                f"{type(self).__name__}: the run was stopped after {run.step:,} steps and pruning "
                f"ends at step {self.last:,}, so it is short of its target; resume it from its "
                "checkpoint, or give an earlier end"
            )

    def _act(self, run: Run) -> None:
        step = run.step
        if not self.first <= step <= self.last:
            return
        if step == self.last or (step - self.first) % self.stride == 0:
            length = self.last - self.first
            self.prune_to(run, (step - self.first) / length if length else 1.0, step)

    def amounts(self, t: float) -> Any:
        """``sparsity`` at progress t: a number, or a number for each layer."""
        if isinstance(self.sparsity, Mapping):
            return {name: self._at(t, final) for name, final in self.sparsity.items()}
        return self._at(t, self.sparsity)

    def _at(self, t: float, final: float) -> float:
        value = self._schedule(t, final, min(self.initial, final))
        check_sparsity(f"what the schedule {self.schedule!r} gives for t = {t:.3f}", value)
        return value

    # ---------------------------------------------------------------------------------- checking

    def _finals(self) -> list[float]:
        given = self.sparsity
        return [] if given is None else [*(given.values() if isinstance(given, dict) else [given])]

    def _check_schedule(self, final: float) -> None:
        if self.initial > final:
            raise ValueError(
                f"initial must be at most the sparsity at the end, {final}, got {self.initial!r}"
            )
        if (got := self._at(1.0, final)) != final:
            raise ValueError(
                f"the schedule {self.schedule!r} must end at the sparsity asked for: "
                f"schedule(1.0, {final}, {self.initial}) is {got}, not {final}"
            )

    def layers(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Layer → weight of the layers that are pruned."""
        weights = prunable_weights(model, self.skip)
        if isinstance(self.sparsity, Mapping):
            return {name: weights[name] for name in by_layer("sparsity", self.sparsity, weights)}
        return weights

    def _refuse_others(self, run: Run) -> None:
        others = [c for c in run.callbacks if isinstance(c, Ramp)]
        others.remove(self)
        for other in others:
            if self.alone or other.alone:
                theirs = other.layers(run.model)
                both = [name for name in self.layers(run.model) if name in theirs]
                if both:
                    raise ValueError(
                        f"{type(self).__name__} and {type(other).__name__} both prune "
                        f"{', '.join(map(repr, both))}, and where weights come and go only one may "
                        "say which are there; give each layers of its own with skip="
                    )

    def _refuse_unreachable(self, total: int, per_epoch: int) -> None:
        if self.last < self.first:
            raise ValueError(
                f"{type(self).__name__}: end={self.end!r} is step {self.last:,} of this run and "
                f"lies before begin={self.begin!r}, step {self.first:,}"
            )
        if self.last > total:
            raise ValueError(
                f"{type(self).__name__}: end={self.end!r}, step {self.last:,}, lies after the last "
                f"of this run's {total:,} steps ({per_epoch:,} in an epoch), so the target would "
                "not be reached; give a smaller end, a share such as 0.75, or more epochs"
            )

    # ------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The steps of the ramp: a resumed run keeps them, however long it is to be."""
        return {"first": self.first, "last": self.last, "stride": self.stride}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first, self.last, self.stride = (state[k] for k in ("first", "last", "stride"))

    def __repr__(self) -> str:
        names = ("sparsity", "schedule", "begin", "end", "every", "initial", *self.settings)
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({given})"


def _schedule(given: str | Schedule) -> Schedule:
    if callable(given):
        return given
    if not isinstance(given, str) or given not in SCHEDULES:
        raise ValueError(
            f"schedule must be one of {', '.join(map(repr, SCHEDULES))}, or a function "
            f"(t, final, initial) -> sparsity, got {given!r}"
        )
    return SCHEDULES[given]


def _check_time(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{what} must be a step as a whole number, or a share of the run as a float, "
            f"got {value!r}"
        )
    if isinstance(value, Integral):
        if value < 0:
            raise ValueError(f"{what} must not be negative, got {value!r}")
    elif not 0 <= float(value) <= 1:
        raise ValueError(
            f"{what} as a float is a share of the run, from 0.0 to 1.0, got {value!r}; a step is "
            "a whole number"
        )


def _steps(value: float, total: int) -> int:
    return int(value) if isinstance(value, Integral) else round(value * total)
