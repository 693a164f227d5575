"""Validate and compare: how right teacher and student are, and how often they say the same.

The article's third step of distillation. Agreement counts wrong answers too: a student that repeats
its teacher's mistakes has learned from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinycompress.backend import to_numpy
from tinycompress.compress.answers import check_finite, check_labels, labels_of
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
    """Run both models over ``data`` in evaluation mode.

    Raises:
        TypeError, ValueError: labels that are no class numbers of both models, models that tell
            other classes apart, or one that answers NaN or infinity, which is no class.
    """
    check_labels("compare", data)
    z_t, z_s = (
        to_numpy(predict(model, data.images, workers=workers)) for model in (teacher, student)
    )
    check_same_classes("compare", z_t, z_s)
    for who, z in (("teacher", z_t), ("student", z_s)):
        check_finite(f"compare: the {who}", z, "which is no class")
    labels = labels_of("compare", data, z_t.shape[1])
    by_teacher, by_student = z_t.argmax(axis=1), z_s.argmax(axis=1)
    return Comparison(
        teacher_accuracy=_share(by_teacher == labels),
        student_accuracy=_share(by_student == labels),
        agreement=_share(by_teacher == by_student),
        count=len(labels),
    )


def check_same_classes(verb: str, z_t: np.ndarray, z_s: np.ndarray) -> None:
    """Raise where teacher and student tell other numbers of classes apart."""
    if z_t.shape[1] != z_s.shape[1]:
        raise ValueError(
            f"{verb}: the teacher tells {z_t.shape[1]} classes apart, the student {z_s.shape[1]}"
        )


def _share(hits: np.ndarray) -> float:
    return float(hits.mean())
