"""Learning rates that change over training, each a pure function of how many steps were taken.

Long steps find the valley, short ones its floor; very first steps are best short too, while
running averages are still empty. A schedule sets ``group["lr"]`` of an optimizer when it is made
and after each :meth:`~Schedule.step`, whose unit (a batch or an epoch) is the caller's to choose::

    schedule = optim.CosineAnnealingLR(optimizer, T_max=epochs)
    for epoch in range(epochs):
        ...                      # train for an epoch
        schedule.step()

The formulas, and the names of their arguments, are torch's. torch computes a rate from the one
before; here it comes from the formula directly, so rounding does not add up and a rate that is
changed by hand is overwritten at the next step. Read next ``one_cycle.py`` and ``plateau.py``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from tinycompress.optim.checks import count, non_negative, positive, unit_interval
from tinycompress.optim.optimizer import Optimizer


class Schedule:
    """Base of the schedules: a subclass gives :meth:`lr_at`.

    Attributes:
        optimizer: whose rates are set.
        base_lrs: each group's rate before any schedule touched it (kept in the group as
            ``"initial_lr"``, so that several schedules may be made for one optimizer).
        last_epoch: how many steps were taken (torch's name; the unit need not be an epoch).

    Raises:
        TypeError, ValueError: something else than an optimizer; an argument out of its range.
    """

    def __init__(self, optimizer: Optimizer, base_lrs: Sequence[float] | None = None) -> None:
        self.optimizer = check_optimizer(self, optimizer)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        initial = [group["initial_lr"] for group in optimizer.param_groups]
        self.base_lrs = initial if base_lrs is None else list(base_lrs)
        self.last_epoch = 0
        self.set_rates(0)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """The learning rate after ``epoch`` steps of a group whose rate is ``base_lr``."""
        raise NotImplementedError

    def step(self) -> None:
        """Count one step and set the learning rate that follows."""
        self.last_epoch += 1
        self.set_rates(self.last_epoch)

    def set_rates(self, epoch: int) -> None:
        """Give every group the learning rate that holds after ``epoch`` steps."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise RuntimeError(
                f"{type(self).__name__} was made for {len(self.base_lrs)} parameter groups and "
                f"the optimizer has {len(groups)}: make schedules after the last add_param_group"
            )
        for group, base_lr in zip(groups, self.base_lrs, strict=True):
            group["lr"] = self.lr_at(epoch, base_lr)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """How far this schedule is, as plain JSON values. Its arguments are not part of it."""
        return {"kind": type(self).__name__, "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, and set the learning rate that holds there.

        Raises:
            ValueError: it is the state of another kind of schedule.
        """
        check_kind(self, state_dict)
        self.last_epoch = count("last_epoch", state_dict["last_epoch"], least=0)
        self.set_rates(self.last_epoch)


def check_optimizer(schedule: object, optimizer: Any) -> Optimizer:
    """``optimizer``, or a ``TypeError`` that names the schedule."""
    if not isinstance(optimizer, Optimizer):
        name, given = type(schedule).__name__, type(optimizer).__name__
        raise TypeError(f"{name}: optimizer must be an optim.Optimizer, got {given}")
    return optimizer


def check_kind(schedule: object, state_dict: dict[str, Any]) -> None:
    """Raise ``ValueError`` when ``state_dict`` is not from this kind of schedule."""
    if state_dict.get("kind") != type(schedule).__name__:
        raise ValueError(
            f"the state is of {state_dict.get('kind')!r}, this schedule is a "
            f"{type(schedule).__name__}"
        )


def one_per_group(
    name: str,
    value: float | Sequence[float],
    optimizer: Optimizer,
    rule: Callable[[str, Any], float],
) -> list[float]:
    """``value`` once for each parameter group, or its own items if it has that many."""
    groups = len(optimizer.param_groups)
    values = value if isinstance(value, Sequence) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{name} has {len(values)} values for {groups} parameter groups")
    return [rule(name, item) for item in values]


class StepLR(Schedule):
    """Multiply the rate by ``gamma`` every ``step_size`` steps: ``lr · gamma^⌊t/step_size⌋``.

    Args:
        optimizer: whose rates to set.
        step_size: ≥ 1.
        gamma: > 0, usually 0.1.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = count("step_size", step_size)
        self.gamma = positive("gamma", gamma)
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        return base_lr * self.gamma ** (epoch // self.step_size)


class LinearLR(Schedule):
    """Warm-up: from ``start_factor · lr`` in a straight line to ``end_factor · lr``, and stay.

    Goyal et al. 2017, section 2.2, https://arxiv.org/abs/1706.02677.

    Args:
        optimizer: whose rates to set.
        start_factor: in (0, 1].
        end_factor: in [0, 1].
        total_iters: how many steps the way takes, ≥ 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self.start_factor = positive("start_factor", unit_interval("start_factor", start_factor))
        self.end_factor = unit_interval("end_factor", end_factor)
        self.total_iters = count("total_iters", total_iters)
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class CosineAnnealingLR(Schedule):
    """Half a cosine from ``lr`` down to ``eta_min`` in ``T_max`` steps (and up again after them).

    ``eta_min + (lr − eta_min) · (1 + cos(π t / T_max)) / 2``: slow at both ends. Loshchilov and
    Hutter 2016, equation 5, https://arxiv.org/abs/1608.03983 (without its restarts).

    Args:
        optimizer: whose rates to set.
        T_max: steps from the highest rate to the lowest, ≥ 1.
        eta_min: the lowest rate, ≥ 0.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = count("T_max", T_max)
        self.eta_min = non_negative("eta_min", eta_min)
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        height = (1 + math.cos(math.pi * epoch / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * height


class SequentialLR(Schedule):
    """One schedule after another, each counting its own steps from 0.

    Warm-up and then a cosine, over 30 epochs::

        warm_up = optim.LinearLR(optimizer, start_factor=0.1, total_iters=5)
        cosine = optim.CosineAnnealingLR(optimizer, T_max=25)
        schedule = optim.SequentialLR(optimizer, [warm_up, cosine], milestones=[5])

    Args:
        optimizer: whose rates to set; that of every schedule.
        schedulers: at least one schedule. Only this one's ``step`` is to be called afterwards.
        milestones: after how many steps each schedule but the first takes over, rising.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int]
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [count("milestones", milestone) for milestone in milestones]
        check_optimizer(self, optimizer)
        for position, schedule in enumerate(self.schedulers):
            if not isinstance(schedule, Schedule):
                kind = type(schedule).__name__
                raise TypeError(f"schedulers: item {position}, a {kind}, is no pure schedule")
            if schedule.optimizer is not optimizer:
                raise ValueError(f"schedulers: item {position} is of another optimizer")
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"{len(self.schedulers)} schedulers need one milestone between each two of them, "
                f"got {len(self.milestones)}"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {self.milestones}")
        super().__init__(optimizer)

    def set_rates(self, epoch: int) -> None:
        current = bisect_right(self.milestones, epoch)
        start = self.milestones[current - 1] if current else 0
        self.schedulers[current].set_rates(epoch - start)
