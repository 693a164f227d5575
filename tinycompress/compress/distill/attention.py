"""Attention transfer: the student looks where the teacher looks.

Where a convolutional layer with activations A (C, H, W) looks is told by how active each position
is over all channels, as one vector of length 1:

    Q = Σ_c |A_c|²  (H · W numbers),      L = ½ · Σ ( Q_s / ‖Q_s‖₂ − Q_t / ‖Q_t‖₂ )²

Channels are summed over, so student and teacher may have different numbers of them, and nothing
need be learned in between. The sum is over positions, the mean over the batch.

Zagoruyko & Komodakis 2017, arXiv:1612.03928, equation 2. The paper writes the norm of the
difference; the square of it, as in its authors' code, has a derivative where the maps agree.
"""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F
from tinycompress.tensor import Tensor, as_float_tensor

TINY = 1e-12
"""Beside the squared length of a map: a layer that is not active anywhere looks nowhere."""


def attention_transfer_loss(student_features: Any, teacher_features: Any) -> Tensor:
    """``½ Σ (Q_s/‖Q_s‖ − Q_t/‖Q_t‖)²``, a mean over the batch; 0 where both look alike.

    Args:
        student_features, teacher_features: (N, C, H, W), with any C each; the teacher's are a
            constant. Of maps of different sizes the larger is averaged down to the smaller one.

    Raises:
        ValueError: other shapes, or maps of which neither is the smaller one.
    """
    a_s = as_float_tensor(student_features)
    a_t = as_float_tensor(teacher_features).detach()
    if a_s.ndim != 4 or a_t.ndim != 4 or len(a_s) != len(a_t) or not len(a_s):
        raise ValueError(
            "attention_transfer_loss: both layers must give out (N, C, H, W), N ≥ 1, got "
            f"{a_s.shape} and {a_t.shape}"
        )
    size = _smaller(*a_s.shape[2:], *a_t.shape[2:])
    difference = attention_map(a_s, size) - attention_map(a_t, size)
    return 0.5 * (difference * difference).sum() / len(a_s)


def attention_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """``Q / ‖Q‖₂`` of features (N, C, H, W), averaged to ``size`` first: (N, h · w)."""
    q = (features * features).sum(axis=1, keepdim=True)  # (N, C, H, W) -> (N, 1, H, W)
    if q.shape[2:] != size:
        q = F.adaptive_avg_pool2d(q, size)
    q = q.flatten(1)  # -> (N, h·w)
    return q / ((q * q).sum(axis=1, keepdim=True) + TINY).sqrt()


def _smaller(h: int, w: int, other_h: int, other_w: int) -> tuple[int, int]:
    if h <= other_h and w <= other_w:
        return h, w
    if h >= other_h and w >= other_w:
        return other_h, other_w
    raise ValueError(
        f"attention_transfer_loss: of maps of {h}×{w} and {other_h}×{other_w} positions neither is "
        "the smaller one"
    )
