"""What a pruned model still has: parameters and multiplications, counted without making it.

An array of parameters has as many numbers as the product of what is kept along its axes. Where
single weights (kernels, rows, n of m) go, there is one axis for all of them, and a layer's numbers
depend on that layer alone. Where channels go, a weight (O, I, kh, kw) loses output channels with
its own layer and input channels with the layers before it::

    Σ over arrays a:  price_a · Π over axes:  (what always stays + Σ over layers l: kept_l[choice])

with a price of 1 each for parameters, and for MACs of the number of positions at which a weight is
multiplied. Biases and norms count as parameters, and not as MACs, as in ``nn/summary.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.dependencies import Dependencies
from tinycompress.nn import summary


@dataclass(frozen=True)
class Axis:
    """How many numbers are kept along one axis of an array. (Which: ``dependencies.py: Axis``.)

    Attributes:
        fixed: those that no choice takes away.
        kept: layer → how many of its own with each of its options, the whole ones first.
    """

    fixed: int
    kept: Mapping[str, tuple[int, ...]]

    def size(self, choice: Mapping[str, Any]) -> Any:
        """How many there are with option ``choice[layer]`` (a number, or an array of them)."""
        return self.fixed + sum(np.asarray(n)[choice[layer]] for layer, n in self.kept.items())


@dataclass(frozen=True)
class Term:
    """One array of parameters.

    Attributes:
        name: such as "conv1.weight".
        macs: multiplications that each of its numbers takes part in, for one image.
        axes: what is kept along each.
    """

    name: str
    macs: int
    axes: tuple[Axis, ...]

    def layers(self) -> set[str]:
        """The layers whose choice its size depends on."""
        return {layer for axis in self.axes for layer in axis.kept}

    def size(self, choice: Mapping[str, Any]) -> Any:
        return math.prod(axis.size(choice) for axis in self.axes)


@dataclass(frozen=True)
class Costs:
    """Parameters and MACs of a model for every choice of options."""

    terms: tuple[Term, ...]

    def of(self, choice: Mapping[str, Any], what: str) -> Any:
        """``what``: "parameters" or "macs"; with arrays of options, an array of costs."""
        return sum(t.size(choice) * (t.macs if what == "macs" else 1) for t in self.terms)

    def separable(self) -> bool:
        """Whether what a layer costs depends on its own choice only."""
        return all(len(term.layers()) <= 1 for term in self.terms)


def costs_of_weights(
    model: nn.Module, images: tuple[int, ...], kept: Mapping[str, Sequence[int]]
) -> Costs:
    """Where weights become zero: ``kept`` is layer → how many are left with each option."""
    weights = {id(model.get_submodule(name).weight): name for name in kept}
    terms = []
    for name, p, macs in _arrays(model, images):
        layer = weights.get(id(p))
        axis = Axis(p.size, {}) if layer is None else Axis(0, {layer: tuple(kept[layer])})
        terms.append(Term(name, macs, (axis,)))
    return Costs(tuple(terms))


def costs_of_channels(
    model: nn.Module,
    images: tuple[int, ...],
    found: Dependencies,
    gone: Mapping[str, Sequence[set[int]]],
) -> Costs:
    """Where channels are removed.

    Args:
        found: what ``follow`` says of the model.
        gone: first layer of a set → the labels of the channels that go with each option.
    """
    labels = {(axis.name, axis.number): axis.labels for axis in found.axes}
    owner = {x: layer for layer, options in gone.items() for own in options for x in own}

    def axis_of(name: str, number: int, size: int) -> Axis:
        own = labels.get((name, number))
        if own is None:
            return Axis(size, {})
        layers = sorted({owner[x] for x in own.tolist() if x in owner})
        mine = {layer: np.isin(own, [x for x in owner if owner[x] == layer]) for layer in layers}
        fixed = size - sum(int(m.sum()) for m in mine.values())
        kept = {
            layer: tuple(int((~np.isin(own[m], list(out))).sum()) for out in gone[layer])
            for layer, m in mine.items()
        }
        return Axis(fixed, kept)

    return Costs(
        tuple(
            Term(name, macs, tuple(axis_of(name, n, size) for n, size in enumerate(p.shape)))
            for name, p, macs in _arrays(model, images)
        )
    )


def macs_of_nonzero(model: nn.Module, images: tuple[int, ...]) -> int:
    """The multiplications by weights that are not 0; NumPy does the others as well."""
    total = 0
    for row in summary(model, images).layers:
        if row.macs:
            weight = to_numpy(model.get_submodule(row.name).weight.data)
            total += int(np.count_nonzero(weight)) * (row.macs // weight.size)
    return total


def _arrays(model: nn.Module, images: tuple[int, ...]) -> list[tuple[str, nn.Parameter, int]]:
    """(name, parameter, MACs of each of its numbers), a shared parameter once."""
    macs: dict[int, int] = {}
    for row in summary(model, images).layers:
        if row.macs:
            weight = model.get_submodule(row.name).weight
            macs[id(weight)] = macs.get(id(weight), 0) + row.macs // weight.size
    return [(name, p, macs.get(id(p), 0)) for name, p in model.named_parameters()]
