"""What a model consists of: for each layer its output shape, parameters and MACs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress.backend import to_device
from tinycompress.graph import no_grad
from tinycompress.nn.module import Module, evaluation_mode


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer. Shapes leave out the batch axis."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    nonzero: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """All layers of a model in the order in which they run; ``str()`` gives a table."""

    layers: tuple[LayerSummary, ...]
    parameters: int
    nonzero: int
    macs: int

    def __str__(self) -> str:
        head = ("layer", "type", "output", "parameters", "nonzero", "MACs")
        rows = [
            (r.name, r.kind, "×".join(map(str, r.output_shape)), *_counts(r)) for r in self.layers
        ]
        rows = [head, *rows, ("total", "", "", *_counts(self))]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [_aligned(row, widths) for row in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """Names to the left, numbers to the right."""
    texts = [c.ljust(w) for c, w in zip(cells[:3], widths[:3], strict=True)]
    return "  ".join(texts + [c.rjust(w) for c, w in zip(cells[3:], widths[3:], strict=True)])


def _counts(row: LayerSummary | Summary) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.nonzero:,}", f"{row.macs:,}"


def summary(model: Module, input_shape: tuple[int, ...] = (1, 28, 28)) -> Summary:
    """Run one blank sample of ``input_shape`` (C, H, W) through ``model`` and count.

    Parameters are counted at a layer's first call, MACs at every call.
    """
    layers: list[LayerSummary] = []
    names = {id(m): name for name, m in model.named_modules()}
    counted: set[int] = set()

    def hook(module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        total, nonzero = (0, 0) if id(module) in counted else module.count_parameters()
        counted.add(id(module))
        layers.append(
            LayerSummary(
                names[id(module)],
                type(module).__name__,
                output.shape[1:],
                total,
                nonzero,
                module.macs(inputs[0].shape, output.shape),
            )
        )

    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    sample = to_device(np.zeros((1, *input_shape), np.float32), model.device)
    with evaluation_mode(model), no_grad(), ExitStack() as hooks:
        for leaf in leaves:
            hooks.enter_context(leaf.register_forward_hook(hook))
        model(sample)
    totals = (sum(getattr(r, n) for r in layers) for n in ("parameters", "nonzero", "macs"))
    return Summary(tuple(layers), *totals)
