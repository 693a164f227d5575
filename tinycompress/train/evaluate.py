"""How good a model is: accuracy, loss and the confusion matrix on a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinycompress import functional as F
from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.data import Dataset, batch_count
from tinycompress.graph import no_grad
from tinycompress.nn import Module, evaluation_mode
from tinycompress.tensor import Tensor, as_array
from tinycompress.train.workers import Workers

BATCH_SIZE = 100  # few enough for their activations to stay in the cache


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
        return 100 * self.wrong / self.count

    @property
    def wrong(self) -> int:
        """How many predictions are wrong."""
        return self.count - int(np.trace(self.confusion))


def predict(
    model: Module,
    images: Array,
    *,
    batch_size: int = BATCH_SIZE,
    workers: Workers | int | str | None = None,
) -> Array:
    """The model's outputs (N, classes) for images, in evaluation mode, on the model's device."""
    outputs = _outputs(model, Dataset(images), batch_size, workers)
    with on_device(outputs[0]):
        return array_module(outputs[0]).concatenate(outputs)


def evaluate(
    model: Module,
    data: Dataset,
    *,
    criterion: Callable[..., Tensor] = F.cross_entropy,
    batch_size: int = BATCH_SIZE,
    workers: Workers | int | str | None = None,
) -> Evaluation:
    """Run ``model`` in evaluation mode over ``data`` and compare with its labels.

    Args:
        model: its train/eval mode is put back afterwards.
        data: images and labels.
        criterion: gives the mean loss of (outputs, labels).
        batch_size: how many images at once; the result depends on it only in rounding.
        workers: how many share the work, "auto" or None for one per core, or a running
            :class:`~tinycompress.train.workers.Workers`. The result is the same.

    Raises:
        TypeError: ``data`` that is no data set.
        AttributeError: a data set without labels.
        ValueError: labels that are not class numbers, outputs that are not (N, classes), or fewer
            classes than the labels need.
    """
    if not has_classes(data):
        raise ValueError(
            f"evaluate: labels must be class numbers (N,), and those of {data!r} are not; "
            "mean_loss measures without counting"
        )
    outputs = _outputs(model, data, batch_size, workers)
    labels, classes = to_numpy(data.labels), outputs[0].shape[1]
    if labels.max() >= classes:
        raise ValueError(
            f"evaluate: the labels go up to {labels.max()}, but the model has {classes} outputs, "
            f"for the classes 0 … {classes - 1}"
        )
    loss = _mean_loss(outputs, data.labels, criterion)
    with on_device(outputs[0]):
        predictions = np.concatenate([to_numpy(output.argmax(axis=1)) for output in outputs])
    pairs = np.bincount(labels * classes + predictions, minlength=classes * classes)
    confusion = pairs.reshape(classes, classes)
    count = len(labels)
    return Evaluation(float(np.trace(confusion)) / count, loss, confusion, count)


def mean_loss(
    model: Module,
    data: Dataset,
    criterion: Callable[..., Tensor],
    *,
    batch_size: int = BATCH_SIZE,
    workers: Workers | int | str | None = None,
) -> float:
    """The mean of ``criterion(outputs, labels)`` over ``data``, whatever its labels are."""
    return _mean_loss(_outputs(model, data, batch_size, workers), data.labels, criterion)


def has_classes(data: Dataset) -> bool:
    """Whether the labels of ``data`` are class numbers, (N,) integers."""
    if not isinstance(data, Dataset):
        raise TypeError(f"expected a tc.data.Dataset, got {type(data).__name__}")
    return data.labels.ndim == 1 and data.labels.dtype.kind == "i"


def _mean_loss(outputs: list[Array], labels: Array, criterion: Callable[..., Tensor]) -> float:
    total, start = 0.0, 0
    for output in outputs:
        with no_grad(), on_device(output):
            piece = to_device(labels[start : start + len(output)], device_of(output))
            total += criterion(output, piece).item() * len(output)
        start += len(output)
    return total / len(labels)


class ForwardWork:
    """``work(slice) -> outputs`` of these images, on the model's device."""

    def __init__(self, model: Module, images: Array) -> None:
        self.model, self.images = model, images

    def __call__(self, rows: slice) -> Array:
        images = to_device(self.images[rows], self.model.device)
        with no_grad(), on_device(images):
            output = as_array(self.model(images))
        if output.ndim != 2 or len(output) != len(images):
            raise ValueError(
                f"the model's outputs must be (N, classes), got shape {output.shape} for "
                f"{len(images)} images"
            )
        return output


def _outputs(
    model: Module, data: Dataset, batch_size: int, workers: Workers | int | str | None
) -> list[Array]:
    """The outputs of each batch, in order, in evaluation mode."""
    work = ForwardWork(model, data.images)
    count = batch_count(data, batch_size)
    rows = [slice(i * batch_size, (i + 1) * batch_size) for i in range(count)]
    with evaluation_mode(model):
        if model.device != "cpu":
            return [work(each) for each in rows]
        if isinstance(workers, Workers):
            same = ("forward", id(model), id(data.images))
            return workers.map(workers.remember(same, lambda: work), rows)
        with Workers(workers) as own:
            return own.map(work, rows)
