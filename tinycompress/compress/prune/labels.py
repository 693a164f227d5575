"""Channel numbers, and which of them can only go together.

Every channel gets a number, its *label*; 0 is "no channel". Where an operation makes two channels
one (a residual sum, a batch norm's γ for a convolution's output), their labels are *tied*:
union–find, so that in the end each group of tied labels has one root, and a group goes as a whole
or stays. A channel that must stay is *held*, with the reason.

The labels of a tensor are an array of as many axes. An axis along which they do not change has
length 1 there, so labels broadcast to the tensor's shape: an image (N, C, H, W) has (1, C, 1, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Labels:
    """All labels of one model.

    Attributes:
        fixed: labels of the model's own inputs and outputs, whose number nobody may change.
        problems: label → why it cannot be followed, in words.
    """

    def __init__(self) -> None:
        self._parent = [0]
        self.fixed: set[int] = set()
        self.problems: dict[int, str] = {}

    def new(self, number: int) -> np.ndarray:
        """Labels that nobody has yet."""
        start = len(self._parent)
        self._parent += range(start, start + number)
        return np.arange(start, start + number)

    def root(self, label: int) -> int:
        """The one label that stands for all that are tied to this one."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]  # shortens the way
            label = self._parent[label]
        return label

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """The root of each."""
        names, where = np.unique(labels, return_inverse=True)
        return np.array([self.root(int(n)) for n in names], int)[where].reshape(labels.shape)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Let each label of ``a`` go together with that of ``b`` in its place; they broadcast.

        Where one of the two is 0 there is no channel, and the other one must stay as it is.
        """
        pairs = np.stack(np.broadcast_arrays(a, b)).reshape(2, -1)
        for one, other in np.unique(pairs, axis=1).T.tolist():
            if one and other:
                self._parent[self.root(other)] = self.root(one)

    def fix(self, labels: np.ndarray) -> None:
        """Inputs or outputs of the model: they stay."""
        self.fixed |= set(np.unique(labels).tolist()) - {0}

    def hold(self, labels: np.ndarray, why: str) -> None:
        """What happens to these channels is not understood; the first reason is kept."""
        for label in np.unique(labels).tolist():
            if label:
                self.problems.setdefault(label, why)


def compact(labels: np.ndarray) -> np.ndarray:
    """With length 1 for every axis along which the labels are all alike."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis) if labels.shape[axis] else labels
        if labels.shape[axis] > 1 and bool((labels == first).all()):
            labels = first
    return labels


def no_labels(x: Any) -> np.ndarray:
    """Those of a tensor without channels."""
    return np.zeros((1,) * x.ndim, int)


def varying(labels: np.ndarray) -> set[int]:
    """The axes along which they change."""
    return {axis for axis, size in enumerate(labels.shape) if size > 1}
