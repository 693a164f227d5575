"""How the command line trains: which optimizer and which schedule, from a few options."""

from __future__ import annotations

from typing import Any

from tinycompress import optim
from tinycompress.cli.options import OptimizerName, ScheduleName
from tinycompress.data import Dataset, batch_count
from tinycompress.nn import Module

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
    if lr == 0:
        raise ValueError("the learning rate must be > 0: with 0, nothing is learned")
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
