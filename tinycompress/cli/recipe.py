"""How the command line trains: which optimizer and which schedule, from a few options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinycompress import optim
from tinycompress.cli import common, output
from tinycompress.cli.options import OptimizerName, ScheduleName
from tinycompress.data import Dataset, batch_count
from tinycompress.nn import Module, Parameter
from tinycompress.train import Callback, fit

# Without a limit, some runs at these rates end in infinity, or with units that are always zero.
CLIP_NORM = 2.0
LEARNING_RATES = {OptimizerName.sgd: 0.1, OptimizerName.adam: 2e-3, OptimizerName.adamw: 2e-3}


def make_optimizer(
    model: Module, name: OptimizerName, lr: float | None, weight_decay: float
) -> optim.Optimizer:
    """SGD with momentum 0.9, Adam, or AdamW over the model's parameters.

    Without ``lr`` it is that of ``LEARNING_RATES``: Adam's steps are far larger at the same rate.
    """
    lr = LEARNING_RATES[name] if lr is None else lr
    _check_rate(lr)
    if name == OptimizerName.sgd:
        return optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    kind = optim.Adam if name == OptimizerName.adam else optim.AdamW
    return kind(model.parameters(), lr=lr, weight_decay=weight_decay)


def make_schedule(
    name: ScheduleName, optimizer: optim.Optimizer, data: Dataset, epochs: int, batch_size: int
) -> dict[str, Any]:
    """The keyword arguments of ``fit`` for a schedule over the whole run, updated every step."""
    steps = epochs * batch_count(data, batch_size)
    if name == ScheduleName.one_cycle and steps > 1:
        rate = optimizer.param_groups[0]["lr"]
        schedule: Any = optim.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    elif name == ScheduleName.cosine:
        schedule = optim.CosineAnnealingLR(optimizer, T_max=steps)
    else:
        return {}
    return {"schedule": schedule, "schedule_every": "step"}


def train_one_cycle(
    model: Module,
    data: Dataset,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    workers: int | None,
    *,
    optimizer: OptimizerName = OptimizerName.sgd,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train ``model`` further, in place, by rates that rise to ``lr`` and fall again."""
    with common.usage("--lr"):
        rule = make_optimizer(model, optimizer, lr, 0.0)
    fit(
        model,
        data,
        epochs,
        rule,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        clip_grad_norm=CLIP_NORM,
        callbacks=callbacks,
        progress=output.show_progress(),
        **make_schedule(ScheduleName.one_cycle, rule, data, epochs, batch_size),
    )


def check_rate(lr: float, option: str = "--lr") -> None:
    """Refuse a learning rate of 0, or without end, before anything is loaded."""
    with common.usage(option):
        _check_rate(lr)


def _check_rate(lr: float) -> None:
    if not 0 < lr < math.inf:
        raise ValueError(f"the learning rate must be > 0 and finite, got {lr}")


def optimizer_for(lr: float) -> Callable[[list[Parameter]], optim.Optimizer]:
    """The same rule, made anew for each of several runs."""
    return lambda parameters: optim.SGD(parameters, lr=lr, momentum=0.9)


def rates_for(data: Dataset, epochs: int, batch_size: int) -> Callable[[optim.Optimizer], Any]:
    """And its rates."""
    return lambda rule: make_schedule(ScheduleName.one_cycle, rule, data, epochs, batch_size).get(
        "schedule"
    )
