"""Lower the learning rate when the loss has stopped falling, whenever that is.

The only schedule that looks at training, and so no pure function of the step: it remembers the
best value that it saw and how long ago that was. Read ``schedules.py`` first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinycompress.optim.checks import choice, count, non_negative, positive
from tinycompress.optim.optimizer import Optimizer
from tinycompress.optim.schedules import check_kind, check_optimizer, one_per_group


class ReduceLROnPlateau:
    """Multiply the rate by ``factor`` after more than ``patience`` steps without a new best.

    He et al. 2015, section 3.4, https://arxiv.org/abs/1512.03385, did it by eye.

    Args:
        optimizer: whose rates to set.
        mode: ``"min"`` when less is better (a loss), ``"max"`` when more is (an accuracy).
        factor: in (0, 1).
        patience: how many steps without a new best are let pass, ≥ 0.
        threshold: by how much a value must be better to count, ≥ 0.
        threshold_mode: ``"rel"``, a share of the best value, or ``"abs"``.
        cooldown: steps after a reduction in which nothing counts as bad, ≥ 0.
        min_lr: rates do not go below, ≥ 0; one for each group, or one for all.
        eps: a reduction by less than this is not made, ≥ 0.

    Attributes:
        best: the best value so far, None before the first.
        num_bad_epochs: steps without improvement since the last best value, reduction or cooldown.

    Raises:
        TypeError, ValueError: something else than an optimizer; an argument out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = check_optimizer(self, optimizer)
        self.mode = choice("mode", mode, ("min", "max"))
        self.factor = positive("factor", factor)
        if self.factor >= 1:
            raise ValueError(f"factor must be < 1, got {factor!r}")
        self.patience = count("patience", patience, least=0)
        self.threshold = non_negative("threshold", threshold)
        self.threshold_mode = choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = count("cooldown", cooldown, least=0)
        self.min_lrs = one_per_group("min_lr", min_lr, optimizer, non_negative)
        self.eps = non_negative("eps", eps)
        self.last_epoch = 0
        self.best: float | None = None
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    def step(self, metrics: float) -> None:
        """Count one step, whose validation loss (or other measure) was ``metrics``."""
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, as plain JSON values. The rates are in the optimizer's state."""
        names = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter")
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ValueError: it is the state of another kind of schedule.
        """
        check_kind(self, state_dict)
        best = state_dict["best"]
        self.best = None if best is None else float(best)
        self.last_epoch = count("last_epoch", state_dict["last_epoch"], least=0)
        self.num_bad_epochs = count("num_bad_epochs", state_dict["num_bad_epochs"], least=0)
        self.cooldown_counter = count("cooldown_counter", state_dict["cooldown_counter"], least=0)

    def _is_better(self, value: float) -> bool:
        """Whether ``value`` beats the best by the threshold. NaN and infinity never do."""
        if self.best is None or not math.isfinite(value):
            return math.isfinite(value)
        sign = 1 if self.mode == "max" else -1
        share = abs(self.best) if self.threshold_mode == "rel" else 1.0
        return sign * (value - self.best) > self.threshold * share

    def _reduce(self) -> None:
        for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lower = max(group["lr"] * self.factor, min_lr)
            if group["lr"] - lower > self.eps:
                group["lr"] = lower
