"""When training meets NaN or infinity: stop, and say where it began.

On a CPU the loss and the gradients of every step are looked at before they reach the weights, and
a bad step is run again under ``detect_anomaly``, with the same dropout masks, to find the
operation; weights and running statistics stay as they were before it. On a GPU looking waits for
the device, so losses are kept there and looked at together every :data:`CHECK_EVERY` steps, at the
end of an epoch and before a checkpoint is written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinycompress import random
from tinycompress.backend import Array, array_module, on_device, to_numpy
from tinycompress.graph import AnomalyError, detect_anomaly
from tinycompress.train.profile import section
from tinycompress.train.shards import Shard
from tinycompress.train.step import StepResult

if TYPE_CHECKING:
    from tinycompress.train.run import Run

CHECK_EVERY = 50


class NonFiniteLossError(FloatingPointError):
    """The loss, a gradient or a weight became NaN or infinite.

    Attributes:
        epoch, batch: where, both from 1 as progress shows them.
        cause: the first operation that produced NaN or infinity, in words.
    """

    def __init__(self, epoch: int, batch: int, what: str, cause: str) -> None:
        self.epoch, self.batch, self.cause = epoch, batch, cause
        super().__init__(
            f"{what} in epoch {epoch}, batch {batch}: {cause}. Usual remedies: a smaller learning "
            "rate, clip_grad_norm, inputs scaled to [0, 1]"
        )


class LossWatch:
    """Runs steps and looks at what they give, at once or later."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._unread: list[tuple[int, int, Any]] = []
        self._classes = 0
        # An observer may begin with infinity; what began as a number has to stay one.
        self._buffers = {name for name, b in run.model.named_buffers() if _finite(b)}

    def value_and_grad(self, rows: Array) -> StepResult:
        """The value and gradients of a step on these rows of the data.

        Raises:
            NonFiniteLossError: this step's are not finite (CPU), or an earlier loss was not (GPU).
        """
        run = self.run
        shards = run.shards(rows, random.next_key())
        result = run.compute(shards)
        if isinstance(result.outputs, np.ndarray):
            with section("look for NaN"):
                what = self._wrong_with(result)
            if what:
                cause = self._cause(shards)
                raise NonFiniteLossError(run.epoch + 1, run.batch + 1, what, cause)
            return result
        self._classes = result.outputs.shape[-1]
        self._unread.append((run.epoch + 1, run.batch + 1, result.loss))
        if len(self._unread) >= CHECK_EVERY:
            self._read_losses()
        return result

    def check(self) -> None:
        """Look at the losses that were left on the device, and at the weights and buffers.

        Raises:
            NonFiniteLossError: one of them is not finite.
        """
        self._read_losses()
        buffers = ((n, b) for n, b in self.run.model.named_buffers() if n in self._buffers)
        name = self._bad_weight() or next((n for n, b in buffers if not _finite(b)), None)
        if name:
            what, cause = f"{name} became NaN or infinite", "an update overflowed"
            raise NonFiniteLossError(self.run.epoch + 1, self.run.batch, what, cause)

    def _read_losses(self) -> None:
        unread, self._unread = self._unread, []
        if not unread:
            return
        losses = array_module(unread[0][2]).stack([loss for _, _, loss in unread])
        for (epoch, batch, _), loss in zip(unread, to_numpy(losses), strict=True):
            if not math.isfinite(loss):
                what = f"the loss became {loss}"
                raise NonFiniteLossError(epoch, batch, what, self._late_cause())

    # ----------------------------------------------------------------------- what it was

    def _wrong_with(self, result: StepResult) -> str:
        if not math.isfinite(result.loss):
            return f"the loss became {result.loss}"
        named = zip(self.run.names, result.gradients, strict=True)
        bad = next((name for name, g in named if not _finite(g)), None)
        return "" if bad is None else f"the gradient by {bad} became NaN or infinite"

    def _bad_weight(self) -> str | None:
        named = zip(self.run.names, self.run.params, strict=True)
        return next((name for name, p in named if not _finite(p.data)), None)

    def _cause(self, shards: list[Shard]) -> str:
        name = self._bad_weight()
        if name:
            return f"the weights {name} were no longer finite before this step"
        gather = self.run.stepper.work.gather
        if not all(_finite(array) for shard in shards for array in gather(shard)):
            return "the batch itself holds NaN or infinity, which the augmentation must have made"
        try:
            with detect_anomaly():
                self.run.compute(shards)
        except AnomalyError as error:
            where = "; ".join(getattr(error, "__notes__", []))
            return f"{error}{' (' + where + ')' if where else ''}"
        return "no single operation produced it; the objective or a sum of gradients did"

    def _late_cause(self) -> str:
        """Why a loss on a GPU may have gone wrong, some steps ago."""
        labels = self.run.train.arrays[1:2]
        if labels and labels[0].dtype.kind == "i" and labels[0].ndim == 1:
            highest = int(labels[0].max())
            if highest >= self._classes:
                return f"the labels go up to {highest}, but the model has {self._classes} outputs"
        return (
            "found afterwards, when the weights had moved on: go back to a checkpoint, and train "
            "on a CPU to see which operation it was"
        )


def _finite(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    xp = array_module(array)
    with on_device(array), np.errstate(all="ignore"):
        # NaN and infinity show in the sum of squares, which takes one pass. Numbers that are
        # merely large may make it infinite, too; only then is each of them looked at.
        if xp is np and math.isfinite(np.vdot(array, array)):
            return True
        return bool(xp.isfinite(array).all())
