"""Running totals of an epoch: what training itself saw, while the weights still moved."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np

from tinycompress.backend import Array
from tinycompress.train.step import StepResult


class Seen:
    """Sums over the batches so far. On a GPU they stay there until somebody reads them."""

    def __init__(self) -> None:
        self.count = 0
        self._loss: Any = 0.0
        self._correct: Any = 0
        self._classifies = True
        self._seconds = 0.0
        self._started: float | None = None

    def start_clock(self) -> None:
        self._started = time.perf_counter()

    def stop_clock(self) -> None:
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = None

    def add(self, result: StepResult, labels: Array | None) -> None:
        """Count one batch; its labels, where it has some."""
        n = len(result.outputs)
        self.count += n
        loss, outputs = result.loss, result.outputs
        on_cpu = isinstance(outputs, np.ndarray)
        self._loss = self._loss + (float(loss) if on_cpu else loss) * n
        if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or outputs.ndim != 2:
            self._classifies = False
            return
        correct = (outputs.argmax(axis=1) == labels).sum()
        self._correct = self._correct + (int(correct) if on_cpu else correct)

    @property
    def loss(self) -> float:
        """Mean loss per sample."""
        return float(self._loss) / max(self.count, 1)

    @property
    def accuracy(self) -> float | None:
        """Share of correct predictions; None where outputs and labels are not classes."""
        return int(self._correct) / max(self.count, 1) if self._classifies else None

    @property
    def seconds(self) -> float:
        """Time spent in this epoch's steps."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds + running

    @property
    def images_per_second(self) -> float:
        """Samples, whatever they are, per second of :attr:`seconds`."""
        return self.count / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, exactly."""
        return {
            "count": self.count,
            "loss": float(self._loss),
            "correct": int(self._correct),
            "classifies": self._classifies,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        seen = cls()
        seen.count, seen._loss, seen._correct = state["count"], state["loss"], state["correct"]
        seen._classifies, seen._seconds = state["classifies"], state["seconds"]
        return seen
