"""Loss functions: each a mean over the batch unless ``reduction`` says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, check_same_device
from tinycompress.ops import losses
from tinycompress.shapes import number
from tinycompress.tensor import (
    Tensor,
    apply,
    as_float_tensor,
    as_tensor,
    int64,
    operands,
)


def cross_entropy(
    logits: Any, labels: Any, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``−ln softmax(logits)[label]``.

    Args:
        logits: (N, K) unnormalised scores.
        labels: (N) integers, 0 … K − 1. On a GPU they are not looked at here (that would wait for
            the device): one out of range makes the loss NaN.
        label_smoothing: 0 ≤ s < 1; this much of the target is spread evenly over the classes.
        reduction: "mean", "sum" or "none" (N).
    """
    logits = as_float_tensor(logits)
    smoothing = float(number("cross_entropy: label_smoothing", label_smoothing))
    if not 0 <= smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1), got {label_smoothing}")
    labels = _labels("cross_entropy", logits, labels)
    each = apply(losses.cross_entropy, logits, labels=labels, smoothing=smoothing)
    return _reduced("cross_entropy", each, reduction)


def nll_loss(log_probabilities: Any, labels: Any, reduction: str = "mean") -> Tensor:
    """``−log_probabilities[label]``: cross-entropy after ``log_softmax``. Shapes as there."""
    log_probabilities = as_float_tensor(log_probabilities)
    labels = _labels("nll_loss", log_probabilities, labels)
    each = apply(losses.nll_loss, log_probabilities, labels=labels)
    return _reduced("nll_loss", each, reduction)


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Tensor:
    """``(x − target)²``; the mean is over all values."""
    x, target = _same_shape("mse_loss", x, target)
    difference = x - target
    return _reduced("mse_loss", difference * difference, reduction)


def kl_div(log_q: Any, p: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback–Leibler divergence ``p (ln p − log_q)``, with torch's order of arguments.

    Args:
        log_q: log-probabilities of the approximation, (N, ...).
        p: probabilities of the target, or their logarithms with ``log_target``; p = 0 counts 0.
        reduction: "batchmean" (sum ÷ N: the divergence of its definition), "mean" (÷ all values),
            "sum" or "none".
    """
    log_q, p = _same_shape("kl_div", log_q, p)
    if log_target:
        each = p.exp() * (p - log_q)
    else:
        smallest = float(np.finfo(p.dtype).tiny)
        each = p * (p.clamp(min=smallest).log() - log_q)
    if reduction == "batchmean":
        return each.sum() / _count("kl_div", each.shape[:1])
    return _reduced("kl_div", each, reduction)


def binary_cross_entropy_with_logits(x: Any, target: Any, reduction: str = "mean") -> Tensor:
    """``−t ln σ(x) − (1 − t) ln(1 − σ(x))`` for targets t in [0, 1]."""
    x, target = _same_shape("binary_cross_entropy_with_logits", x, target)
    each = apply(losses.binary_cross_entropy_with_logits, x, target)
    return _reduced("binary_cross_entropy_with_logits", each, reduction)


def _reduced(name: str, each: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return each.sum() / _count(name, each.shape)
    if reduction == "sum":
        return each.sum()
    if reduction == "none":
        return each
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')


def _count(name: str, sizes: tuple[int, ...]) -> int:
    count = 1
    for n in sizes:
        count *= n
    if count == 0:
        raise ValueError(f"{name}: the batch is empty, so it has no mean loss")
    return count


def _same_shape(name: str, x: Any, target: Any) -> tuple[Tensor, Tensor]:
    x, target = map(as_float_tensor, operands(as_tensor(x), as_tensor(target)))
    if x.shape != target.shape:
        raise ValueError(f"{name}: input {x.shape} and target {target.shape} must have one shape")
    check_same_device(name, x.data, target.data)
    return x, target


def _labels(name: str, logits: Tensor, labels: Any) -> Array:
    labels = as_tensor(labels).data
    if logits.ndim != 2:
        raise ValueError(f"{name}: the input must be (N, classes), got shape {logits.shape}")
    if labels.ndim != 1 or len(labels) != logits.shape[0] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: labels must be ({logits.shape[0]},) integers for input {logits.shape}, "
            f"got shape {labels.shape} {labels.dtype}"
        )
    check_same_device(name, logits.data, labels)
    if logits.device == "cpu" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"{name}: labels must be in 0 … {logits.shape[1] - 1} for {logits.shape[1]} "
                f"classes, found {low if low < 0 else high}"
            )
    return labels.astype(int64, copy=False)
