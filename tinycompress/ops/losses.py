"""Losses that are worth one operation: fused, they are stabler and cheaper than their parts.

Each gives one loss per sample (or per value); ``functional/losses.py`` takes the mean or the sum.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result


def one_hot(labels: Array, classes: int, dtype: Any = "float32") -> Array:
    """labels (N) → (N, classes), 1 at the label. A comparison, so nothing is scattered."""
    xp = array_module(labels)
    return (labels[:, None] == xp.arange(classes)).astype(dtype)


def cross_entropy(x: Array, labels: Array, smoothing: float) -> Result:
    """x (N, K) logits, labels (N) integers → (N): ``−Σ_k t_k ln softmax(x)_k``.

    The target t is 1 at the label, or with label smoothing s (Szegedy et al. 2015,
    arXiv:1512.00567) ``1 − s + s/K`` there and ``s/K`` elsewhere. ``dx = g · (softmax(x) − t)``.
    A label out of range gives NaN (``functional/losses.py`` refuses it where looking is free).
    """
    xp = array_module(x)
    K = x.shape[1]
    z = x - x.max(axis=1, keepdims=True)
    e = xp.exp(z)
    total = e.sum(axis=1, keepdims=True)
    hit = one_hot(labels, K, bool)
    picked = xp.where(hit, z, 0).sum(axis=1)  # a logit of −∞ elsewhere counts 0
    if smoothing:
        picked *= 1 - smoothing
        picked += z.sum(axis=1) * (smoothing / K)
    loss = xp.log(total[:, 0]) - picked  # the targets of a sample sum to 1
    loss = xp.where(hit.any(axis=1), loss, xp.nan).astype(x.dtype, copy=False)

    def d_x(g: Array) -> Array:
        target = hit.astype(x.dtype)
        if smoothing:
            target *= 1 - smoothing
            target += smoothing / K
        d = e / total
        d -= target
        d *= g[:, None]
        return d

    return loss, (d_x,)


def nll_loss(log_p: Array, labels: Array) -> Result:
    """log_p (N, K) log-probabilities, labels (N) → (N): ``−log_p[n, label_n]``."""
    xp = array_module(log_p)
    target = one_hot(labels, log_p.shape[1], log_p.dtype)
    valid = (labels >= 0) & (labels < log_p.shape[1])
    picked = xp.where(target > 0, log_p, 0).sum(axis=1)  # −∞ elsewhere must not become NaN
    loss = xp.where(valid, -picked, xp.nan).astype(log_p.dtype)
    return loss, (lambda g: -g[:, None] * target,)


def binary_cross_entropy_with_logits(x: Array, target: Array) -> Result:
    """``−t ln σ(x) − (1 − t) ln(1 − σ(x))`` as ``max(x, 0) − xt + ln(1 + e^{−|x|})``."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    loss = xp.maximum(x, 0) - x * target + xp.log1p(small)
    sigmoid = xp.where(x >= 0, 1 / (1 + small), small / (1 + small))
    return loss, (lambda g: g * (sigmoid - target), lambda g: -g * x)
