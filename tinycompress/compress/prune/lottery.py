"""Lottery tickets: the few weights that would have been enough, from where they were early on.

Frankle & Carbin 2019, arXiv:1803.03635; with rewinding to step k, Frankle et al. 2020,
arXiv:1912.05671 and arXiv:1903.01611. Iterative magnitude pruning::

    train W_0 for k steps: W_k
    m <- 1
    for each round:
        train W_k ∘ m from step k to the end: W_T
        m <- prune W_T further
    the ticket is W_k ∘ m

Training from step k sees the batches and learning rates that step k to the end would see, with a
new optimizer (:class:`StartAt`). k = 0 is the paper of 2019, and enough for small networks; larger
ones need k > 0. The control is the same mask on another initialisation: ``ticket.on(fresh)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from tinycompress import nn, optim
from tinycompress.backend import Array, copy_of
from tinycompress.compress.prune.gradual import GradualPruning
from tinycompress.compress.prune.importance import Importance
from tinycompress.compress.prune.iterative import (
    MakeOptimizer,
    MakeRates,
    check_rounds,
    number_of_rounds,
    train_once,
)
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.ramp import Schedule
from tinycompress.compress.prune.sparsity import SparsityReport, sparsity_report
from tinycompress.data import Dataset, batch_count
from tinycompress.train.callbacks import Callback
from tinycompress.train.history import History
from tinycompress.train.objective import Objective

if TYPE_CHECKING:
    from tinycompress.train.run import Run


@dataclass(frozen=True)
class Round:
    """One round: how the network was trained, and how sparse the mask made from it is.

    Attributes:
        history: of the training with the mask of the round before (none in the first).
        sparsity: zeros counted by layer, after this round's pruning.
    """

    history: History
    sparsity: SparsityReport


@dataclass(frozen=True)
class Ticket:
    """A sparse network that has hardly been trained.

    Attributes:
        model: the weights of step k with masks. Train a copy from there:
            ``fit(ticket.model.copy(), train, epochs, callbacks=[StartAt(ticket.rewind_step)])``.
        rewind_step: k.
        rounds: what was done, in order.
    """

    model: nn.Module
    rewind_step: int
    rounds: tuple[Round, ...]

    @property
    def masks(self) -> dict[str, Array]:
        """Parameter name → its mask, a copy."""
        return copied_masks(self.model)

    def on(self, model: nn.Module) -> nn.Module:
        """A copy of ``model``, such as a new initialisation, under this ticket's masks.

        Raises:
            ValueError: it has other layers, or other shapes.
        """
        twin = model.copy()
        apply_masks(twin, self.masks)
        return twin


def lottery_ticket(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None,
    rounds: int | None,
    train: Dataset,
    epochs: int,
    *,
    rewind_step: int = 0,
    optimizer: MakeOptimizer | None = None,
    rates: MakeRates | None = None,
    schedule: str | Schedule = "exponential",
    importance: str | Importance = "magnitude",
    scope: str = "global",
    structure: str = "weight",
    skip: str | Iterable[str] = (),
    keep_at_least: float | Mapping[str, float] = 1,
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    **fit_options: Any,
) -> Ticket:
    """Find a lottery ticket in ``model`` by training, pruning and rewinding, round by round.

    Args:
        model: a new initialisation; it is not changed.
        rounds: None for so many that none takes more than a fifth of what is left. The network is
            trained once in each; what the last one leaves is the ticket, not trained again.
        rewind_step: k, the number of updates after which the weights are kept that every round goes
            back to, with running statistics and all.
        sparsity, train, epochs, optimizer, rates, schedule, importance, scope, structure, skip,
            keep_at_least, data, objective, seed, fit_options: as for
            :func:`~.iterative.prune_iteratively`.

    Raises:
        ValueError, TypeError: as ``prune_iteratively``; a ``rewind_step`` that no run reaches.
    """
    plan = GradualPruning(
        sparsity,
        schedule=schedule,
        importance=importance,
        scope=scope,
        structure=structure,
        skip=skip,
        keep_at_least=keep_at_least,
        data=train if data is None else data,
        objective=objective,
        seed=seed,
    )
    count = number_of_rounds(rounds, plan)
    check_rounds("lottery_ticket", optimizer, rates, fit_options)
    _check_step(rewind_step, epochs * batch_count(train, fit_options.get("batch_size", 128)))
    plan.check_model(model)
    callbacks = [*fit_options.pop("callbacks", ())]
    keep, start = Keep(rewind_step), StartAt(rewind_step)
    done: list[Round] = []
    ticket = model
    for k in range(1, count + 1):
        trained = ticket.copy()
        own = [keep if k == 1 else start, *callbacks]
        options = fit_options | {"callbacks": own}
        history = train_once(trained, train, epochs, optimizer, rates, objective, seed, **options)
        plan.prune(trained, k / count)
        plan.refuse_short(trained, k / count)
        ticket = _rewound(keep, trained)
        done.append(Round(history, sparsity_report(ticket)))
    return Ticket(ticket, rewind_step, tuple(done))


def copied_masks(model: nn.Module) -> dict[str, Array]:
    """Parameter name → a copy of its mask, for those that have one."""
    named = model.named_parameters()
    return {name: copy_of(p.mask) for name, p in named if p.mask is not None}


def _rewound(keep: Keep, pruned: nn.Module) -> nn.Module:
    """The weights that were kept, under the masks of ``pruned``."""
    assert keep.model is not None
    twin = keep.model.copy()
    apply_masks(twin, copied_masks(pruned))
    return twin


class Keep(Callback):
    """Keeps a copy of the model as it is after so many updates: ``keep.model``."""

    only_looks = True

    def __init__(self, step: int) -> None:
        self.step = step
        self.model: nn.Module | None = None

    def on_fit_begin(self, run: Run) -> None:
        self._look(run)

    def on_step_end(self, run: Run) -> None:
        self._look(run)

    def _look(self, run: Run) -> None:
        if run.step == self.step:
            self.model = run.model.copy()


class StartAt(Callback):
    """Begin a run at step k, as if the updates before had been made: with the batches and the
    learning rates that come then, and not those before.

    Args:
        step: k, the updates to leave out.

    Raises:
        ValueError: when the run begins: k is not before its end, or the learning rate follows
            losses that were never measured.
    """

    only_looks = True

    def __init__(self, step: int) -> None:
        _check_step(step)
        self.step = step

    def on_fit_begin(self, run: Run) -> None:
        if run.step >= self.step:  # resumed
            return
        _check_step(self.step, run.epochs * run.steps_per_epoch)
        if isinstance(run.schedule, optim.ReduceLROnPlateau):
            raise ValueError(
                "StartAt: ReduceLROnPlateau follows the losses of the steps that are left out; "
                "give another schedule"
            )
        run.step = self.step
        run.epoch, run.batch = divmod(self.step, run.steps_per_epoch)
        if run.schedule is not None:
            by_step = run.schedule_every == "step"
            for _ in range(run.step if by_step else run.epoch):
                run.schedule.step()


def _check_step(step: Any, total: int | None = None) -> None:
    if isinstance(step, bool) or not isinstance(step, Integral):
        raise TypeError(f"the step to go back to must be a whole number, got {step!r}")
    if int(step) < 0 or (total is not None and int(step) >= total):
        end = "" if total is None else f", before the last of {total:,}"
        raise ValueError(f"the step to go back to must be at least 0{end}, got {step!r}")
