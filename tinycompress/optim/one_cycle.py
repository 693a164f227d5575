"""One cycle: the learning rate rises from low to very high and falls to almost nothing.

The high rate in the middle keeps training out of sharp valleys; momentum does the opposite of the
rate, so that long steps are not also fast ones. One cycle is the whole of training, and its steps
are batches. Read ``schedules.py`` first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinycompress.optim.checks import choice, count, decay_rate, flag, positive, unit_interval
from tinycompress.optim.optimizer import Optimizer
from tinycompress.optim.schedules import Schedule, check_optimizer, one_per_group


class OneCycleLR(Schedule):
    """From ``max_lr/div_factor`` up to ``max_lr``, then down to ``start/final_div_factor``.

    Smith and Topin 2017, https://arxiv.org/abs/1708.07120, with torch's two phases.

    Args:
        optimizer: whose rates (and momenta) to set. Its own ``lr`` is not used.
        max_lr: the rate at the top, > 0; one for each group, or one for all.
        total_steps: steps in the cycle, ≥ 2; or else give the next two.
        epochs: times ``steps_per_epoch`` the steps in the cycle.
        steps_per_epoch: batches in an epoch.
        pct_start: the share of the steps on the way up, in [0, 1].
        anneal_strategy: ``"cos"`` or ``"linear"``, the form of both ways.
        cycle_momentum: also move ``momentum`` (or β₁ of ``betas``) from ``max_momentum`` down to
            ``base_momentum`` and back.
        base_momentum: the momentum at the top of the rate, in [0, 1).
        max_momentum: the momentum at both ends, in [0, 1).
        div_factor: > 0, see above.
        final_div_factor: > 0, see above.

    Raises:
        TypeError, ValueError: an argument out of its range; ``cycle_momentum`` with an optimizer
            that has no momentum.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        check_optimizer(self, optimizer)
        self.total_steps = _cycle_length(total_steps, epochs, steps_per_epoch)
        max_lrs = one_per_group("max_lr", max_lr, optimizer, positive)
        self.pct_start = unit_interval("pct_start", pct_start)
        self.anneal_strategy = choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = flag("cycle_momentum", cycle_momentum)
        self.base_momentum = decay_rate("base_momentum", base_momentum)
        self.max_momentum = decay_rate("max_momentum", max_momentum)
        self.div_factor = positive("div_factor", div_factor)
        self.final_div_factor = positive("final_div_factor", final_div_factor)
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                f"cycle_momentum: {type(optimizer).__name__} has neither momentum nor betas"
            )
        super().__init__(optimizer, base_lrs=max_lrs)  # the cycle is measured from its top

    def set_rates(self, epoch: int) -> None:
        super().set_rates(epoch)
        if self.cycle_momentum:
            momentum = self._anneal(epoch, self.max_momentum, self.base_momentum, self.max_momentum)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])
                else:
                    group["momentum"] = momentum

    def lr_at(self, epoch: int, base_lr: float) -> float:
        start = base_lr / self.div_factor
        return self._anneal(epoch, start, base_lr, start / self.final_div_factor)

    def _anneal(self, epoch: int, start: float, top: float, end: float) -> float:
        """Between ``start`` and ``top``, or between ``top`` and ``end``."""
        last = self.total_steps - 1
        if epoch > self.total_steps:  # a call after the last batch is usual, and holds the end
            raise ValueError(
                f"OneCycleLR was made for total_steps={self.total_steps}; step {epoch} is past "
                "the cycle's end. Its steps are batches: epochs · steps_per_epoch"
            )
        peak = self.pct_start * self.total_steps - 1  # as in torch: need not be whole, may be −1
        if epoch <= peak:
            return self._between(start, top, epoch / peak if peak else 1.0)
        return self._between(top, end, min((epoch - peak) / (last - peak), 1.0))

    def _between(self, start: float, end: float, way: float) -> float:
        """``start`` at ``way`` 0, ``end`` at 1."""
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * way))
        return (end - start) * way + start


def _cycle_length(total: int | None, epochs: int | None, per_epoch: int | None) -> int:
    if total is not None:
        return count("total_steps", total, least=2)
    if epochs is None or per_epoch is None:
        raise ValueError("give total_steps, or both epochs and steps_per_epoch")
    steps = count("epochs", epochs) * count("steps_per_epoch", per_epoch)
    return count("epochs · steps_per_epoch", steps, least=2)
