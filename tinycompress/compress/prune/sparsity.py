"""How sparse a model really is: zeros counted in the weights, whatever the masks say."""

from __future__ import annotations

from dataclasses import dataclass

from tinycompress import nn
from tinycompress.backend import on_device
from tinycompress.compress.prune.layers import PRUNABLE, weights_by_layer
from tinycompress.compress.quantize.integer import IntegerLayer
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.share.layers import SharedLayer


@dataclass(frozen=True)
class LayerSparsity:
    """One layer: its name, how many weights it has, and how many of them are 0."""

    name: str
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The share of zeros, 0 … 1."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class SparsityReport:
    """All prunable layers, in order; ``report["fc1"]`` is one of them."""

    layers: tuple[LayerSparsity, ...]

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The share of zeros among the weights of all these layers, 0 … 1."""
        return self.zeros / self.weights

    def __getitem__(self, name: str) -> LayerSparsity:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are {', '.join(x.name for x in self.layers)}")

    def __str__(self) -> str:
        rows = [(x.name, x.zeros, x.weights) for x in self.layers]
        rows.append(("total", self.zeros, self.weights))
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(
            f"{name:<{width}}  {zeros:>10,} of {weights:>10,} zero  {zeros / weights:7.2%}"
            for name, zeros, weights in rows
        )


def sparsity_report(model: nn.Module) -> SparsityReport:
    """Count the zeros in the weights of every linear and convolutional layer.

    Floats, codes for weights, shared weights, or the layers of an integer model. Biases are not
    counted. A code is a zero where it stands for exactly 0.

    Raises:
        ValueError: the model has no such layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"sparsity_report takes a model, got {type(model).__name__}")
    weights = weights_by_layer(model, (*PRUNABLE, QuantizedLayer, IntegerLayer, SharedLayer))
    if not weights:
        raise ValueError(f"{type(model).__name__} has no Linear or Conv2d layer to count zeros in")
    layers = []
    for name, w in weights.items():
        with on_device(w.data):
            layers.append(LayerSparsity(name, w.size, w.size - int((w.data != 0).sum())))
    return SparsityReport(tuple(layers))
