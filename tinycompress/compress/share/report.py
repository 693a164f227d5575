"""What the codebooks of a model are, and how often each of their numbers is used.

The counts decide how short codes can become: with shares p_k of the weights that are not pruned, no
code that writes one weight after the other takes fewer bits for each, on average, than the entropy
``H = −Σ p_k log2 p_k`` (Shannon 1948).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.checks import check_model
from tinycompress.compress.share.layers import SharedLayer
from tinycompress.tables import as_text, table_of


def entropy(counts: np.ndarray) -> float:
    """n · H, bits: the least that n symbols take, each written by itself, on average.

    Args:
        counts: (K) whole numbers: how often each symbol occurs; n is their sum.
    """
    present = counts[counts > 0]
    return float((present * np.log2(present.sum() / present)).sum()) if present.size else 0.0


@dataclass(frozen=True)
class LayerCodebook:
    """One layer.

    Attributes:
        name: of the layer.
        weights: how many it has.
        pruned: how many of them have the code of zero.
        centroids: the codebook, ascending.
        counts: how many weights have each of these.
    """

    name: str
    weights: int
    pruned: int
    centroids: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def clusters(self) -> int:
        """How many centroids there are."""
        return len(self.centroids)

    @property
    def bits(self) -> int:
        """Of a code of fixed length for a weight that is not pruned: ⌈log2 clusters⌉."""
        return max(self.clusters - 1, 0).bit_length()

    @property
    def entropy(self) -> float:
        """Bits for each weight that is not pruned, at least."""
        return entropy(np.array(self.counts, np.int64)) / max(sum(self.counts), 1)


@dataclass(frozen=True)
class Codebooks:
    """Layers with shared weights, in order; ``str()`` is a table, ``to_list()`` for programs."""

    layers: tuple[LayerCodebook, ...]

    def __getitem__(self, name: str) -> LayerCodebook:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are {', '.join(x.name for x in self.layers)}")

    def to_list(self) -> list[dict[str, Any]]:
        """The layers as JSON values."""
        return [
            {**asdict(layer), "bits": layer.bits, "entropy": layer.entropy} for layer in self.layers
        ]

    def table(self) -> Table:
        """A line for each layer."""
        rows = [
            (
                x.name or "(model)",
                f"{x.weights:,}",
                f"{1 - x.pruned / x.weights:.2%}",
                f"{x.clusters:,}",
                f"{x.bits}",
                f"{x.entropy:.2f}",
                " … ".join(
                    f"{c:.3f}" for c in dict.fromkeys(x.centroids[:: max(x.clusters - 1, 1)])
                ),
            )
            for x in self.layers
        ]
        return table_of(("layer", "weights", "kept", "clusters", "bits", "entropy", "range"), rows)

    def __str__(self) -> str:
        return as_text(self.table())


def codebooks(model: nn.Module) -> Codebooks:
    """The codebook of every layer with shared weights, and how often each number of it is used.

    Raises:
        ValueError: no layer has shared weights.
        TypeError: ``model`` is no module.
    """
    check_model("codebooks", model)
    layers = tuple(
        _codebook(name, m) for name, m in model.named_modules() if isinstance(m, SharedLayer)
    )
    if not layers:
        raise ValueError(
            f"no layer of this {type(model).__name__} has shared weights; tc.share_weights makes "
            "some"
        )
    return Codebooks(layers)


def _codebook(name: str, layer: SharedLayer) -> LayerCodebook:
    centroids, codes = to_numpy(layer.codebook.data), to_numpy(layer.codes)
    counts = np.bincount(codes.ravel(), minlength=centroids.size + 1)
    order = np.argsort(centroids, kind="stable")
    return LayerCodebook(
        name,
        codes.size,
        int(counts[0]),
        tuple(centroids[order].tolist()),
        tuple(counts[1:][order].tolist()),
    )
