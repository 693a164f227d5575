"""When the loss becomes NaN or infinite: stop, and say where it began.

On a CPU every loss is looked at, before its gradients reach the weights, and the step is run again
under ``detect_anomaly``, with the same dropout masks, to find the operation. On a GPU looking waits
for the device, so losses are kept there and looked at together every :data:`CHECK_EVERY` steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinycompress import random
from tinycompress.graph import AnomalyError, detect_anomaly
from tinycompress.train.step import StepResult

if TYPE_CHECKING:
    from tinycompress.train.fit import Run

CHECK_EVERY = 50


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite.

    Attributes:
        epoch, batch: where, both from 1 as progress shows them.
        cause: the first operation that produced NaN or infinity, in words.
    """

    def __init__(self, epoch: int, batch: int, loss: float, cause: str) -> None:
        self.epoch, self.batch, self.cause = epoch, batch, cause
        super().__init__(
            f"the loss became {loss} in epoch {epoch}, batch {batch}: {cause}. Usual remedies: a "
            "smaller learning rate, clip_grad_norm, inputs scaled to [0, 1]"
        )


class LossWatch:
    """Runs a step and looks at its loss, at once or later."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._unread: list[tuple[int, int, Any]] = []

    def value_and_grad(self, batch: tuple[Any, ...]) -> StepResult:
        """The step's value and gradients.

        Raises:
            NonFiniteLossError: the loss, or one that was not looked at yet, is not finite.
        """
        run, key = self.run, random.next_key()
        result = run.compute(batch, key)
        if isinstance(result.loss, np.ndarray | np.generic):
            if not math.isfinite(result.loss):
                cause = self._cause(batch, key)
                raise NonFiniteLossError(run.epoch + 1, run.batch + 1, float(result.loss), cause)
            return result
        self._unread.append((run.epoch + 1, run.batch + 1, result.loss))
        if len(self._unread) >= CHECK_EVERY:
            self.check()
        return result

    def check(self) -> None:
        """Look at the losses that were left on the device."""
        unread, self._unread = self._unread, []
        for epoch, batch, loss in unread:
            value = float(loss)
            if not math.isfinite(value):
                cause = f"found at the check every {CHECK_EVERY} steps; train on a CPU to see where"
                raise NonFiniteLossError(epoch, batch, value, cause)

    def _cause(self, batch: tuple[Any, ...], key: int) -> str:
        for name, p in self.run.model.named_parameters():
            if not np.isfinite(p.data).all():
                return f"the weights {name} were no longer finite before this step"
        try:
            with detect_anomaly():
                self.run.compute(batch, key)
        except AnomalyError as error:
            where = "; ".join(getattr(error, "__notes__", []))
            return f"{error}{' (' + where + ')' if where else ''}"
        return "the objective itself returned it"
