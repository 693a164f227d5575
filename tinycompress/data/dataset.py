"""A data set: arrays of one length, checked once.

Everything is in memory: MNIST's 60,000 images are 188 MB as float32, and a batch is then one
indexing of whole arrays (:mod:`tinycompress.data.batching`), with no loader, no threads and no
per-image Python. Images are float32 of shape (N, 1, 28, 28) in [0, 1] and labels int64 of shape
(N,); more arrays, such as a teacher's outputs, may follow them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress.backend import (
    Array,
    array_module,
    check_same_device,
    device_of,
    is_array,
    on_device,
    to_device,
    to_numpy,
)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Dataset:
    """Arrays whose first dimension counts the examples.

    Args:
        arrays: the images first (floating point), then the labels, then anything else of the same
            length. NumPy or CuPy arrays, all on one device; they are kept, not copied. Integer
            labels of another width become int64. Targets that are not class numbers (regression)
            have two dimensions or more.
        name: what messages and results call it.
        classes: the number of classes, where known: labels must then be below it.

    Raises:
        ValueError: no example, different lengths, images that hold NaN or infinity, labels out of
            range. Names the array and the first offender.
        TypeError: an array of a kind that cannot be what its place says.
        DeviceError: arrays on different devices.
    """

    arrays: tuple[Array, ...]
    name: str
    classes: int | None

    def __init__(self, *arrays: Array, name: str = "", classes: int | None = None) -> None:
        names = _array_names(len(arrays))
        for each, array in zip(names, arrays, strict=True):
            if not is_array(array):
                raise TypeError(f"{each} must be a NumPy or CuPy array, got {_kind(array)}")
        check_same_device("Dataset", *arrays)
        _check_lengths(names, arrays)
        with on_device(arrays[0]):
            arrays = _checked(names, arrays, classes)
        self._fill(arrays, name, classes)

    def _fill(self, arrays: tuple[Array, ...], name: str, classes: int | None) -> None:
        for key, value in (("arrays", arrays), ("name", name), ("classes", classes)):
            object.__setattr__(self, key, value)

    def _with(self, arrays: tuple[Array, ...], name: str | None = None) -> Dataset:
        """A sibling of arrays that were checked before: parts and copies are not checked again."""
        sibling = object.__new__(Dataset)
        sibling._fill(arrays, self.name if name is None else name, self.classes)
        return sibling

    # ----------------------------------------------------------------------------------- reading

    @property
    def images(self) -> Array:
        """The first array, (N, C, H, W)."""
        return self.arrays[0]

    @property
    def labels(self) -> Array:
        """The second array, (N,)."""
        if len(self.arrays) < 2:
            raise AttributeError(f"{self!r} has no labels: it was made from one array")
        return self.arrays[1]

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return device_of(self.arrays[0])

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, indices: slice | Sequence[int] | Array) -> tuple[Array, ...]:
        """The examples at ``indices`` of every array: a slice, integers, or a mask of length N."""
        if isinstance(indices, slice):
            return tuple(a[indices] for a in self.arrays)
        index = to_device(self._host_indices(indices), self.device)
        with on_device(index):
            return tuple(a[index] for a in self.arrays)

    def _host_indices(self, indices: Sequence[int] | Array) -> np.ndarray:
        """Checked on the host, because a GPU wraps what is out of range in silence."""
        given: Any = indices
        index = to_numpy(given) if is_array(given) else np.asarray(given)
        n = len(self)
        if index.dtype == bool and index.shape == (n,):
            return np.flatnonzero(index)
        if index.size == 0:
            return index.astype(np.intp)
        if not np.issubdtype(index.dtype, np.integer):
            raise TypeError(
                f"indices must be integers or a mask of shape ({n},), got {index.dtype} of shape "
                f"{index.shape}"
            )
        if index.min() < -n or index.max() >= n:
            worst = index.min() if index.min() < -n else index.max()
            raise IndexError(f"index {worst} is out of range for {n:,} examples")
        return index

    def __repr__(self) -> str:
        inside = ", ".join(f"{a.dtype} {tuple(a.shape[1:])}" for a in self.arrays)
        return f"Dataset({self.name!r}, {len(self):,} examples of {inside} on {self.device})"

    # ------------------------------------------------------------------------------ new data sets

    def take(self, n: int) -> Dataset:
        """The first ``n`` examples, as views of the same memory."""
        if not 1 <= n <= len(self):
            raise ValueError(f"take(n): n must be 1 to {len(self):,}, got {n}")
        return self._with(tuple(a[:n] for a in self.arrays))

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """``(rest, held_out)``, where ``held_out`` is a random ``fraction`` of the examples.

        Which examples are held out is a plain seeded draw, not stratified by label, and depends
        on ``seed`` and the number of examples alone. Both parts keep the original order.

        Args:
            fraction: strictly between 0 and 1; ``round(fraction * N)`` examples are held out.
            seed: an integer ≥ 0.
        """
        n = len(self)
        count = round(fraction * n) if 0 < fraction < 1 else 0
        if not 1 <= count < n:
            raise ValueError(
                f"split(fraction): {fraction} of {n:,} examples leaves one part empty; fraction "
                "must be between 0 and 1 and leave at least one example on each side"
            )
        held_out = np.zeros(n, bool)
        held_out[np.random.default_rng(seed).permutation(n)[:count]] = True
        return self._with(self[~held_out]), self._with(self[held_out], f"{self.name}-held-out")

    def to(self, device: str) -> Dataset:
        """The same examples on ``device``; itself where they are there already."""
        moved = tuple(to_device(a, device) for a in self.arrays)
        same = all(a is b for a, b in zip(moved, self.arrays, strict=True))
        return self if same else self._with(moved)

    def with_array(self, extra: Array) -> Dataset:
        """The same examples with one more array of the same length, such as a teacher's outputs."""
        return Dataset(*self.arrays, extra, name=self.name, classes=self.classes)


