"""Validate and compare: how right teacher and student are, and how often they say the same.

The article's third step of distillation. Agreement counts wrong answers too: a student that repeats
its teacher's mistakes has learned from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinycompress.backend import to_numpy
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.train.evaluate import predict
from tinycompress.train.workers import Workers


@dataclass(frozen=True)
class Comparison:
    """Measured on ``count`` samples; all shares are 0 … 1.

    Attributes:
        teacher_accuracy: how often the teacher's largest output is the label.
        student_accuracy: the same of the student.
        agreement: how often both choose the same class, right or wrong.
    """

    teacher_accuracy: float
    student_accuracy: float
    agreement: float
    count: int


def compare(
    teacher: Module, student: Module, data: Dataset, *, workers: Workers | int | None = None
) -> Comparison:
    """Run both models over ``data`` in evaluation mode."""
    labels = to_numpy(data.labels)
    by_teacher, by_student = (
        to_numpy(predict(model, data.images, workers=workers)).argmax(axis=1)
        for model in (teacher, student)
    )
    return Comparison(
        teacher_accuracy=_share(by_teacher == labels),
        student_accuracy=_share(by_student == labels),
        agreement=_share(by_teacher == by_student),
        count=len(labels),
    )


def _share(hits: np.ndarray) -> float:
    return float(hits.mean())
