"""How good a model is: accuracy, loss and the confusion matrix on a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress import functional as F
from tinycompress.backend import Array, array_module, to_device, to_numpy
from tinycompress.data import Dataset, batches
from tinycompress.graph import no_grad
from tinycompress.nn import Module, evaluation_mode
from tinycompress.tensor import Tensor
from tinycompress.train.workers import Workers


@dataclass(frozen=True)
class Evaluation:
    """Measured on ``count`` samples.

    Attributes:
        accuracy: the share of samples whose largest output is their label, 0 … 1.
        loss: the mean loss.
        confusion: (classes, classes) counts; row: true label, column: prediction.
        count: how many samples.
    """

    accuracy: float
    loss: float
    confusion: np.ndarray
    count: int

    @property
    def error(self) -> float:
        """Wrong predictions in percent."""
        return 100.0 * (1.0 - self.accuracy)

    @property
    def wrong(self) -> int:
        """How many predictions are wrong."""
        return self.count - int(np.trace(self.confusion))


def predict(
    model: Module, images: Array, *, batch_size: int = 500, workers: Workers | int | None = None
) -> Array:
    """The model's outputs (N, classes) for images, in evaluation mode, on the model's device."""
    outputs = _outputs(model, Dataset(images), batch_size, workers)
    return array_module(outputs[0]).concatenate(outputs)


def evaluate(
    model: Module,
    data: Dataset,
    *,
    criterion: Callable[..., Tensor] = F.cross_entropy,
    batch_size: int = 500,
    workers: Workers | int | None = None,
) -> Evaluation:
    """Run ``model`` in evaluation mode over ``data`` and compare with its labels.

    Args:
        model: its train/eval mode is put back afterwards.
        data: images and labels.
        criterion: gives the mean loss of (outputs, labels).
        batch_size: how many images at once; the result depends on it only in rounding.
        workers: as for :func:`~tinycompress.train.step.value_and_grad`.

    Raises:
        ValueError: outputs that are not (N, classes), or fewer classes than the labels need.
    """
    outputs = _outputs(model, data, batch_size, workers)
    correct_labels = to_numpy(data.labels)
    total_loss, predictions, start = 0.0, [], 0
    for output in outputs:
        labels = to_device(correct_labels[start : start + len(output)], model.device)
        start += len(output)
        with no_grad():
            total_loss += criterion(output, labels).item() * len(output)
        predictions.append(to_numpy(output.argmax(axis=1)))
    classes = outputs[0].shape[1]
    pairs = correct_labels * classes + np.concatenate(predictions)
    confusion = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    count = len(correct_labels)
    return Evaluation(float(np.trace(confusion)) / count, total_loss / count, confusion, count)


def _outputs(
    model: Module, data: Dataset, batch_size: int, workers: Workers | int | None
) -> list[Any]:
    """The outputs of each batch, in order."""
    device = model.device

    def run(batch: tuple[Array, ...]) -> Array:
        with no_grad():
            output = model(to_device(batch[0], device))
        if output.ndim != 2:
            raise ValueError(f"the model's outputs must be (N, classes), got shape {output.shape}")
        return output.data

    with evaluation_mode(model):
        if isinstance(workers, Workers):
            return workers.map(run, batches(data, batch_size))
        with Workers(1 if device != "cpu" else workers) as own:
            return own.map(run, batches(data, batch_size))
