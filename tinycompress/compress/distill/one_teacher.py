"""Distillation: a small student learns what a trained teacher answers, beside the labels.

The loop is ``fit``; what is new is the objective. To keep the history of the training, or to train
a student in place, say the same in two lines::

    data = with_teacher_logits(teacher, train)
    history = fit(student, data, epochs, optimizer, objective=DistillationObjective(4.0, 0.9))

Read ``losses.py`` and ``objective.py`` first.
"""

from __future__ import annotations

import copy
from typing import Any

from tinycompress import optim
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.distill.objective import DistillationObjective, with_teacher_logits
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.train.evaluate import predict
from tinycompress.train.fit import fit


def distill(
    teacher: Module,
    student: Module,
    data: Dataset,
    *,
    epochs: int,
    temperature: float = 4.0,
    alpha: float = 0.9,
    optimizer: optim.Optimizer | None = None,
    schedule: Any = None,
    **fit_options: Any,
) -> Module:
    """A trained copy of ``student``, which learned from the teacher's answers and the labels.

    The loss is that of Hinton et al. 2015, see ``losses.py``. ``teacher`` and ``student`` are left
    as they are. The teacher's logits are computed once, or batch by batch under augmentation.

    Args:
        teacher: a trained model; it answers in evaluation mode.
        student: any model with the same classes, usually smaller and not yet trained.
        data: images and labels.
        epochs: passes over ``data``.
        temperature: T > 0, how much the probabilities are softened; 2 to 10 are usual.
        alpha: the share of the teacher in the loss, 0 … 1; the labels have the rest.
        optimizer: over the parameters of ``student``, as for ``fit``; None for Adam.
        schedule: made for ``optimizer``. Both are copied together with the student.
        fit_options: whatever else ``fit`` takes: ``validate``, ``batch_size``, ``augment``,
            ``callbacks``, ``seed``, ``workers``, ``checkpoint``, ``progress`` …

    Raises:
        ValueError: ``temperature`` or ``alpha`` out of range, other numbers of classes, or
            what ``fit`` refuses.
    """
    check_weights(temperature, alpha)
    if "objective" in fit_options:
        raise TypeError("distill brings its own objective; for another one, use fit")
    _check_classes(teacher, student, data)
    # In one go, so that the copied optimizer holds the copied student's parameters.
    pupil, optimizer, schedule = copy.deepcopy((student, optimizer, schedule))
    if fit_options.get("augment") is None:
        data = with_teacher_logits(teacher, data, workers=fit_options.get("workers"))
        objective = DistillationObjective(temperature, alpha)
    else:
        there = teacher.copy().to(pupil.device)
        objective = DistillationObjective(temperature, alpha, there)
    fit(pupil, data, epochs, optimizer, objective=objective, schedule=schedule, **fit_options)
    return pupil


def _check_classes(teacher: Module, student: Module, data: Dataset) -> None:
    """Ask both for one image, before the teacher answers for all of them."""
    one = data.images[:1]
    z_t, z_s = predict(teacher, one, workers=1), predict(student, one, workers=1)
    if z_t.shape != z_s.shape:
        raise ValueError(
            f"distill: the teacher tells {z_t.shape[1]} classes apart, the student "
            f"{z_s.shape[1]}; give the student as many outputs"
        )
