"""Prune, retrain, and again: Han et al. 2015, arXiv:1506.02626.

    for k in 1 … rounds:
        prune to schedule(k / rounds, sparsity)
        train

Each round is a run of its own with a new optimizer. With the schedule "exponential" every round
takes the same share of what is left; ``gradual.py`` does the same inside one run, in smaller steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any

from tinycompress import nn, optim
from tinycompress.compress.prune.gradual import GradualPruning
from tinycompress.compress.prune.importance import Importance
from tinycompress.compress.prune.ramp import Ramp, Schedule
from tinycompress.data import Dataset
from tinycompress.train.fit import fit
from tinycompress.train.history import History
from tinycompress.train.objective import Objective

MakeOptimizer = Callable[[list[nn.Parameter]], optim.Optimizer]
"""From a model's parameters a new optimizer, such as ``lambda p: optim.SGD(p, lr=0.1)``."""

MakeRates = Callable[[optim.Optimizer], Any]
"""From an optimizer a new schedule of its learning rates."""

SHARE = 0.2  # of what is left, in a round: as many rounds as that takes, unless told otherwise


def prune_iteratively(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None,
    rounds: int | None,
    train: Dataset,
    epochs: int,
    *,
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
) -> nn.Module:
    """A copy of ``model``, pruned in rounds with training after each.

    Args:
        model: usually trained; it is not changed.
        sparsity: the share of weights to be zero in the end, as for :func:`tinycompress.prune`.
        rounds: how many; None for so many that none takes more than a fifth of what is left.
        train, epochs: what is trained on, and for how many epochs in each round.
        optimizer: ``parameters -> optimizer``, called in each round; None for Adam.
        rates: ``optimizer -> schedule of its learning rates``, likewise; None for constant ones.
        schedule: of the sparsity over the rounds: "exponential", "linear", "cubic", or a function
            (t, final, initial) -> sparsity.
        importance, scope, structure, skip, keep_at_least, seed: as for :func:`tinycompress.prune`.
        data: samples for criteria that look at derivatives; None for ``train``.
        objective: what is trained and what is differentiated; None for cross-entropy.
        fit_options: of :func:`tinycompress.fit`, such as ``batch_size``; but for checkpoints.

    Returns:
        The pruned and trained copy, with masks; exactly as sparse as asked for.

    Raises:
        ValueError, TypeError: as ``prune`` and ``fit``; arguments are looked at before anything is
            trained.
        RuntimeError: a model that has lost masks in training.
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
    rounds = number_of_rounds(rounds, plan)
    check_rounds("prune_iteratively", optimizer, rates, fit_options)
    plan.check_model(model)
    thin = model.copy()
    for k in range(1, rounds + 1):
        plan.prune(thin, k / rounds)
        train_once(thin, train, epochs, optimizer, rates, objective, seed, **fit_options)
        plan.refuse_short(thin, k / rounds)
    return thin


def train_once(
    model: nn.Module,
    train: Dataset,
    epochs: int,
    optimizer: MakeOptimizer | None,
    rates: MakeRates | None,
    objective: Objective | None,
    seed: int,
    **fit_options: Any,
) -> History:
    """One run with an optimizer of its own."""
    made = (optimizer or optim.Adam)(list(model.parameters()))
    schedule = None if rates is None else rates(made)
    return fit(
        model, train, epochs, made, objective=objective, schedule=schedule, seed=seed, **fit_options
    )


def number_of_rounds(rounds: int | None, plan: GradualPruning) -> int:
    """The number given, checked, or so many that none takes more than a fifth of what is left.

    Raises:
        TypeError, ValueError: no whole number ≥ 1.
    """
    if rounds is None:
        amounts = plan.amounts(1.0)
        most = max(amounts.values()) if isinstance(amounts, Mapping) else amounts
        return max(1, math.ceil(math.log(1 - most) / math.log(1 - SHARE) - 1e-9))
    if isinstance(rounds, bool) or not isinstance(rounds, Integral):
        raise TypeError(f"rounds must be a whole number or None, got {rounds!r}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds!r}")
    return int(rounds)


def check_functions(who: str, **given: Any) -> None:
    """Raise TypeError unless each is None or a function, which makes a new one for each run."""
    for name, make in given.items():
        if make is not None and not callable(make):
            raise TypeError(
                f"{who}: {name} must be a function that is called in each run, got {make!r}"
            )


def refuse_ramps(who: str, callbacks: Iterable[Any]) -> None:
    """Raise ValueError where a callback prunes in a run that prunes already."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"{who}: callbacks must be a list of train.Callback, got {callbacks!r}")
    if any(isinstance(each, Ramp) for each in callbacks):
        raise ValueError(f"{who} prunes by itself: leave out callbacks that prune")


def check_rounds(who: str, optimizer: Any, rates: Any, fit_options: Mapping[str, Any]) -> None:
    """Each round is a run of its own, with an optimizer and rates made anew; one checkpoint cannot
    hold them all.

    Raises:
        TypeError: ``optimizer`` or ``rates`` is no function.
        ValueError: an option of ``fit`` that is not for rounds.
    """
    check_functions(who, optimizer=optimizer, rates=rates)
    refuse_ramps(who, fit_options.get("callbacks", ()))
    for name in ("checkpoint", "checkpoint_every", "resume", "schedule"):
        if fit_options.get(name):
            raise ValueError(
                f"{who}: {name}= is not for runs in rounds; use GradualPruning in one fit, which "
                "goes on from its checkpoint"
            )
