"""Logit matching: the squared distance between the logits, with no softmax at all.

    L = ½ · Σ_k (z_s − z_t)²

The sum over the classes, the mean over the batch, as in Ba & Caruana 2014, arXiv:1312.6184,
equation 1. It is what softened probabilities become at a large temperature: for logits whose mean
is 0 in each sample, T² · KL tends to L / K (``losses.py``). It differs in two ways. Softmax does
not see a constant that is added to all logits of a sample, and L does. And at a small T a softmax
does not look at the logits of classes that are out of the question, which a teacher's training
hardly determines, while L weighs all alike.
"""

from __future__ import annotations

from typing import Any

from tinycompress.compress.distill.losses import logit_pair
from tinycompress.tensor import Tensor


def logit_matching_loss(student_logits: Any, teacher_logits: Any) -> Tensor:
    """``½ Σ (z_s − z_t)²``, a mean over the batch; both (N, K), the teacher's a constant."""
    z_s, z_t = logit_pair(student_logits, teacher_logits)
    difference = z_s - z_t
    return 0.5 * (difference * difference).sum() / len(z_s)
