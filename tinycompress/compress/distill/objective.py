"""Distillation as an objective of ``fit``, and the teacher's logits as part of the data.

    loss = α · T² · KL + (1 − α) · CE  +  Σ over the further terms

A teacher that always sees the same images always answers the same, so its logits are computed once
and travel as one more array of the data set. Under augmentation every batch is new, and the teacher
answers inside the objective; so it does where a term looks at its layers. Several teachers have
weights that add up to 1, and each term that compares with answers is the weighted mean over them.
As Σ w_i KL(p_i ‖ q) is KL(Σ w_i p_i ‖ q) and a constant, the student is drawn towards the mean of
their softened probabilities.

Read ``losses.py``, ``terms.py`` and ``train/objective.py`` first, and ``taps.py`` where layers are
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from numbers import Real
from typing import Any, TypeGuard

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.answers import check_finite
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.distill.taps import Taps, tapped_layer
from tinycompress.compress.distill.terms import (
    FeatureTerm,
    Hint,
    Labels,
    Lesson,
    SoftTargets,
    Term,
)
from tinycompress.data import Dataset
from tinycompress.graph import no_grad
from tinycompress.nn import Module
from tinycompress.tensor import Tensor
from tinycompress.train.checkpoint import checksum_of
from tinycompress.train.evaluate import predict
from tinycompress.train.workers import Workers

Teachers = Module | Sequence[Module]


class DistillationObjective:
    """``objective(student, images, labels, …, teacher_logits) -> (loss, student_logits)``.

    Args:
        temperature: T > 0.
        alpha: the share of the teacher, 0 … 1. Where a sample's label is missing it is 1
            (``losses.py``). None: no such formula, the terms alone are the loss.
        teacher: None if the last array of the batch is the teacher's logits (see
            :func:`with_teacher_logits`), or the last ones those of several; else a model, or
            several, that are asked for each batch. They are copied, and the copies answer in
            evaluation mode and without recording.
        terms: what else is added, see ``terms.py``.
        teacher_weights: ≥ 0, one for each teacher; they are divided by their sum. None: alike.
            With cached logits it tells how many teachers there are.

    Attributes:
        terms: all of the loss, the formula's two included.
        adapters: the learned maps of hints, by the place of their term (``adapters.py``).
        taught_by: who the teachers are (:func:`fingerprint`). With cached logits only whoever
            computed them can say: it is empty until it is set, as :func:`distill` does.

    Raises:
        TypeError, ValueError: a number out of range, something that is no term or no model, or a
            layer that a teacher does not have.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float | None = 0.9,
        teacher: Teachers | None = None,
        terms: Sequence[Term] | None = None,
        teacher_weights: Sequence[float] | None = None,
    ) -> None:
        check_weights(temperature, 1.0 if alpha is None else alpha)
        self.temperature, self.alpha = temperature, alpha
        formula: list[Term] = []
        if alpha is not None:
            formula = [SoftTargets(alpha, temperature, without_label=1.0), Labels(1 - alpha)]
        self.terms = [*formula, *checked_terms(terms)]
        if not self.terms:
            raise ValueError("DistillationObjective: without alpha there must be terms")
        models = [] if teacher is None else teacher_list(teacher)
        self.weights = teacher_shares(teacher_weights, len(models) or None)
        self.teachers = [model.copy().eval() for model in models]
        self.taught_by = [fingerprint(model) for model in models]
        self.adapters: dict[int, Module] = {}
        self._check_terms()

    @property
    def needs_layers(self) -> bool:
        """Whether a term looks at layers, so that teachers have to run beside the student."""
        return any(_tapped(term) for term in self.terms)

    def __call__(
        self, model: Module, images: Any, labels: Any, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        student = self._taps_of_student(model)
        with student or nullcontext():
            outputs = model(images)
        answers, taps = self._asked(images, rest)
        total: Any = None
        for place, term in enumerate(self.terms):
            features = self._features(place, term, student, taps)
            for share, answer in self._heard_by(term, answers):
                loss = _lost(term, Lesson(outputs, answer, labels, *features))
                loss = loss if share == 1 else share * loss
                total = loss if total is None else total + loss
        return total, outputs

    def features(self, model: Module, images: Any) -> dict[int, tuple[Tensor, Tensor]]:
        """What the layers of each feature term give for these images, before any adapter."""
        student = self._taps_of_student(model)
        with student or nullcontext():
            model(images)
        _, taps = self._asked(images, ())
        found = {}
        for place, term in enumerate(self.terms):
            if _tapped(term) and student is not None:
                theirs = taps[term.teacher][str(term.teacher_layer)]
                found[place] = student[str(term.student_layer)], theirs
        return found

    def __repr__(self) -> str:
        """What a checkpoint knows of it: the loss, and who the teachers are."""
        teachers = self.taught_by or "cached"
        return f"DistillationObjective({self.terms}, teachers={teachers}, weights={self.weights})"

    # ------------------------------------------------------------------------------ inside a step

    def _taps_of_student(self, model: Module) -> Taps | None:
        names = [str(term.student_layer) for term in self.terms if _tapped(term)]
        return Taps(model, names) if names else None

    def _asked(self, images: Any, rest: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        """Every teacher's logits, and its taps."""
        if not self.teachers:
            if len(rest) < len(self.weights):
                raise ValueError(
                    "DistillationObjective: the batch holds no teacher logits; train on "
                    "with_teacher_logits(teacher, data), or give DistillationObjective(teacher=…)"
                )
            return list(rest[-len(self.weights) :]), []
        answers, taps = [], []
        with no_grad():
            for number, teacher in enumerate(self.teachers):
                with Taps(teacher, self._names_in_teacher(number)) as tap:
                    answers.append(teacher(images))
                taps.append(tap)
        return answers, taps

    def _names_in_teacher(self, number: int) -> list[str]:
        tapped = [term for term in self.terms if _tapped(term)]
        return [str(term.teacher_layer) for term in tapped if term.teacher == number]

    def _features(
        self, place: int, term: Term, student: Taps | None, taps: list[Any]
    ) -> tuple[Any, ...]:
        if student is None or not _tapped(term):
            return ()
        f_s = student[str(term.student_layer)]
        if isinstance(term, Hint) and term.adapter:
            if place not in self.adapters:
                raise ValueError(
                    "DistillationObjective: the adapter of a Hint is made and trained inside "
                    "learned_adapters(objective, student, images, optimizer); distill() does it"
                )
            f_s = self.adapters[place](f_s)
        return f_s, taps[term.teacher][str(term.teacher_layer)]

    def _heard_by(self, term: Term, answers: list[Any]) -> list[tuple[float, Any]]:
        """(share, answers) of the teachers with which a term compares."""
        if term.needs_answers:
            return list(zip(self.weights, answers, strict=True))
        return [(1.0, answers[term.teacher if isinstance(term, FeatureTerm) else 0])]

    # ------------------------------------------------------------------------------------- checks

    def _check_terms(self) -> None:
        for term in self.terms:
            if not isinstance(term, FeatureTerm):
                continue
            if term.teacher >= len(self.weights):
                raise ValueError(
                    f"{term!r}: the last teacher is number {len(self.weights) - 1}, counted from 0"
                )
            if _tapped(term) and not self.teachers:
                raise ValueError(
                    f"{term!r} looks at a teacher's layer: give DistillationObjective(teacher=…)"
                )
            if _tapped(term):
                tapped_layer(self.teachers[term.teacher], str(term.teacher_layer))


def _tapped(term: Term) -> TypeGuard[FeatureTerm]:
    """Whether it looks at layers, and not at logits alone."""
    return isinstance(term, FeatureTerm) and term.student_layer is not None


def checked_terms(terms: Sequence[Term] | Term | None) -> list[Term]:
    """A list of terms, or a ``TypeError``."""
    if isinstance(terms, Term):
        return [terms]
    given = list(terms) if isinstance(terms, Iterable) else [] if terms is None else [terms]
    for term in given:
        if not isinstance(term, Term):
            kind = f"the class {term.__name__}" if isinstance(term, type) else repr(term)
            raise TypeError(
                f"terms must be terms of compress/distill/terms.py, such as Hint(…), got {kind}"
            )
    return given


def teacher_list(teacher: Any) -> list[Module]:
    """One model or several as a list, or a ``TypeError``."""
    if isinstance(teacher, Module):
        return [teacher]
    if not isinstance(teacher, Iterable):
        raise TypeError(f"teacher must be a model or several, got a {type(teacher).__name__}")
    models = list(teacher)
    if not models:
        raise ValueError("teacher: the list of teachers is empty")
    for model in models:
        if not isinstance(model, Module):
            raise TypeError(f"teacher must be a model or several, got a {type(model).__name__}")
    return models


def fingerprint(model: Module) -> str:
    """Class and CRC-32 of its layers, and of all that it learned, by which a resumed run knows its
    teacher again."""
    layers = [(name, type(m).__name__, m.config()) for name, m in model.named_modules()]
    learned = {name: to_numpy(array) for name, array in model.state_dict().items()}
    return f"{type(model).__name__} {checksum_of(repr(layers), learned):08x}"


def _lost(term: Term, lesson: Lesson) -> Tensor:
    """The term's loss; what it refuses of layers, it refuses with their names."""
    if not _tapped(term):
        return term(lesson)
    try:
        return term(lesson)
    except ValueError as error:
        raise ValueError(
            f"{type(term).__name__} of the student's {term.student_layer!r} and the teacher's "
            f"{term.teacher_layer!r}: {error}"
        ) from error


def teacher_shares(weights: Sequence[float] | None, count: int | None) -> list[float]:
    """Weights of ``count`` teachers (None: as many as there are weights, or 1) with sum 1."""
    if weights is None:
        return [1 / (count or 1)] * (count or 1)
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        raise TypeError(f"teacher_weights must be a list of numbers, got {weights!r}")
    given = list(weights)
    if not all(isinstance(w, Real) and not isinstance(w, bool) for w in given):
        raise TypeError(f"teacher_weights must be a list of numbers, got {weights!r}")
    given = [float(w) for w in given]
    if not all(w >= 0 for w in given) or not 0 < sum(given) < math.inf:
        raise ValueError(
            f"teacher_weights must be numbers ≥ 0 with a finite sum above 0, got {weights!r}"
        )
    if count is not None and len(given) != count:
        teachers = "1 teacher" if count == 1 else f"{count} teachers"
        raise ValueError(f"teacher_weights: {len(given)} weights for {teachers}")
    return [w / sum(given) for w in given]


def with_teacher_logits(
    teacher: Teachers, data: Dataset, *, workers: Workers | int | str | None = None
) -> Dataset:
    """``data`` with the teacher's logits (N, K), computed in evaluation mode, as its last array.

    Of several teachers: one array each, in their order.

    Raises:
        ValueError: a teacher that answers NaN or infinity; names the first image.
    """
    for model in teacher_list(teacher):
        logits = predict(model, data.images, workers=workers)
        check_finite("the teacher", to_numpy(logits), "which nobody can learn from")
        data = data.with_array(to_device(logits, data.device))
    return data
