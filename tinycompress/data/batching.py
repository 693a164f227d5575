"""Batches: the order of an epoch is a pure function of (seed, epoch).

Nothing is remembered between batches, so a run that stopped after batch k of epoch e goes on with
``batches(…, epoch=e, start=k)`` and sees exactly what it would have seen. The same holds for
augmentation: its random numbers are a function of (seed, epoch, batch number).

Every example comes once an epoch, and the last batch may be smaller. Read
:mod:`tinycompress.data.dataset` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from tinycompress.backend import Array, on_device, to_device
from tinycompress.data.dataset import Dataset

Augmentation: TypeAlias = Callable[[Array, np.random.Generator], Array]
"""``augment(images, generator) -> images`` of the same shape, dtype and device."""

ORDER, AUGMENT = 0, 1  # the two uses of a seed: their streams must not be the same numbers


def batches(
    dataset: Dataset,
    batch_size: int,
    seed: int | None = None,
    epoch: int = 0,
    start: int = 0,
    augment: Augmentation | None = None,
) -> Iterator[tuple[Array, ...]]:
    """The batches of one epoch, each a tuple of arrays as in ``dataset.arrays``.

    Args:
        dataset: the examples; batches lie on its device.
        batch_size: examples a batch; the last may have fewer.
        seed: an integer ≥ 0 that, with ``epoch``, determines the order; None: in order, and a batch
            is a view of the data set's memory.
        epoch: the number of this pass, from 0.
        start: how many batches to skip, for a run that is resumed.
        augment: applied to the first array of each batch; needs a seed. (``fit`` augments shard by
            shard instead, on its workers, and so with other random numbers.)

    Raises:
        ValueError: a number out of range. Raised here, not at the first batch.
    """
    count = batch_count(dataset, batch_size)
    for name, value in (("seed", seed or 0), ("epoch", epoch), ("start", start)):
        if value < 0:
            raise ValueError(f"{name} must be ≥ 0, got {value}")
    if start > count:
        raise ValueError(f"start={start} is past the end: an epoch has {count} batches")
    if seed is None:
        if augment is not None:
            raise ValueError("augment draws random numbers: give batches(…) a seed too")
        return (dataset[i * batch_size : (i + 1) * batch_size] for i in range(start, count))
    return _shuffled(dataset, batch_size, seed, epoch, range(start, count), augment)


def batch_count(dataset: Dataset, batch_size: int) -> int:
    """How many batches an epoch has: ``ceil(N / batch_size)``."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be ≥ 1, got {batch_size}")
    return -(-len(dataset) // batch_size)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0 … n−1 in which epoch ``epoch`` visits the examples."""
    return np.random.default_rng((ORDER, seed, epoch)).permutation(n)


def _shuffled(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    numbers: range,
    augment: Augmentation | None,
) -> Iterator[tuple[Array, ...]]:
    # The order goes to the device once an epoch; a batch then is a gather that waits for nothing.
    order = to_device(epoch_order(len(dataset), seed, epoch), dataset.device)
    for i in numbers:
        index = order[i * batch_size : (i + 1) * batch_size]
        with on_device(order):
            images, *rest = (array[index] for array in dataset.arrays)
        if augment is not None:
            images = augment(images, np.random.default_rng((AUGMENT, seed, epoch, i)))
        yield (images, *rest)
