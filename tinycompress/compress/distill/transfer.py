"""Transfer sets: what a student may learn from where labels, or whole classes, are missing.

A teacher answers for any image, so a student needs no labels. A label that is missing is a row of
zeros in a matrix of *targets* (N, K), whose other rows are one-hot (``losses.py`` says what the
loss makes of it). The functions here give data sets that ``distill`` takes as they are:

    without_classes(train, [3])      Hinton's experiment: a student that has never seen a 3
    few_labels(train, 10)            ten labels of each class; the other images without
    unlabelled(images, 10)           images of which nobody knows anything
    joined(labelled, unlabelled)     several sets as one

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinycompress.backend import Array, array_module, on_device, to_device, to_numpy
from tinycompress.data import Dataset
from tinycompress.optim.checks import count
from tinycompress.train.evaluate import has_classes


def without_classes(data: Dataset, classes: int | Iterable[int]) -> Dataset:
    """The examples whose label is none of ``classes``, in their order.

    Args:
        data: with class numbers for labels.
        classes: one or several; each must be there, and others, too.

    Raises:
        TypeError, ValueError: labels that are no class numbers, no class, one without examples,
            nothing left.
    """
    _check_numbers("without_classes", data)
    labels = to_numpy(data.labels)
    gone = list(classes) if isinstance(classes, Iterable) else [classes]
    if not gone:
        raise ValueError("without_classes: name one class or more")
    for each in gone:
        if not (labels == count("without_classes: a class", each, least=0)).any():
            raise ValueError(f"without_classes: there is no example of class {each!r}")
    kept = ~np.isin(labels, gone)
    if not kept.any():
        raise ValueError("without_classes: no example would be left")
    names = ", ".join(map(str, gone))
    return Dataset(*data[kept], name=f"{data.name} without {names}", classes=data.classes)


def few_labels(data: Dataset, per_class: int, seed: int = 0, classes: int | None = None) -> Dataset:
    """All images, and the labels of ``per_class`` of each class, drawn at random, as targets.

    Args:
        data: with class numbers for labels.
        per_class: how many labels of each class stay known; 0: none.
        seed: of the draw.
        classes: how many there are; None: ``data.classes``, or the largest label and one.

    Raises:
        TypeError, ValueError: labels that are no class numbers, a class with fewer examples, or
            another number that is none.
    """
    _check_numbers("few_labels", data)
    count("few_labels: per_class", per_class, least=0)
    count("few_labels: seed", seed, least=0)
    if classes is not None:
        count("few_labels: classes", classes)
    labels = to_numpy(data.labels)
    rng = np.random.default_rng(seed)
    known = np.zeros(len(labels), bool)
    for each in np.unique(labels):
        mine = np.flatnonzero(labels == each)
        if len(mine) < per_class:
            raise ValueError(
                f"few_labels: class {each} has {len(mine)} examples, fewer than {per_class}"
            )
        known[rng.choice(mine, per_class, replace=False)] = True
    targets = _one_hot(labels, _class_count(data, classes)) * known[:, None]
    return _with_targets(data, targets, f"{data.name}, {per_class} labels a class")


def unlabelled(images: Array | Dataset, classes: int) -> Dataset:
    """Images (N, C, H, W), or those of a data set, without any label, for ``classes`` classes."""
    data = images if isinstance(images, Dataset) else Dataset(images)
    count("unlabelled: classes", classes)
    return _with_targets(data, np.zeros((len(data), classes), np.float32), data.name)


def joined(*sets: Dataset) -> Dataset:
    """The examples of all sets, one behind the other; labels become targets where one has targets.

    Raises:
        TypeError, ValueError: no sets, sets without labels, images or targets of different shapes
            or dtypes.
    """
    if not sets:
        raise ValueError("joined: give one data set or more")
    for each in sets:
        if not isinstance(each, Dataset):
            raise TypeError(f"joined: give data sets, joined(a, b), got a {type(each).__name__}")
    bare = [data for data in sets if len(data.arrays) < 2]
    if bare:
        raise ValueError(f"joined: {bare[0]!r} has no labels; unlabelled(images, classes) says so")
    for data in sets:
        if not has_classes(data) and data.labels.ndim != 2:
            raise ValueError(f"joined: targets must be (N, classes), got {data.labels.shape}")
    as_numbers = all(has_classes(data) for data in sets)
    widths = {data.labels.shape[1] for data in sets if not has_classes(data)}
    kinds = {(data.images.shape[1:], data.images.dtype) for data in sets}
    if len(widths) > 1 or len(kinds) > 1:
        shapes = ", ".join(
            f"{data.images.dtype} {data.images.shape} with {data.labels.shape}" for data in sets
        )
        raise ValueError(f"joined: images must have one shape and dtype, targets too; got {shapes}")
    device, K = sets[0].device, next(iter(widths), 0)
    images = [to_device(data.images, device) for data in sets]
    labels = [
        to_device(_as_labels(data, None if as_numbers else K, images[0].dtype), device)
        for data in sets
    ]
    xp = array_module(images[0])
    with on_device(images[0]):
        return Dataset(
            xp.concatenate(images),
            xp.concatenate(labels),
            name=" and ".join(dict.fromkeys(data.name for data in sets)),
        )


def _as_labels(data: Dataset, classes: int | None, dtype: np.dtype) -> Array:
    if classes is None or not has_classes(data):
        return data.labels
    return _one_hot(to_numpy(data.labels), classes).astype(dtype)


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    if labels.max() >= classes:
        raise ValueError(f"labels go up to {labels.max()}, but there are {classes} classes")
    return np.eye(classes, dtype=np.float32)[labels]


def _class_count(data: Dataset, classes: int | None) -> int:
    if classes is None:
        classes = data.classes or int(to_numpy(data.labels).max()) + 1
    return classes


def _with_targets(data: Dataset, targets: np.ndarray, name: str) -> Dataset:
    like = targets.astype(data.images.dtype)
    return Dataset(data.images, to_device(like, data.device), name=name)


def _check_numbers(verb: str, data: Dataset) -> None:
    bare = isinstance(data, Dataset) and len(data.arrays) < 2
    if bare or not has_classes(data):
        raise ValueError(
            f"{verb}: labels must be class numbers (N,), and those of {data!r} are not"
        )
