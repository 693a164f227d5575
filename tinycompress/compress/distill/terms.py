"""Terms: what a loss of distillation is added up from, each with its weight.

    DistillationObjective(4.0, 0.9, teacher, terms=[Hint("conv2", "conv2", 1e-3), Relations()])

A term is a description: which loss, how much of it, and of which layers. It computes from a
:class:`Lesson`, what a batch and one teacher give it. The losses are in files of their own
(``losses.py`` and those it names); ``objective.py`` adds the terms up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinycompress.compress.distill.attention import attention_transfer_loss
from tinycompress.compress.distill.decoupled import check_decoupled, decoupled_loss
from tinycompress.compress.distill.hints import hint_loss
from tinycompress.compress.distill.losses import (
    as_targets,
    check_weights,
    has_numbers,
    label_loss,
    soft_target_loss,
)
from tinycompress.compress.distill.matching import logit_matching_loss
from tinycompress.compress.distill.relations import (
    relational_angle_loss,
    relational_distance_loss,
)
from tinycompress.nn import Module
from tinycompress.optim.checks import non_negative
from tinycompress.tensor import Tensor


@dataclass(frozen=True)
class Lesson:
    """What a term learns from.

    Attributes:
        outputs: the student's logits (N, K).
        answers: a teacher's logits (N, K).
        labels: (N) integers, or targets (N, K) as in ``losses.py``.
        student_features, teacher_features: what the tapped layers gave, the adapter applied; None
            for a term without layers.
    """

    outputs: Tensor
    answers: Any
    labels: Any
    student_features: Any = None
    teacher_features: Any = None


class Term:
    """Base of the terms: ``term(lesson)`` is its weighted loss, one number.

    Attributes:
        weight: finite, ≥ 0.
        needs_answers: whether it compares with what teachers answer; of several teachers it is
            then the weighted mean.
    """

    weight: float
    needs_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_term_weight(self, "weight", self.weight)

    def __call__(self, lesson: Lesson) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class SoftTargets(Term):
    """``weight · T² · KL`` of softened probabilities (Hinton, Vinyals & Dean 2015).

    Args:
        weight: of this term.
        temperature: T > 0.
        without_label: the weight for samples whose label is missing; None: the same.
    """

    weight: float = 1.0
    temperature: float = 4.0
    without_label: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self.temperature, 1.0)
        if self.without_label is not None:
            check_term_weight(self, "without_label", self.without_label)

    def __call__(self, lesson: Lesson) -> Tensor:
        weight: Any = self.weight
        if self.without_label is not None and not has_numbers(lesson.labels):
            known = as_targets(lesson.labels).sum(axis=1)  # (N, K) -> (N)
            weight = self.without_label + (self.weight - self.without_label) * known
        return soft_target_loss(lesson.outputs, lesson.answers, self.temperature, weight)


@dataclass(frozen=True)
class Labels(Term):
    """``weight · CE`` with the labels, as if there were no teacher."""

    weight: float = 1.0
    needs_answers: ClassVar[bool] = False

    def __call__(self, lesson: Lesson) -> Tensor:
        return self.weight * label_loss(lesson.outputs, lesson.labels)


@dataclass(frozen=True)
class LogitMatching(Term):
    """``weight · ½ ‖z_s − z_t‖²`` (Ba & Caruana 2014)."""

    weight: float = 1.0

    def __call__(self, lesson: Lesson) -> Tensor:
        return self.weight * logit_matching_loss(lesson.outputs, lesson.answers)


@dataclass(frozen=True)
class Decoupled(Term):
    """``weight · T² · (α · how sure + β · the other classes)`` (Zhao et al. 2022)."""

    weight: float = 1.0
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self.temperature, 1.0)
        check_decoupled(self.alpha, self.beta)

    def __call__(self, lesson: Lesson) -> Tensor:
        loss = decoupled_loss(
            lesson.outputs, lesson.answers, lesson.labels, self.temperature, self.alpha, self.beta
        )
        return self.weight * loss


@dataclass(frozen=True)
class FeatureTerm(Term):
    """Base of the terms that compare a layer of the student with one of the teacher.

    Args:
        student_layer, teacher_layer: dotted names; what these layers give out is compared.
        weight: of this term.
        teacher: which of several teachers, from 0.
    """

    student_layer: str | None
    teacher_layer: str | None
    weight: float = 1.0
    teacher: int = 0
    needs_answers: ClassVar[bool] = False
    logits_will_do: ClassVar[bool] = False  # where no layer is named

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.teacher, bool) or not isinstance(self.teacher, int) or self.teacher < 0:
            raise ValueError(f"{self!r}: teacher is the number of a teacher, from 0")
        layers = (self.student_layer, self.teacher_layer)
        for layer in layers:
            if not (isinstance(layer, str) or (layer is None and self.logits_will_do)):
                raise TypeError(f"{self!r}: a layer is named by a string, got {layer!r}")
        if layers.count(None) == 1:
            raise ValueError(f"{self!r}: name a layer of both, or of neither")


@dataclass(frozen=True)
class Hint(FeatureTerm):
    """``weight · ½ ‖f_t − r(f_s)‖²`` (FitNets, Romero et al. 2015).

    Args:
        student_layer, teacher_layer, weight, teacher: as for every such term.
        adapter: the learned map r. "auto": the convolution or linear layer that makes the shapes
            fit (``adapters.py``); a module of yours, of which a copy is trained; None for none,
            where the shapes are the same.
    """

    student_layer: str
    teacher_layer: str
    weight: float = 1.0
    teacher: int = 0
    adapter: str | Module | None = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.adapter in ("auto", None) or isinstance(self.adapter, Module)):
            raise ValueError(
                f'Hint: adapter must be "auto", a module or None, got {self.adapter!r}'
            )

    def __call__(self, lesson: Lesson) -> Tensor:
        return self.weight * hint_loss(lesson.student_features, lesson.teacher_features)


@dataclass(frozen=True)
class Attention(FeatureTerm):
    """``weight · ½ ‖Q_s − Q_t‖²`` of attention maps (Zagoruyko & Komodakis 2017)."""

    student_layer: str
    teacher_layer: str

    def __call__(self, lesson: Lesson) -> Tensor:
        loss = attention_transfer_loss(lesson.student_features, lesson.teacher_features)
        return self.weight * loss


@dataclass(frozen=True)
class Relations(FeatureTerm):
    """``weight · (distance · L_distance + angle · L_angle)`` (RKD, Park et al. 2019).

    Args:
        student_layer, teacher_layer: None (both): the logits.
        weight, teacher: as for every such term; the logits are those of this teacher.
        distance, angle: weights ≥ 0 of the two; the paper's are 1 to 2.
    """

    student_layer: str | None = None
    teacher_layer: str | None = None
    weight: float = 1.0
    teacher: int = 0
    distance: float = 1.0
    angle: float = 2.0
    logits_will_do: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_term_weight(self, "distance", self.distance)
        check_term_weight(self, "angle", self.angle)

    def __call__(self, lesson: Lesson) -> Tensor:
        f_s, f_t = lesson.student_features, lesson.teacher_features
        if self.student_layer is None:
            f_s, f_t = lesson.outputs, lesson.answers
        distance = self.distance * relational_distance_loss(f_s, f_t)
        if not self.angle:
            return self.weight * distance
        return self.weight * (distance + self.angle * relational_angle_loss(f_s, f_t))


def check_term_weight(term: Term, name: str, value: float) -> None:
    """Raise unless ``value`` is a finite number ≥ 0."""
    non_negative(f"{type(term).__name__}: {name}", value)
