"""Distillation: a small student learns what trained teachers answer, beside the labels.

The loop is ``fit``; what is new is the objective. To keep the history of the training, or to train
a student in place, say the same in two lines::

    data = with_teacher_logits(teacher, train)
    history = fit(student, data, epochs, optimizer, objective=DistillationObjective(4.0, 0.9))

A student that is prepared for quantization, or pruned by a callback, learns like any other: what it
computes is what the loss sees. Read ``losses.py`` and ``objective.py`` first.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinycompress import optim
from tinycompress.backend import array_module, on_device, to_numpy
from tinycompress.compress.answers import check_finite, labels_of
from tinycompress.compress.distill.adapters import learned_adapters
from tinycompress.compress.distill.objective import (
    DistillationObjective,
    Teachers,
    checked_terms,
    fingerprint,
    teacher_list,
    teacher_shares,
    with_teacher_logits,
)
from tinycompress.compress.distill.taps import tapped_layer
from tinycompress.compress.distill.terms import FeatureTerm, Term
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.train.evaluate import has_classes, predict
from tinycompress.train.fit import fit


def distill(
    teacher: Teachers,
    student: Module,
    data: Dataset,
    *,
    epochs: int,
    temperature: float = 4.0,
    alpha: float | None = 0.9,
    terms: Sequence[Term] | None = None,
    teacher_weights: Sequence[float] | None = None,
    optimizer: optim.Optimizer | None = None,
    schedule: Any = None,
    **fit_options: Any,
) -> Module:
    """A trained copy of ``student``, which learned from the teacher's answers and the labels.

    The loss is that of Hinton et al. 2015, see ``losses.py``, and the ``terms``. Teachers and
    ``student`` are left as they are. The teacher's logits are computed once, or batch by batch
    under augmentation and where a term looks at its layers.

    Args:
        teacher: a trained model, or several; they answer in evaluation mode.
        student: any model with the same classes, usually smaller and not yet trained.
        data: images and labels. Labels may be targets (N, K) with rows of zeros where one is
            missing (``transfer.py``), or be missing altogether.
        epochs: passes over ``data``.
        temperature: T > 0, how much the probabilities are softened; 2 to 10 are usual.
        alpha: the share of the teacher in the loss, 0 … 1; the labels have the rest. Where a label
            is missing the teacher has all of it, whatever alpha is. None: the terms alone are the
            loss.
        terms: further terms, such as ``Hint("conv2", "conv2", weight=1e-3)``, see ``terms.py``.
            Adapters of hints are learned with the student and left behind.
        teacher_weights: of several teachers, ≥ 0, in any unit; None: alike.
        optimizer: over the parameters of ``student``, as for ``fit``; None for Adam. Adapters get
            the options of its last group.
        schedule: made for ``optimizer``. Both are copied together with the student.
        fit_options: whatever else ``fit`` takes: ``validate``, ``batch_size``, ``augment``,
            ``callbacks``, ``seed``, ``workers``, ``checkpoint``, ``progress`` …

    Raises:
        TypeError, ValueError: a number out of range, other numbers of classes, images that a model
            does not take, a teacher that answers NaN, a student of which nothing can be trained,
            layers that are not there, or what ``fit`` refuses.
    """
    if "objective" in fit_options:
        raise TypeError("distill brings its own objective; for another one, use fit")
    unknown = sorted(set(fit_options) - set(inspect.signature(fit).parameters))
    if unknown:
        raise TypeError(f"distill: neither distill nor fit has an option {unknown[0]!r}")
    _check_arguments(student, data)
    teachers = teacher_list(teacher)
    shares = teacher_shares(teacher_weights, len(teachers))
    terms = checked_terms(terms)
    asked = fit_options.get("augment") is not None or any(_looks_at_layers(t) for t in terms)
    objective = DistillationObjective(
        temperature, alpha, teachers if asked else None, terms, shares
    )
    _check_layers(student, terms)
    data = with_labels(data, _check_classes(teachers, student, data))
    # In one go, so that the copied optimizer holds the copied student's parameters.
    pupil, optimizer, schedule = copy.deepcopy((student, optimizer, schedule))
    if asked:
        for model in objective.teachers:
            model.to(pupil.device)
    else:
        data = with_teacher_logits(teachers, data, workers=fit_options.get("workers"))
        objective.taught_by = [fingerprint(model) for model in teachers]
    with learned_adapters(objective, pupil, data.images, optimizer):
        fit(pupil, data, epochs, optimizer, objective=objective, schedule=schedule, **fit_options)
    return pupil


def _check_arguments(student: Module, data: Dataset) -> None:
    if not isinstance(student, Module):
        raise TypeError(f"distill: student must be a model, got a {type(student).__name__}")
    if not isinstance(data, Dataset):
        raise TypeError(f"distill: data must be a tc.data.Dataset, got {type(data).__name__}")
    if not any(p.requires_grad for p in student.parameters()):  # an adapter alone could learn
        raise ValueError(
            "distill: the student has no parameter that can be trained: it has none, or all are "
            "frozen (requires_grad is False)"
        )


def with_labels(data: Dataset, classes: int) -> Dataset:
    """``data``; where it has images alone, with targets (N, K) that say that nobody knows.

    Raises:
        ValueError: targets of another shape, or rows that are no shares of the classes.
    """
    if len(data.arrays) > 1:
        check_targets("distill", data, classes)
        return data
    with on_device(data.images):
        nothing = array_module(data.images).zeros((len(data), classes), data.images.dtype)
    return Dataset(data.images, nothing, name=data.name)


def check_targets(verb: str, data: Dataset, classes: int) -> None:
    """Raise where the labels of ``data`` are neither numbers of classes (N,) nor shares of them."""
    if has_classes(data):
        labels_of(verb, data, classes)
        return
    targets = to_numpy(data.labels)
    if targets.ndim != 2 or targets.shape[1] != classes or targets.dtype.kind not in "fb":
        raise ValueError(
            f"{verb}: labels must be class numbers (N,) or targets (N, {classes}) of shares, got "
            f"{targets.shape} of {targets.dtype}"
        )
    sums = targets.sum(axis=1)
    bad = (targets < 0).any(axis=1) | ((abs(sums - 1) > 1e-3) & (sums != 0))
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{verb}: a row of targets must be shares ≥ 0 that add up to 1, or zeros where the "
            f"label is missing; row {first} is {targets[first]}"
        )


def _looks_at_layers(term: Term) -> bool:
    return isinstance(term, FeatureTerm) and term.student_layer is not None


def _check_layers(student: Module, terms: Sequence[Term]) -> None:
    for term in terms:
        if isinstance(term, FeatureTerm) and term.student_layer is not None:
            tapped_layer(student, term.student_layer)


def _check_classes(teachers: Sequence[Module], student: Module, data: Dataset) -> int:
    """Ask all for one image, before the teachers answer for all of them; how many classes."""
    z_s = asked_once("distill: the student", student, data)
    for teacher in teachers:
        z_t = asked_once("distill: the teacher", teacher, data)
        check_finite("distill: the teacher", z_t, "which nobody can learn from")
        if z_t.shape != z_s.shape:
            raise ValueError(
                f"distill: the teacher tells {z_t.shape[1]} classes apart, the student "
                f"{z_s.shape[1]}; give the student as many outputs"
            )
    return z_s.shape[1]


def asked_once(who: str, model: Module, data: Dataset) -> np.ndarray:
    """What a model answers for the first image, (1, K); what it refuses is refused by name."""
    one = data.images[:1]
    try:
        return to_numpy(predict(model, one, workers=1))
    except (TypeError, ValueError) as error:
        refused = ValueError(
            f"{who} does not take these images, {one.dtype} {one.shape[1:]}: {error}"
        )
        for note in getattr(error, "__notes__", ()):  # in which layer
            refused.add_note(note)
        raise refused from error
