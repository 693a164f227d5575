"""Which channels of a model can only go together: found by running it once.

To remove output channel 3 of a convolution is to remove row 3 of its weight, number 3 of its bias,
of its batch norm's γ, β, mean and variance, and whatever multiplies it in the next layer: slice 3
of every kernel, or after a flatten a block of columns. In a residual network the channels of all
branches of a sum hang together (Fang et al. 2023, DepGraph, arXiv:2301.12900).

The model is run once on a small random input, and every operation of the engine is watched
(``probe.py``). Beside the numbers run their *labels* (``labels.py``), by one rule per operation
(``following.py``). A ``forward`` of somebody's own is thus followed as well as a Sequential; what
is computed outside of the engine's operations has no labels, and what meets it is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array
from tinycompress.compress.prune.following import Operation, labels_after
from tinycompress.compress.prune.labels import Labels, no_labels
from tinycompress.compress.prune.probe import random_input, run_watched
from tinycompress.nn.compiled import Compiled

SHRINKING: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.Conv2d, ("weight", "bias")),
    (nn.Linear, ("weight", "bias")),
    (nn.BatchNorm1d, ("weight", "bias", "running_mean", "running_var")),
    (nn.BatchNorm2d, ("weight", "bias", "running_mean", "running_var")),
)
"""The layers that can be made smaller, and which of their arrays have channels."""


@dataclass(frozen=True)
class Axis:
    """One axis of a parameter or buffer.

    Attributes:
        name: of the array, such as "conv1.weight".
        layer: the layer that it belongs to, such as "conv1".
        own: its name there, such as "weight".
        number: of the axis, 0 or 1.
        makes: whether its places are output channels of a convolution or linear layer.
        labels: one per place, (n). Equal labels go together.
    """

    name: str
    layer: str
    own: str
    number: int
    makes: bool
    labels: np.ndarray


@dataclass(frozen=True)
class Dependencies:
    """What :func:`follow` found.

    Attributes:
        axes: of all parameters and buffers that have channels.
        fixed: labels of the model's inputs and outputs, which stay.
        problems: label → why it cannot be followed, in words.
    """

    axes: tuple[Axis, ...]
    fixed: frozenset[int]
    problems: dict[int, str]

    def outputs(self) -> dict[str, np.ndarray]:
        """Layer → the labels of its output channels, (O), in the order of running."""
        return {axis.layer: axis.labels for axis in self.axes if axis.makes}


def follow(model: nn.Module, sample: Any = None) -> tuple[Dependencies, Array]:
    """Which channels of ``model`` hang together, and the random input on which it was run.

    Args:
        model: it is not changed.
        sample: what goes into it, an array or data set; None: see ``probe.py``.

    Raises:
        TypeError: it is no model, or a compiled one.
        ValueError: no shape of its input was found.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"channels are those of a model, got {type(model).__name__}")
    if any(isinstance(module, Compiled) for module in model.modules()):
        raise TypeError("a compiled model has no channels to prune: prune what it was made from")
    x = random_input(model, sample)
    return _Follower(model.copy(), x).run(), x


class Place(NamedTuple):
    """Where an array belongs."""

    name: str
    layer: str
    module: nn.Module
    own: str


def places_of(model: nn.Module) -> dict[int, Place]:
    """id → where it belongs, for each array of a parameter or buffer; shared ones once."""
    places: dict[int, Place] = {}
    for layer, module in model.named_modules():
        dot = f"{layer}." if layer else ""
        arrays = {name: p.data for name, p in module._parameters.items() if p is not None}
        arrays |= {name: b for name, b in module._buffers.items() if b is not None}
        for own, array in arrays.items():
            places.setdefault(id(array), Place(dot + own, layer, module, own))
    return places


class _Follower:
    """Knows the labels of every array while a model runs."""

    def __init__(self, model: nn.Module, x: Array) -> None:
        self.model, self.x = model, x
        self.labels = Labels()
        self.places = places_of(model)
        self._axes: dict[tuple[int, int], np.ndarray] = {}
        self._tensors: dict[int, tuple[Array, np.ndarray]] = {}  # which keeps ids from coming again

    def run(self) -> Dependencies:
        start = self.labels.new(1).reshape((1,) * self.x.ndim)
        self.labels.fix(start)
        self._tensors[id(self.x)] = self.x, start
        for output in run_watched(self.model, self.x, self._look):
            self.labels.fix(self._tensors.get(id(output), (None, start))[1])
        roots = self.labels.root
        return Dependencies(
            tuple(self._axis(place, n, a) for (place, n), a in self._axes.items()),
            frozenset(map(roots, self.labels.fixed)),
            {roots(label): why for label, why in reversed(self.labels.problems.items())},
        )

    def _axis(self, place: int, number: int, labels: np.ndarray) -> Axis:
        name, layer, module, own = self.places[place]
        makes = number == 0 and own == "weight" and isinstance(module, nn.Conv2d | nn.Linear)
        return Axis(name, layer, own, number, makes, self.labels.roots(labels))

    def _look(self, call: Operation) -> None:
        self._tensors[id(call.output)] = call.output, labels_after(self, call)

    # ------------------------------------------------------------------- what rules ask

    def of(self, x: Array, reader: Operation) -> np.ndarray:
        """The labels of an array; those of a parameter where only one axis is longer than one."""
        if id(x) in self._tensors:
            return self._tensors[id(x)][1]
        if id(x) not in self.places:
            return no_labels(x)
        long = [axis for axis, size in enumerate(x.shape) if size > 1]
        slots = [self.slots(x, axis, reader) for axis in long]
        if len(slots) == 1:
            return slots[0].reshape(x.shape)
        for each in slots:
            self.labels.hold(each, f"{reader} reads {self.places[id(x)].name}")
        return no_labels(x)

    def slots(self, weight: Array, axis: int, reader: Operation) -> np.ndarray:
        """The labels along one axis of a parameter or buffer; 0 for what is neither."""
        if id(weight) not in self.places:
            return np.zeros(weight.shape[axis], int)
        key = id(weight), axis
        if key not in self._axes:
            self._axes[key] = self.labels.new(weight.shape[axis])
            name, _, module, own = self.places[id(weight)]
            if not any(isinstance(module, kind) and own in names for kind, names in SHRINKING):
                why = f"{reader} reads {name}, which no Linear, Conv2d or BatchNorm can shrink"
                self.labels.hold(self._axes[key], why)
        return self._axes[key]
