"""Relational distillation: not what the teacher says of a sample, but how its samples lie.

For features f (any number of them, other in the student than in the teacher) of the samples of a
batch, compare

    the distance of two,  ψ_ij = ‖f_i − f_j‖ / μ,     μ the mean distance in the batch
    the angle of three,   ψ_ijk = cos ∠ f_i f_j f_k,  as ⟨f_i − f_j, f_k − f_j⟩ by both lengths

of student and teacher by Huber's loss, h(r) = r²/2 up to |r| = 1 and |r| − ½ beyond. The mean is
over all ordered pairs (triples) of different samples: those are what is compared.

All of it follows from the inner products G_ij = ⟨f_i, f_j⟩ alone, N² numbers:
‖f_i − f_j‖² = G_ii + G_jj − 2 G_ij, and ⟨f_i − f_j, f_k − f_j⟩ = G_ik − G_ij − G_kj + G_jj.

In training, samples are related within one shard of a batch (``train/shards.py``), and
``shard_size`` is how many there are. Park et al. 2019, arXiv:1904.05068, equations 3 to 9.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinycompress import functional as F
from tinycompress.backend import array_module, on_device
from tinycompress.tensor import Tensor, as_float_tensor

COINCIDE = 1e-6
"""Closer than this share of the mean squared distance, two samples have no direction: rounding
would decide it. They count as distance 0, without derivative."""


def relational_distance_loss(student_features: Any, teacher_features: Any) -> Tensor:
    """The mean over pairs of ``h(ψ_s − ψ_t)``; 0 where both clouds have one shape.

    Args:
        student_features, teacher_features: (N, ...) of the same N samples, flattened here; the
            teacher's are a constant.

    Raises:
        ValueError: different N. (One sample alone has no relations: 0.)
    """
    f_s, f_t = _pair("relational_distance_loss", student_features, teacher_features)
    N = len(f_s)
    if N < 2:
        return 0.0 * f_s.sum()
    difference = _distances(f_s).relative - _distances(f_t).relative
    return _huber(difference).sum() / (N * (N - 1))


def relational_angle_loss(student_features: Any, teacher_features: Any) -> Tensor:
    """The mean over triples of ``h(cos_s − cos_t)``. Arguments as for distances; N³ numbers."""
    f_s, f_t = _pair("relational_angle_loss", student_features, teacher_features)
    N = len(f_s)
    if N < 3:
        return 0.0 * f_s.sum()
    difference = _cosines(f_s) - _cosines(f_t)
    return _huber(difference).sum() / (N * (N - 1) * (N - 2))


class _Distances(NamedTuple):
    """What follows from the inner products.

    Attributes:
        gram: G (N, N), of features around their mean.
        apart: (N, N), 1 where two samples are neither the same nor in the same place, else 0.
        distance: ‖f_i − f_j‖, and 1 where not apart.
        relative: the distance divided by its mean μ, and 0 where not apart.
    """

    gram: Tensor
    apart: Tensor
    distance: Tensor
    relative: Tensor


def _distances(f: Tensor) -> _Distances:
    N = len(f)
    f = f - f.mean(axis=0, keepdim=True)  # distances stay, and rounding errors shrink
    gram = f @ f.T
    square = _diagonal(gram).unsqueeze(1) + _diagonal(gram).unsqueeze(0) - 2 * gram
    with on_device(square.data):
        off = ~_identity(square).astype(bool)
        # An exact 0 (all samples in one place) is not above 0 either.
        apart = off & (square.data > COINCIDE * (square.data * off).sum() / (N * (N - 1)))
        share = Tensor(apart.astype(square.dtype))
        distance = F.where(apart, square, 1.0).sqrt()
    total = (distance * share).sum()
    mean = total / (N * (N - 1)) + float(np.finfo(f.dtype).tiny)
    return _Distances(gram, share, distance, distance * share / mean)


def _cosines(f: Tensor) -> Tensor:
    """cos ∠ f_i f_j f_k as (j, i, k); 0 where two of the three are not apart."""
    gram, apart, distance, _ = _distances(f)
    ij = gram.unsqueeze(2)  # (j, i, 1), as G is symmetric
    kj = gram.unsqueeze(1)  # (j, 1, k)
    jj = _diagonal(gram).reshape(len(f), 1, 1)
    product = gram.unsqueeze(0) - ij - kj + jj  # (j, i, k)
    lengths = distance.unsqueeze(2) * distance.unsqueeze(1)
    valid = apart.unsqueeze(2) * apart.unsqueeze(1)
    with on_device(valid.data):
        off = Tensor(1 - _identity(gram))
    return valid * off.unsqueeze(0) * product / lengths


def _huber(r: Tensor) -> Tensor:
    r = r.abs()
    near = r.clamp(max=1.0)
    return near * (r - near / 2)


def _diagonal(square: Tensor) -> Tensor:
    with on_device(square.data):
        return (square * Tensor(_identity(square))).sum(axis=1)


def _identity(like: Tensor) -> Any:
    return array_module(like.data).eye(len(like), dtype=like.dtype)


def _pair(name: str, student: Any, teacher: Any) -> tuple[Tensor, Tensor]:
    f_s, f_t = as_float_tensor(student), as_float_tensor(teacher).detach()
    if f_s.ndim < 2 or f_t.ndim < 2 or len(f_s) != len(f_t):
        raise ValueError(
            f"{name}: features must be (N, ...) of the same N samples, got {f_s.shape} and "
            f"{f_t.shape}"
        )
    return f_s.flatten(1), f_t.flatten(1)
