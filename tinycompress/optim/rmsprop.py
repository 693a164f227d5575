"""RMSprop: each weight's step is divided by the size that its gradient usually has.

    s ← alpha · s + (1 − alpha) · g²
    w ← w − lr · g / (√s + eps)

Weights whose gradients are small then move as far as those whose gradients are large. Read
``sgd.py`` first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinycompress.backend import Array, array_module
from tinycompress.optim.checks import decay_rate, flag, non_negative
from tinycompress.optim.optimizer import Group, Optimizer, Rules, State


class RMSprop(Optimizer):
    """Gradient descent divided by a running root mean square of the gradient.

    Tieleman and Hinton 2012, lecture 6e of "Neural Networks for Machine Learning",
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf; ``centered`` is from
    Graves 2013, section 4.2, https://arxiv.org/abs/1308.0850. The arrangement is torch's: ``eps``
    is added after the root.

    Args:
        parameters: parameters or groups of them, see :class:`Optimizer`.
        lr: learning rate ≥ 0.
        alpha: the share of the mean square that is kept in each step, in [0, 1).
        eps: ≥ 0, keeps the quotient finite where gradients are zero.
        weight_decay: ≥ 0, as in :class:`~tinycompress.optim.SGD`.
        momentum: ≥ 0, adds the quotients up as :class:`~tinycompress.optim.SGD` does gradients.
        centered: divide by the standard deviation, ``√(s − (mean of g)²)``, instead.

    Raises:
        TypeError, ValueError: see :class:`Optimizer`.
    """

    elementwise: ClassVar[bool] = True
    rules: ClassVar[Rules] = {
        "lr": non_negative,
        "alpha": decay_rate,
        "eps": non_negative,
        "weight_decay": non_negative,
        "momentum": non_negative,
        "centered": flag,
    }

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def state_names(self, group: Group) -> tuple[str, ...]:
        names = ["square_avg"]
        if group["centered"]:
            names.append("grad_avg")
        if group["momentum"]:
            names.append("momentum_buffer")
        return tuple(names)

    def update(self, w: Array, g: Array, state: State, group: Group) -> None:
        xp = array_module(w)
        alpha = group["alpha"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        square = state["square_avg"]
        square *= alpha
        square += (1 - alpha) * g * g
        if group["centered"]:
            mean = state["grad_avg"]
            mean += (1 - alpha) * (g - mean)
            # a gradient that never changes has variance 0, which rounding may put below it
            size = xp.sqrt(xp.maximum(square - mean * mean, 0.0))
        else:
            size = xp.sqrt(square)
        size += group["eps"]
        if group["momentum"]:
            velocity = state["momentum_buffer"]
            velocity *= group["momentum"]
            velocity += g / size
            w -= group["lr"] * velocity
        else:
            w -= group["lr"] * g / size
