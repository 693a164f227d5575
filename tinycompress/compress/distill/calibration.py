"""Calibration: of all images of which a model is 90% sure, nine in ten should be right.

A classifier's confidence is its largest probability. Sort the images into M bins by it; in bin B_m
compare the share that is right with the mean confidence. The *expected calibration error* is

    ECE = Σ_m |B_m| / N · | accuracy(B_m) − confidence(B_m) |

with M = 15 bins of equal width, (0, 1/15] … (14/15, 1]. Guo et al. 2017, arXiv:1706.04599,
equation 3. A student of softened probabilities is usually less sure of itself than one of labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinycompress.optim.checks import count as count_of

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is in (low, high].

    Attributes:
        count: how many.
        accuracy: the share that is right; NaN where there is none.
        confidence: the mean confidence; NaN likewise.
    """

    low: float
    high: float
    count: int
    accuracy: float
    confidence: float


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """ECE, 0 … 1, of logits (N, K) for labels (N); arguments as for :func:`reliability`."""
    rows = reliability(logits, labels, bins)
    gaps = (b.count * abs(b.accuracy - b.confidence) for b in rows if b.count)
    return sum(gaps) / len(labels)


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The bins, from unsure to sure: what a reliability diagram shows.

    Args:
        logits: (N, K).
        labels: (N) integers.
        bins: how many, of equal width.

    Raises:
        TypeError, ValueError: shapes that do not fit, no sample, no bin, logits that are NaN or
            infinite, labels that are no class numbers 0 … K − 1.
    """
    bins = count_of("calibration: bins", bins)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        raise ValueError(
            "calibration: needs logits (N, K), labels (N) and N ≥ 1; got "
            f"{logits.shape} and {labels.shape}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("calibration: the logits hold NaN or infinity")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"calibration: labels must be integers 0 … {logits.shape[1] - 1}")
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = 1 / shifted.sum(axis=1)  # the largest is exp(0)
    right = logits.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for m in range(bins):
        mine = place == m
        count = int(mine.sum())
        accuracy = float(right[mine].mean()) if count else float("nan")
        mean = float(confidence[mine].mean()) if count else float("nan")
        rows.append(Bin(m / bins, (m + 1) / bins, count, accuracy, mean))
    return rows
