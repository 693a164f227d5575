"""Distillation as an objective of ``fit``, and the teacher's logits as part of the data.

A teacher that always sees the same images always answers the same, so its logits are computed once
and travel as one more array of the data set. Under augmentation every batch is new, and the teacher
answers inside the objective. Read ``losses.py`` and ``train/objective.py`` first.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import to_device
from tinycompress.compress.distill.losses import check_weights, distillation_loss
from tinycompress.data import Dataset
from tinycompress.graph import no_grad
from tinycompress.nn import Module
from tinycompress.tensor import Tensor
from tinycompress.train.evaluate import predict
from tinycompress.train.workers import Workers


class DistillationObjective:
    """``objective(student, images, labels, …, teacher_logits) -> (loss, student_logits)``.

    Args:
        temperature: T > 0.
        alpha: the share of the teacher, 0 … 1.
        teacher: None if the last array of the batch is the teacher's logits (see
            :func:`with_teacher_logits`); else a model that is asked for each batch. It is copied,
            and the copy answers in evaluation mode and without recording.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self, temperature: float = 4.0, alpha: float = 0.9, teacher: Module | None = None
    ) -> None:
        check_weights(temperature, alpha)
        self.temperature, self.alpha = temperature, alpha
        self.teacher = None if teacher is None else teacher.copy().eval()

    def __call__(
        self, model: Module, images: Any, labels: Any, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        outputs = model(images)
        teacher_logits = self._teacher_logits(images, rest)
        return (
            distillation_loss(outputs, teacher_logits, labels, self.temperature, self.alpha),
            outputs,
        )

    def _teacher_logits(self, images: Any, rest: tuple[Any, ...]) -> Any:
        if self.teacher is not None:
            with no_grad():
                return self.teacher(images)
        if not rest:
            raise ValueError(
                "DistillationObjective: the batch holds no teacher logits; train on "
                "with_teacher_logits(teacher, data), or give DistillationObjective(teacher=…)"
            )
        return rest[-1]


def with_teacher_logits(
    teacher: Module, data: Dataset, *, workers: Workers | int | None = None
) -> Dataset:
    """``data`` with the teacher's logits (N, K), computed in evaluation mode, as its last array."""
    logits = predict(teacher, data.images, workers=workers)
    return data.with_array(to_device(logits, data.device))
