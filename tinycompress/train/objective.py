"""What training makes small: ``objective(model, *batch) -> (loss, outputs)``.

``batch`` is what the data set holds for these samples (images, labels, and whatever was added, such
as a teacher's logits); ``loss`` is a tensor of one number, the mean over the batch; ``outputs`` are
the model's, from which accuracy is counted. Distillation is another objective, not another loop.

An objective keeps nothing from one call to the next: it is called for each shard of a batch, in
several processes at once, and what it counted in one of them nobody else would see. What is to
change in the course of a training (a temperature, a weight) is an attribute that a callback sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinycompress import functional as F
from tinycompress.nn import Module
from tinycompress.tensor import Tensor

Objective = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Supervised:
    """The usual objective: ``criterion(model(images), labels)``.

    Args:
        criterion: a function of (outputs, labels) that gives the mean loss of the batch, such as
            ``F.cross_entropy``. Further arrays of the data set are ignored.
    """

    criterion: Callable[..., Tensor] = F.cross_entropy

    def __call__(
        self, model: Module, images: Any, labels: Any, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        outputs = model(images)
        return self.criterion(outputs, labels), outputs
