"""What a channel leaves behind when it goes.

A pruned channel is a constant: 0 behind a ReLU, f(0) behind an activation f with f(0) ≠ 0,
−mean/√(var + ε) behind a batch norm without γ and β. What it adds to the layers that read it is
then a constant too, and goes into their biases::

    b'[o] = b[o] + Σ_i w[o, i] · c_i        over the channels i that go

That is exact for a linear layer, and for a convolution (where w[o, i] is the sum of a kernel)
unless it pads with zeros beside a c ≠ 0. The c_i are not derived but seen: the masked model is run,
and what reaches each weight is looked at.
"""

from __future__ import annotations

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, to_numpy
from tinycompress.compress.prune.dependencies import Dependencies, places_of
from tinycompress.compress.prune.following import Operation
from tinycompress.compress.prune.probe import run_watched
from tinycompress.ops import conv, linear


class Constants:
    """What the channels that go are, and what they add to the layers that read them.

    Attributes:
        added: (layer, name of its bias or None) → (O) float64.
        problems: label → why it is nothing that a bias could take over.
    """

    def __init__(self, model: nn.Module, x: Array, found: Dependencies, gone: set[int]) -> None:
        self.added: dict[tuple[str, str | None], np.ndarray] = {}
        self.problems: dict[int, str] = {}
        self._places = places_of(model)
        self._owners: dict[int, list[set[int]]] = {}  # array → the arrays of each module with it
        for module in model.modules():
            own = {id(p.data) for p in module._parameters.values() if p is not None}
            for array in own:
                self._owners.setdefault(array, []).append(own)
        self._columns = {axis.name: axis.labels for axis in found.axes if axis.number == 1}
        self._gone = list(gone)
        run_watched(model, x, self._look)
        self.added = {key: sums for key, sums in self.added.items() if sums.any()}

    def _look(self, call: Operation) -> None:
        if call.op not in (conv.conv2d, linear.linear):
            return
        x, w, b = call.inputs
        weight = self._places.get(id(w))
        if weight is None or weight.name not in self._columns:
            return
        labels = self._columns[weight.name]
        columns = np.flatnonzero(np.isin(labels, self._gone))
        if len(columns) == 0:
            return
        images = call.op is conv.conv2d
        groups = call.params["groups"] if images else 1
        values = _by_channel(to_numpy(x), 1 if images else -1).reshape(groups, len(labels), -1)
        constants = self._constants(values[:, columns], labels[columns], call)
        kernels = to_numpy(w).astype(np.float64).reshape(*w.shape[:2], -1).sum(axis=-1)
        per_group = kernels[:, columns].reshape(groups, -1, len(columns))
        added = np.einsum("goi,gi->go", per_group, constants).reshape(-1)
        if b is not None and id(b) not in self._owners and added.any():
            return self._refuse(labels[columns], f"the bias of {call} is no parameter")
        if added.any() and not self._alone(w, b):
            return self._refuse(labels[columns], f"the bias of {call} is not its own")
        bias = None if b is None or id(b) not in self._owners else self._places[id(b)].name
        before = self.added.setdefault((weight.layer, bias), added)
        if not np.allclose(before, added, rtol=1e-6, atol=1e-9):
            self._refuse(labels[columns], f"{call} is called with different constants")

    def _alone(self, w: Array, b: Array | None) -> bool:
        """Whether another bias of this layer, or its first one, changes no other layer."""
        if b is None:
            return len(self._owners[id(w)]) == 1
        return all(id(w) in own for own in self._owners[id(b)])

    def _constants(self, values: np.ndarray, labels: np.ndarray, call: Operation) -> np.ndarray:
        """(groups, columns): the one value of each channel."""
        wide = values.astype(np.float64)
        constants = wide[..., 0]
        broken = ~np.isfinite(wide).all(axis=-1).all(axis=0)
        self._refuse(
            labels[broken], f"what {call} reads of it is NaN or infinite when it is masked"
        )
        rounding = 64 * np.finfo(values.dtype).eps * np.maximum(1, np.abs(constants))
        changing = (np.abs(wide - wide[..., :1]).max(axis=-1) > rounding).any(axis=0)
        self._refuse(labels[changing], f"what {call} reads of it is no constant when it is masked")
        if call.op is conv.conv2d and any(call.params["padding"]):
            uneven = (constants != 0).any(axis=0) & ~changing
            self._refuse(
                labels[uneven],
                f"masked, it is a constant that is not 0, and {call} pads with zeros",
            )
        return constants

    def _refuse(self, labels: np.ndarray, why: str) -> None:
        for label in labels.tolist():
            self.problems.setdefault(label, why)


def _by_channel(x: np.ndarray, axis: int) -> np.ndarray:
    """(C, everything else)."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
