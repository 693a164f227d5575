"""Hints: a layer in the middle of the student gives what one in the middle of the teacher gives.

    L = ½ · ‖ f_t − r(f_s) ‖²

f_t and f_s are what the two layers give out. They seldom have one shape, so a small map r, the
*adapter*, is learned with the student and thrown away afterwards (``adapters.py``). The sum is over
all features of a sample, the mean over the batch; so the weight of a hint is a small number, of the
order of one over the count of features.

FitNets, Romero et al. 2015, arXiv:1412.6550, equation 3. They train on hints alone at first and on
softened logits afterwards; both at once is a list of two terms (``terms.py``).
"""

from __future__ import annotations

from typing import Any

from tinycompress.tensor import Tensor, as_float_tensor


def hint_loss(student_features: Any, teacher_features: Any) -> Tensor:
    """``½ ‖ f_t − f_s ‖²``, a mean over the batch.

    Args:
        student_features: (N, ...), the adapter applied to them already.
        teacher_features: of the same shape; a constant.

    Raises:
        ValueError: other shapes.
    """
    f_s = as_float_tensor(student_features)
    f_t = as_float_tensor(teacher_features).detach()
    if f_s.shape != f_t.shape or f_s.ndim < 2 or not len(f_s):
        raise ValueError(
            f"hint_loss: student {f_s.shape} and teacher {f_t.shape} must be features (N, ...) of "
            'one shape, N ≥ 1; an adapter makes them so: Hint(..., adapter="auto")'
        )
    difference = f_s - f_t
    return 0.5 * (difference * difference).sum() / len(f_s)
