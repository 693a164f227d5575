"""The loss of distillation: match the teacher's softened probabilities, and the labels a little.

    L = α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)) + (1 − α) · CE(z_s, y)

z_t and z_s are the logits (N, K) of teacher and student, y the labels (N).

**One convention of reduction, for every loss in this folder**: the *sum* over all that belongs to
one comparison (classes, features, positions), as its paper has it, and the *mean* over the
comparisons. A comparison is a sample of the batch; where relations between samples are compared
(``relations.py``), it is a pair or a triple of them. So no loss depends on the batch's size.

Why a temperature: a trained teacher is nearly certain, so its probabilities hardly tell a label
apart. Divided by T > 1 they show what else the image looks like, which is what it knows and a label
does not. Why T²: the derivative of the KL by z_s is (softmax(z_s / T) − softmax(z_t / T)) / T. For
large T, eˣ ≈ 1 + x makes softmax(z / T) ≈ (1 + z / T) / K where the logits of a sample have mean 0,
so the derivative falls as 1/T². Times T² it tends to (z_s − z_t) / K, the derivative of a squared
difference of logits (``matching.py``), and α means the same at every temperature.

The second derivative, diag(q) − q qᵀ with q = softmax(z_s / T), stays large where that of the
labels' part dies out, because softened probabilities are never near 0 or 1. So the loss is curved
more, and the best learning rate is smaller than for training on labels alone.

Labels may be missing. Then y is a matrix of *targets* (N, K): the one-hot row of a class, or zeros
where nobody knows (``transfer.py`` makes them). CE(z, y) = −Σ y ln softmax(z) is 0 for such a row
by itself, and the teacher has the whole weight there: α becomes 1.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, sections 2 and 2.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import functional as F
from tinycompress.optim.checks import positive, unit_interval
from tinycompress.tensor import Tensor, as_float_tensor, as_tensor

COLDEST, HOTTEST = 1e-18, 1e18  # float32 holds their squares, and no logit divided by them is ∞


def distillation_loss(
    student_logits: Any,
    teacher_logits: Any,
    labels: Any = None,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Tensor:
    """``α · T² · KL + (1 − α) · CE``, one number; the formula stands at the top of this file.

    Args:
        student_logits: (N, K), differentiated by.
        teacher_logits: (N, K), of the same dtype; a constant, whatever they came from.
        labels: (N) integers, or (N, K) targets with rows of zeros where a label is missing; None
            only with ``alpha = 1``, where they have no part.
        temperature: T > 0. 1 leaves the probabilities as they are; 2 to 10 are usual.
        alpha: the share of the teacher, 0 (labels alone) to 1 (teacher alone).

    Raises:
        ValueError: shapes that do not fit, ``temperature`` or ``alpha`` out of range.
    """
    check_weights(temperature, alpha)
    if labels is None and alpha != 1:
        raise ValueError(f"distillation_loss: alpha={alpha} needs labels; without them, alpha=1")
    if labels is None:
        return soft_target_loss(student_logits, teacher_logits, temperature)
    shares = alpha if has_numbers(labels) else 1 - (1 - alpha) * as_targets(labels).sum(axis=1)
    soft = soft_target_loss(student_logits, teacher_logits, temperature, shares)
    return soft + (1 - alpha) * label_loss(student_logits, labels)


def soft_target_loss(
    student_logits: Any, teacher_logits: Any, temperature: float, weight: Any = 1.0
) -> Tensor:
    """``weight · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))``; 0 where the logits match.

    Args:
        student_logits, teacher_logits: (N, K), of which the teacher's are a constant.
        temperature: T > 0.
        weight: one number, or (N): one for each sample.

    Raises:
        ValueError: logits that are not (N, K), or not of one shape; ``temperature`` out of range;
            weights that are not (N).
    """
    check_temperature(temperature)
    z_s, z_t = logit_pair(student_logits, teacher_logits)
    log_q = F.log_softmax(z_s / temperature, axis=1)
    log_p = F.log_softmax(z_t / temperature, axis=1)
    if not isinstance(weight, Tensor) and np.ndim(weight) == 0:
        divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return weight * (temperature**2 * divergence)
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(axis=1)  # (N, K) -> (N)
    weights = as_float_tensor(weight)
    if weights.shape != each.shape:
        raise ValueError(
            f"soft_target_loss: weight must be one number, or {each.shape}, one for each sample; "
            f"got shape {weights.shape}"
        )
    return temperature**2 * (weights.to(each.dtype) * each).mean()


def label_loss(student_logits: Any, labels: Any) -> Tensor:
    """Cross-entropy with labels (N), or with targets (N, K), where a row of zeros counts 0."""
    if has_numbers(labels):
        return F.cross_entropy(student_logits, labels)
    z_s, targets = as_float_tensor(student_logits), as_targets(labels)
    if z_s.shape != targets.shape:
        raise ValueError(
            f"distillation: targets must be (N, classes) like the logits, {z_s.shape}, got "
            f"{targets.shape}"
        )
    each = targets.to(z_s.dtype) * F.log_softmax(z_s, axis=1)
    return -each.sum() / len(z_s)


def has_numbers(labels: Any) -> bool:
    """Whether labels are class numbers (N) rather than targets (N, K)."""
    return as_tensor(labels).dtype.kind in "iu"


def as_targets(labels: Any) -> Tensor:
    """Targets (N, K) as a constant tensor."""
    targets = as_float_tensor(labels).detach()
    if targets.ndim != 2:
        raise ValueError(
            "distillation: labels must be class numbers (N), or targets (N, classes) with rows of "
            f"zeros where a label is missing; got shape {targets.shape} of {targets.dtype}"
        )
    return targets


def logit_pair(student_logits: Any, teacher_logits: Any) -> tuple[Tensor, Tensor]:
    """The student's logits, and the teacher's as a constant; both (N, K)."""
    z_s = as_float_tensor(student_logits)
    z_t = as_float_tensor(teacher_logits).detach()
    if z_s.ndim != 2 or z_s.shape != z_t.shape or not len(z_s):
        raise ValueError(
            "distillation: the student's logits and the teacher's must both be (N, classes), got "
            f"{z_s.shape} and {z_t.shape}; N ≥ 1"
        )
    return z_s, z_t


def check_weights(temperature: float, alpha: float) -> None:
    """Raise unless T is a temperature and 0 ≤ α ≤ 1."""
    check_temperature(temperature)
    unit_interval("alpha, the share of the teacher,", alpha)


def check_temperature(temperature: float) -> None:
    """Raise unless 0 < T < ∞, and float32 can hold T²."""
    positive("temperature", temperature)
    if not COLDEST <= temperature <= HOTTEST:
        raise ValueError(
            f"temperature must lie in {COLDEST:g} … {HOTTEST:g}, got {temperature!r}; 2 to 10 are "
            "usual"
        )
