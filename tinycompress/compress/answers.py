"""What a model answers, and how far that is from what another model answers.

Accuracy moves in steps of one image, and the loss of a changed network may be smaller by chance:
neither can tell a small change from none. Two numbers can, and need no labels, for outputs ``z`` of
the one and ``ẑ`` of the other, and ``p = softmax(z)``, ``p̂ = softmax(ẑ)``::

    divergence   Σ p · (ln p − ln p̂),  the mean over images, in nats; 0 where nothing changed
    SNR          10 lg(Σ z² / Σ (z − ẑ)²) in decibels
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress.backend import to_numpy
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.train import Workers, predict
from tinycompress.train.evaluate import has_classes


@dataclass(frozen=True)
class Answers:
    """Of one model, compared with another.

    Attributes:
        accuracy: the share that is right, 0 … 1.
        loss: mean cross-entropy.
        divergence: from the other's answers, ≥ 0.
        snr_db: of the outputs; infinite where they are the same.
    """

    accuracy: float
    loss: float
    divergence: float
    snr_db: float


class Reference:
    """A model's own answers, that those of changed ones are measured against.

    Args:
        verb: whose arguments these are, for errors.
        model: the unchanged one.
        data: images and class numbers.
        team: who does the work.

    Attributes:
        before: what the model itself answers.
    """

    def __init__(self, verb: str, model: Module, data: Dataset, team: Workers) -> None:
        self.data, self.team = data, team
        self.outputs = outputs_of(model, data, team)
        self.labels = labels_of(verb, data, self.outputs.shape[1])
        self.before = compared(self.outputs, self.outputs, self.labels)

    def of(self, model: Module) -> Answers:
        """What a changed model answers."""
        return compared(outputs_of(model, self.data, self.team), self.outputs, self.labels)

    def costs(self, answers: Answers) -> dict[str, float]:
        """The same beside what the unchanged model answers; "drop" is in points of accuracy."""
        return {
            "accuracy": answers.accuracy,
            "drop": 100 * (self.before.accuracy - answers.accuracy),
            "loss": answers.loss,
            "loss_increase": answers.loss - self.before.loss,
            "divergence": answers.divergence,
        }


def team_of(workers: Workers | int | str | None) -> Any:
    """A context with workers: those given, or new ones."""
    return nullcontext(workers) if isinstance(workers, Workers) else Workers(workers)


def outputs_of(model: Module, data: Dataset, workers: Workers | None) -> np.ndarray:
    """(N, classes) float64 on the host."""
    return to_numpy(predict(model, data.images, workers=workers)).astype(np.float64)


def compared(outputs: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Answers:
    """What ``outputs`` (N, classes) are worth, and how far they are from ``reference``."""
    ours, theirs = _log_softmax(outputs), _log_softmax(reference)
    divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean()
    return Answers(
        accuracy=float((outputs.argmax(axis=1) == labels).mean()),
        loss=float(-ours[np.arange(len(labels)), labels].mean()),
        divergence=max(float(divergence), 0.0),  # rounding may say −1e-17
        snr_db=snr_db(reference, outputs),
    )


def check_labels(verb: str, data: Dataset) -> None:
    """Raise where ``data`` is no data set whose labels are class numbers."""
    if not isinstance(data, Dataset):
        raise TypeError(f"{verb}: data must be a tc.data.Dataset, got {type(data).__name__}")
    if len(data.arrays) < 2 or not has_classes(data):
        raise ValueError(
            f"{verb}: labels must be class numbers (N,), and those of {data!r} are not"
        )


def check_finite(who: str, outputs: np.ndarray, so: str) -> None:
    """Raise where ``who`` answers NaN or infinity for an image; ``outputs`` are (N, classes)."""
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        first = int(finite.argmin())
        raise ValueError(f"{who} answers {outputs[first]} for image {first}, {so}")


def labels_of(verb: str, data: Dataset, classes: int) -> np.ndarray:
    """The class numbers (N) of ``data``, for a model with so many outputs."""
    labels = to_numpy(data.labels)
    if labels.max() >= classes:
        raise ValueError(
            f"{verb}: the labels go up to {labels.max()}, but the model has {classes} outputs"
        )
    return labels


def snr_db(signal: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-noise ratio in decibels; 6.02 dB are one bit."""
    noise = float(((signal - approximation) ** 2).sum())
    power = float((signal**2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
