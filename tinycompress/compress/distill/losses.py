"""The loss of distillation: match the teacher's softened probabilities, and the labels a little.

    L = α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)) + (1 − α) · CE(z_s, y)

z_t and z_s are the logits (N, K) of teacher and student, y the labels (N). KL and CE are sums over
the K classes and means over the N samples.

Why a temperature: a trained teacher is nearly certain, so its probabilities hardly tell a label
apart. Divided by T > 1 they show what else the image looks like, which is what it knows and a label
does not. Why T²: the derivative of the KL by z_s is (softmax(z_s / T) − softmax(z_t / T)) / T. For
large T, eˣ ≈ 1 + x makes softmax(z / T) ≈ (1 + z / T) / K where the logits of a sample have mean 0,
so the derivative falls as 1/T². Times T² it tends to (z_s − z_t) / K, the derivative of a squared
difference of logits, and α means the same at every temperature.

The second derivative, diag(q) − q qᵀ with q = softmax(z_s / T), stays large where that of the
labels' part dies out, because softened probabilities are never near 0 or 1. So the loss is curved
more, and the best learning rate is smaller than for training on labels alone.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, sections 2 and 2.1.
"""

from __future__ import annotations

import math
from typing import Any

from tinycompress import functional as F
from tinycompress.tensor import Tensor, as_float_tensor


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
        labels: (N) integers; None only with ``alpha = 1``, where they have no part.
        temperature: T > 0. 1 leaves the probabilities as they are; 2 to 10 are usual.
        alpha: the share of the teacher, 0 (labels alone) to 1 (teacher alone).

    Raises:
        ValueError: shapes that do not fit, ``temperature`` or ``alpha`` out of range.
    """
    check_weights(temperature, alpha)
    if labels is None and alpha != 1:
        raise ValueError(f"distillation_loss: alpha={alpha} needs labels; without them, alpha=1")
    soft = soft_target_loss(student_logits, teacher_logits, temperature)
    if labels is None:
        return soft
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


def soft_target_loss(student_logits: Any, teacher_logits: Any, temperature: float) -> Tensor:
    """``T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))``; 0 where the logits match."""
    z_s = as_float_tensor(student_logits)
    z_t = as_float_tensor(teacher_logits).detach()
    if z_s.ndim != 2 or z_s.shape != z_t.shape:
        raise ValueError(
            "distillation: the student's logits and the teacher's must both be (N, classes), got "
            f"{z_s.shape} and {z_t.shape}"
        )
    log_q = F.log_softmax(z_s / temperature, axis=1)
    log_p = F.log_softmax(z_t / temperature, axis=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def check_weights(temperature: float, alpha: float) -> None:
    """Raise unless 0 < T < ∞ and 0 ≤ α ≤ 1."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a finite number > 0, got {temperature!r}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha, the share of the teacher, must lie in [0, 1], got {alpha!r}")
