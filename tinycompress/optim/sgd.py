"""Stochastic gradient descent: go downhill, and with momentum keep going.

    w ← w − lr · g

Momentum replaces ``g`` by a velocity, which adds up the directions that persist over many steps
and cancels those that alternate:

    v ← momentum · v + (1 − dampening) · g,        w ← w − lr · v

Nesterov's form looks one step ahead: it moves by ``g + momentum · v``, with the new ``v``.

Read ``optimizer.py`` first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tinycompress.backend import Array
from tinycompress.optim.checks import flag, non_negative
from tinycompress.optim.optimizer import Group, Optimizer, Rules, State


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and weight decay on request.

    Momentum: Polyak 1964, https://doi.org/10.1016/0041-5553(64)90137-5; both forms as in
    Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html, with torch's
    arrangement, in which the learning rate is outside of the velocity.

    Args:
        parameters: parameters or groups of them, see :class:`Optimizer`.
        lr: learning rate ≥ 0, the length of a step.
        momentum: the share of the velocity that is kept, ≥ 0; usually 0.9.
        dampening: the share of each gradient but the first that the velocity leaves out.
        weight_decay: the pull towards zero, ≥ 0: ``g`` becomes ``g + weight_decay · w``, the
            derivative of a penalty ``weight_decay/2 · ‖w‖²``.
        nesterov: look ahead; needs momentum and no dampening.

    Raises:
        TypeError, ValueError: see :class:`Optimizer`.
    """

    elementwise: ClassVar[bool] = True
    rules: ClassVar[Rules] = {
        "lr": non_negative,
        "momentum": non_negative,
        "dampening": non_negative,
        "weight_decay": non_negative,
        "nesterov": flag,
    }

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def check_options(self, group: Group) -> None:
        super().check_options(group)
        if group["nesterov"] and not (group["momentum"] > 0 and group["dampening"] == 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening = 0, "
                f"got momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def state_names(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def update(self, w: Array, g: Array, state: State, group: Group) -> None:
        momentum, dampening = group["momentum"], group["dampening"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        if momentum:
            velocity = state["momentum_buffer"]
            velocity *= momentum
            if dampening and state["step"] > 1:
                velocity += (1 - dampening) * g
            else:
                velocity += g
            g = g + momentum * velocity if group["nesterov"] else velocity
        w -= group["lr"] * g
