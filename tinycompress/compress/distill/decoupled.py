"""Decoupled distillation: how sure the teacher is, and what it thinks of the other classes.

With y the label, p the teacher's softened probabilities and q the student's, the divergence falls
into two parts:

    KL(p ‖ q) = KL(b_p ‖ b_q) + (1 − p_y) · KL(p̂ ‖ q̂)

b = (p_y, 1 − p_y) says how sure one is of the label; p̂ = p_k / (1 − p_y), k ≠ y, is the opinion on
the other classes. Where the teacher is sure, 1 − p_y is nearly 0 and silences the second part, of
which the student could learn most. So the two get weights of their own:

    L = T² · (α · KL(b_p ‖ b_q) + β · KL(p̂ ‖ q̂))

Zhao et al. 2022, arXiv:2203.08679, equations 5 to 7. Their β is about the difference of the
teacher's logit at the label from the largest of the others.
"""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F
from tinycompress.backend import array_module, on_device
from tinycompress.compress.distill.losses import check_weights, has_numbers, logit_pair
from tinycompress.optim.checks import non_negative
from tinycompress.tensor import Tensor, as_tensor

OUT_OF_THE_QUESTION = 1e9
"""Taken off the label's logit, it leaves a probability of exactly 0, and a finite logarithm."""


def decoupled_loss(
    student_logits: Any,
    teacher_logits: Any,
    labels: Any,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """``T² (α · KL(b_p ‖ b_q) + β · KL(p̂ ‖ q̂))``; 0 where the logits match.

    Args:
        student_logits, teacher_logits: (N, K), K ≥ 2; the teacher's are a constant.
        labels: (N) integers; every sample needs one.
        temperature: T > 0.
        alpha: weight ≥ 0 of how sure the student is of the label.
        beta: weight ≥ 0 of its opinion on the other classes.

    Raises:
        ValueError: shapes that do not fit, labels that are missing, a number out of range.
    """
    check_weights(temperature, 1.0)
    check_decoupled(alpha, beta)
    z_s, z_t = logit_pair(student_logits, teacher_logits)
    if labels is None or not has_numbers(labels):
        raise ValueError("decoupled_loss: every sample needs a label, (N) integers")
    shape = as_tensor(labels).shape
    if shape != z_s.shape[:1]:
        raise ValueError(f"decoupled_loss: labels must be {z_s.shape[:1]} integers, got {shape}")
    if z_s.shape[1] < 2:
        raise ValueError(f"decoupled_loss: needs two classes or more, got logits {z_s.shape}")
    is_label = F.one_hot(labels, z_s.shape[1]).to(z_s.dtype)
    q, q_others = _parts(z_s / temperature, is_label)
    p, p_others = _parts(z_t / temperature, is_label)
    sure, opinion = _divergence(p, q), _divergence(p_others, q_others)
    return temperature**2 * (alpha * sure + beta * opinion)


def check_decoupled(alpha: float, beta: float) -> None:
    """Raise unless both weights are finite and ≥ 0."""
    non_negative("decoupled: alpha", alpha)
    non_negative("decoupled: beta", beta)


def _parts(z: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """ln b (N, 2) and ln p̂ (N, K); at the label, the latter is a number that has no weight."""
    others = z - OUT_OF_THE_QUESTION * is_label
    label = (z * is_label).sum(axis=1)  # (N, K) -> (N)
    pair = F.stack([label, _log_sum_exp(others)], axis=1)  # -> (N, 2)
    return F.log_softmax(pair, axis=1), F.log_softmax(others, axis=1)


def _log_sum_exp(z: Tensor) -> Tensor:
    with on_device(z.data):
        largest = Tensor(array_module(z.data).max(z.data, axis=1, keepdims=True))
    return (z - largest).exp().sum(axis=1).log() + largest.squeeze(1)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
