"""What a model was after each stage of a chain of compressions, and what became of its layers.

Bytes are those of the real file, as ``tc.save`` would write it. Of n parameters (weights, biases,
norms) it has

    bits per weight = 8 · bytes / n,       ratio = 4 n / bytes

the ratio being against four bytes of float32 for each, which is what papers compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from tinycompress.backend import to_numpy
from tinycompress.compress.prune import sparsity_report
from tinycompress.compress.share import SharedLayer
from tinycompress.data import Dataset
from tinycompress.format import to_bytes
from tinycompress.format.analysis import LayerCosts, layer_costs
from tinycompress.format.relative import best_index
from tinycompress.nn import Module
from tinycompress.tables import as_text, table_of
from tinycompress.train import Workers, evaluate


@dataclass(frozen=True)
class Stage:
    """The model after one stage.

    Attributes:
        name: "float", "pruned", "emptied", "shared", "fine-tuned" or "rounded".
        error: wrong predictions in percent; None without data to validate on.
        loss: mean cross-entropy, or None.
        weights, zeros: of linear and convolutional layers, and how many of them are 0, counted.
        parameters: of the model of the beginning, biases and norms included.
        bytes: size of the file.
    """

    name: str
    error: float | None
    loss: float | None
    weights: int
    zeros: int
    parameters: int
    bytes: int

    @property
    def sparsity(self) -> float:
        """The share of weights that are 0, 0 … 1."""
        return self.zeros / self.weights

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file for each parameter, those that are 0 included."""
        return 8 * self.bytes / self.parameters

    @property
    def ratio(self) -> float:
        """How many times smaller than the parameters as float32."""
        return 4 * self.parameters / self.bytes

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        more = {name: getattr(self, name) for name in ("sparsity", "bits_per_weight", "ratio")}
        return asdict(self) | more

    def row(self) -> tuple[str, ...]:
        """What the table says of it."""
        return (
            self.name,
            "" if self.error is None else f"{self.error:.2f}%",
            "" if self.loss is None else f"{self.loss:.4f}",
            f"{self.sparsity:.2%}",
            f"{self.bits_per_weight:.3f}",
            f"{self.bytes:,}",
            f"{self.ratio:.1f}",
        )

    def __str__(self) -> str:
        measured = "" if self.error is None else f"error {self.error:.2f}%, "
        return (
            f"{self.name}: {measured}sparsity {self.sparsity:.2%}, {self.bits_per_weight:.3f} "
            f"bits per weight, {self.bytes:,} bytes"
        )


HEAD = ("layer", "weights", "left", "bits", "Huffman", "place", "Huffman", "entropy")


@dataclass(frozen=True)
class SharedCosts:
    """A layer with shared weights: its name, how many centroids it has, and what its codes cost."""

    name: str
    centroids: int
    costs: LayerCosts

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, "centroids": self.centroids, **self.costs.to_dict()}


def layers_of(model: Module) -> tuple[SharedCosts, ...]:
    """The layers with shared weights, in order; places in as many bits as take the fewest bytes."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, SharedLayer):
            codes = to_numpy(layer.codes)
            width, _ = best_index(codes != 0, huffman=False)
            found.append(SharedCosts(name, layer.codebook.size, layer_costs(codes, width)))
    return tuple(found)


def layer_table(layers: Sequence[SharedCosts]) -> Table:
    """The paper's tables: bits of the code and of the place of each weight that is left.

    Both before and after Huffman's code, and the entropy of both; in the last line of all layers.
    """
    rows = [(layer.name or "(model)", *_row([layer.costs])) for layer in layers]
    return table_of(HEAD, [*rows, ("total", *_row([layer.costs for layer in layers]))])


def _row(costs: Sequence[LayerCosts]) -> tuple[str, ...]:
    """Sums, and means over the weights that are left."""
    weights, left = sum(c.weights for c in costs), sum(c.kept for c in costs)

    def mean(bits: Callable[[LayerCosts], float]) -> str:
        return f"{sum(c.kept * bits(c) for c in costs) / max(left, 1):.2f}"

    return (
        f"{weights:,}",
        f"{left / weights:.2%}",
        mean(lambda c: c.bits),
        mean(lambda c: c.huffman_bits),
        mean(lambda c: c.index_bits),
        mean(lambda c: c.index_huffman_bits),
        mean(lambda c: c.entropy + c.index_entropy),
    )


@dataclass(frozen=True)
class Compressed:
    """A model and how it came about; ``str()`` is two tables, ``to_dict()`` for programs.

    Attributes:
        model: as the last stage left it.
        stages: all of them, in order.
        layers: what is left of each layer with shared weights, and in how many bits.
        pruned: the pruned network with floats for weights, to go on from: to other bits, or to a
            sparsity that is higher.
    """

    model: Module
    stages: tuple[Stage, ...]
    layers: tuple[SharedCosts, ...]
    pruned: Module

    @property
    def bytes(self) -> int:
        """Size of the file that ``tc.save(self.model, …)`` writes."""
        return self.stages[-1].bytes

    @property
    def ratio(self) -> float:
        """How many times smaller than the parameters as float32."""
        return self.stages[-1].ratio

    def __getitem__(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"there is no stage {name!r}: {', '.join(s.name for s in self.stages)}")

    def to_dict(self) -> dict[str, Any]:
        """All but the models, as JSON values."""
        return {
            "ratio": self.ratio,
            "stages": [stage.to_dict() for stage in self.stages],
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def table(self) -> Table:
        """A line for each stage; "bits" are those of the file for each parameter, "×" the ratio."""
        head = ("stage", "error", "loss", "zero", "bits", "bytes", "×")
        return table_of(head, [stage.row() for stage in self.stages])

    def __str__(self) -> str:
        return f"{as_text(self.table())}\n\n{as_text(layer_table(self.layers))}"


def measured(
    name: str,
    model: Module,
    dense: Module,
    data: Dataset | None,
    workers: Workers | int | None,
) -> Stage:
    """A stage; the parameters are those of ``dense``, the model of the beginning."""
    found = None if data is None else evaluate(model, data, workers=workers)
    zeros = sparsity_report(model)
    return Stage(
        name=name,
        error=None if found is None else found.error,
        loss=None if found is None else found.loss,
        weights=zeros.weights,
        zeros=zeros.zeros,
        parameters=sum(p.size for p in dense.parameters()),
        bytes=len(to_bytes(model)),
    )
