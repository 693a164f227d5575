"""Distillation: a small student learns what a trained teacher answers, beside the labels.

The loop is ``fit``; what is new is the objective. To keep the history of the training, or to train
a student in place, say the same in two lines::

    data = with_teacher_logits(teacher, train)
    history = fit(student, data, epochs, optimizer, objective=DistillationObjective(4.0, 0.9))

Read ``losses.py`` and ``objective.py`` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinycompress import optim
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.distill.objective import DistillationObjective, with_teacher_logits
from tinycompress.data import Dataset
from tinycompress.nn import Module, Parameter
from tinycompress.train.evaluate import predict
from tinycompress.train.fit import fit

MakeOptimizer = Callable[[Iterator[Parameter]], optim.Optimizer]


def distill(
    teacher: Module,
    student: Module,
    data: Dataset,
    *,
    epochs: int,
    temperature: float = 4.0,
    alpha: float = 0.9,
    optimizer: MakeOptimizer | None = None,
    schedule: Callable[[optim.Optimizer], Any] | None = None,
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
        optimizer: a function that makes one for the copy's parameters, such as
            ``lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9)``; None for Adam.
        schedule: a function that makes one for that optimizer.
        fit_options: whatever else ``fit`` takes: ``validate``, ``batch_size``, ``augment``,
            ``callbacks``, ``seed``, ``workers``, ``checkpoint``, ``progress`` …

    Raises:
        ValueError: ``temperature`` or ``alpha`` out of range, or other numbers of classes.
        TypeError: an optimizer or schedule that was made already, for other parameters.
    """
    check_weights(temperature, alpha)
    if "objective" in fit_options:
        raise TypeError("distill brings its own objective; for another one, use fit")
    _check_made_later("optimizer", optimizer)
    _check_made_later("schedule", schedule)
    _check_classes(teacher, student, data)
    pupil = student.copy()
    made = (optimizer or optim.Adam)(pupil.parameters())
    if fit_options.get("augment") is None:
        data = with_teacher_logits(teacher, data, workers=fit_options.get("workers"))
        objective = DistillationObjective(temperature, alpha)
    else:
        there = teacher.copy().to(pupil.device)
        objective = DistillationObjective(temperature, alpha, there)
    planned = None if schedule is None else schedule(made)
    fit(pupil, data, epochs, made, objective=objective, schedule=planned, **fit_options)
    return pupil


def _check_made_later(name: str, given: Any) -> None:
    if given is not None and not callable(given):
        raise TypeError(
            f"distill: {name} must be a function that makes one, because a copy of the student is "
            f"trained: {name}=lambda … instead of a {type(given).__name__}"
        )


def _check_classes(teacher: Module, student: Module, data: Dataset) -> None:
    """Ask both for one image, before the teacher answers for all of them."""
    one = data.images[:1]
    z_t, z_s = predict(teacher, one, workers=1), predict(student, one, workers=1)
    if z_t.shape != z_s.shape:
        raise ValueError(
            f"distill: the teacher tells {z_t.shape[1]} classes apart, the student "
            f"{z_s.shape[1]}; give the student as many outputs"
        )