# ------------------------------------------------------------------------------------- validation


def _array_names(count: int) -> list[str]:
    if count == 0:
        raise TypeError("Dataset needs at least one array: Dataset(images, labels)")
    return ["images", "labels", *(f"arrays[{i}]" for i in range(2, count))][:count]


def _kind(x: Any) -> str:
    dtype = f" of {x.dtype}" if hasattr(x, "dtype") else ""
    return f"{type(x).__name__}{dtype}"


def _check_lengths(names: list[str], arrays: tuple[Array, ...]) -> None:
    shapes = {name: tuple(a.shape) for name, a in zip(names, arrays, strict=True)}
    for name, shape in shapes.items():
        if not shape or shape[0] == 0:
            raise ValueError(f"{name} holds no example: its shape is {shape}")
    if len({shape[0] for shape in shapes.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the arrays must have the same first dimension, got {found}")


def _checked(names: list[str], arrays: tuple[Array, ...], classes: int | None) -> tuple[Array, ...]:
    images, *rest = arrays
    _check_images(names[0], images)
    if rest:
        rest[0] = _checked_labels(names[1], rest[0], classes)
    for name, array in zip(names[2:], rest[1:], strict=True):
        _check_finite(name, array)
    return (images, *rest)


def _check_images(name: str, images: Array) -> None:
    if images.dtype.kind != "f":
        raise TypeError(
            f"{name} must be floating point in [0, 1], got {images.dtype}; bytes are converted by "
            "images.astype(np.float32) / 255"
        )
    _check_finite(name, images)


def _check_finite(name: str, x: Array) -> None:
    xp = array_module(x)
    if x.dtype.kind != "f" or bool(xp.isfinite(x).all()):
        return
    host = to_numpy(x)
    first = tuple(int(i) for i in np.argwhere(~np.isfinite(host))[0])
    raise ValueError(f"{name} holds {host[first]} at index {first}; every value must be finite")


def _checked_labels(name: str, labels: Array, classes: int | None) -> Array:
    if labels.dtype.kind not in "iu":
        if labels.ndim > 1 and classes is None:  # targets of a regression, or soft labels
            _check_finite(name, labels)
            return labels
        raise TypeError(
            f"{name} must be integers (class numbers), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}; targets of a regression need two dimensions, (N, k)"
        )
    host = to_numpy(labels)
    bad = host < 0 if classes is None else (host < 0) | (host >= classes)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        valid = "not negative" if classes is None else f"0 to {classes - 1}"
        raise ValueError(f"{name} holds {host[first]} at index {first}; labels must be {valid}")
    return labels if labels.dtype == np.int64 else labels.astype(np.int64)
