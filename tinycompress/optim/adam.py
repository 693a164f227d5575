"""Adam: momentum (SGD) and division by the usual size of the gradient (RMSprop) in one rule.

    m ← β₁ · m + (1 − β₁) · g
    v ← β₂ · v + (1 − β₂) · g²
    w ← w − lr · m̂ / (√v̂ + eps),        m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)

``m`` and ``v`` start at zero and so are too small at first, by just the factors that m̂ and v̂
divide by at step t. Read ``sgd.py`` and ``rmsprop.py`` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from tinycompress.backend import Array, array_module
from tinycompress.optim.checks import decay_rates, non_negative
from tinycompress.optim.optimizer import Group, Optimizer, Rules, State


class Adam(Optimizer):
    """Adaptive moment estimation.

    Kingma and Ba 2014, algorithm 1, https://arxiv.org/abs/1412.6980.

    Args:
        parameters: parameters or groups of them, see :class:`Optimizer`.
        lr: learning rate ≥ 0; about the length of a step in each weight.
        betas: (β₁, β₂), the shares of the two running means that are kept in each step.
        eps: ≥ 0, keeps the quotient finite where gradients are zero.
        weight_decay: ≥ 0, as in :class:`~tinycompress.optim.SGD`: added to the gradient, and
            so divided by its usual size too. :class:`AdamW` is without that flaw.

    Raises:
        TypeError, ValueError: see :class:`Optimizer`.
    """

    elementwise: ClassVar[bool] = True
    rules: ClassVar[Rules] = {
        "lr": non_negative,
        "betas": decay_rates,
        "eps": non_negative,
        "weight_decay": non_negative,
    }

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def state_names(self, group: Group) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def update(self, w: Array, g: Array, state: State, group: Group) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        self._descend(w, g, state, group)

    def _descend(self, w: Array, g: Array, state: State, group: Group) -> None:
        """The rule without weight decay."""
        (beta1, beta2), t = group["betas"], state["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        size = array_module(w).sqrt(v)
        size /= math.sqrt(1 - beta2**t)
        size += group["eps"]
        w -= group["lr"] / (1 - beta1**t) * m / size


class AdamW(Adam):
    """Adam whose weight decay acts on the weight itself: ``w ← w − lr · weight_decay · w``.

    In Adam the decay is part of the gradient, and the division makes it weakest on the very
    weights whose gradients are large. Here every weight shrinks by the same share.

    Loshchilov and Hutter 2017, algorithm 2, https://arxiv.org/abs/1711.05101.

    Args:
        parameters: parameters or groups of them, see :class:`Optimizer`.
        lr: as in :class:`Adam`.
        betas: as in :class:`Adam`.
        eps: as in :class:`Adam`.
        weight_decay: ≥ 0; times ``lr``, the share that each step takes off.

    Raises:
        TypeError, ValueError: see :class:`Optimizer`.
    """

    elementwise: ClassVar[bool] = True

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, w: Array, g: Array, state: State, group: Group) -> None:
        if group["weight_decay"]:
            w *= 1 - group["lr"] * group["weight_decay"]
        self._descend(w, g, state, group)
