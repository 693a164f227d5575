"""A recipe for full MNIST: the article's CNN, SGD with momentum, one cycle of the learning rate."""

from __future__ import annotations

import math
from typing import NamedTuple


class Recipe(NamedTuple):
    """What stands in the hands of whoever trains.

    Attributes:
        epochs: passes over the training set; the last may be cut short.
        batch: samples per update.
        max_lr: the top of the cycle (``optim.OneCycleLR``, the same in torch).
        warm_up: the share of the steps on the way up.
        momentum: held, not cycled.
    """

    epochs: int
    batch: int
    max_lr: float
    warm_up: float = 0.2
    momentum: float = 0.9

    def steps(self, samples: int) -> int:
        return self.epochs * math.ceil(samples / self.batch)

    def __str__(self) -> str:
        return f"{self.epochs} epochs, batch {self.batch}, top rate {self.max_lr}"
