"""What a model consists of: for each layer its output shape, parameters and MACs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress.backend import to_device
from tinycompress.graph import no_grad
from tinycompress.nn.module import Module, evaluation_mode
from tinycompress.nn.state import arrays_by_name


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer. Shapes leave out the batch axis; None: the layer was never called."""

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
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
        rows = [(r.name or "(model)", r.kind, _size(r), *_counts(r)) for r in self.layers]
        rows = [head, *rows, ("total", "", "", *_counts(self))]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [_aligned(row, widths) for row in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """Names to the left, numbers to the right."""
    texts = [c.ljust(w) for c, w in zip(cells[:3], widths[:3], strict=True)]
    return "  ".join(texts + [c.rjust(w) for c, w in zip(cells[3:], widths[3:], strict=True)])


def _size(row: LayerSummary) -> str:
    return "not called" if row.output_shape is None else "×".join(map(str, row.output_shape))


def _counts(row: LayerSummary | Summary) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.nonzero:,}", f"{row.macs:,}"


def summary(model: Module, input_shape: tuple[int, ...] | None = (1, 28, 28)) -> Summary:
    """Run one blank sample of ``input_shape`` (C, H, W) through ``model`` and count.

    With ``input_shape=None`` nothing is run: parameters are counted, and no layer was called.

    Parameters are counted at a layer's first call, and once where layers share them; those of
    layers that were never called count too. MACs are counted at every call, of layers only.
    """
    counter = _Counter(model)
    if input_shape is not None:
        _run_blank_sample(model, input_shape, counter)
    layers = (*counter.rows, *counter.never_called())
    totals = (sum(getattr(r, n) for r in layers) for n in ("parameters", "nonzero", "macs"))
    return Summary(layers, *totals)


def _run_blank_sample(model: Module, input_shape: tuple[int, ...], counter: _Counter) -> None:
    if not isinstance(input_shape, tuple | list):
        raise TypeError(f"summary: input_shape must be like (1, 28, 28), got {input_shape!r}")
    arrays = [array for _, array, _ in arrays_by_name(model)]
    dtype = next((a.dtype for a in arrays if a.dtype.kind == "f"), np.dtype("float32"))
    sample = to_device(np.zeros((1, *input_shape), dtype), model.device)
    with evaluation_mode(model), no_grad(), ExitStack() as hooks:
        for module in counter.names:
            hooks.enter_context(module.register_forward_hook(counter.called))
        model(sample)


class _Counter:
    """Makes the rows, as layers are called."""

    def __init__(self, model: Module) -> None:
        # Layers are what has no layers inside, and whatever has parameters of its own.
        self.names = {
            module: name
            for name, module in model.named_modules()
            if not any(True for _ in module.children()) or module.count_parameters()[0]
        }
        self.rows: list[LayerSummary] = []
        self.counted: set[Module] = set()
        self.seen: set[int] = set()  # ids of the parameters and buffers of these

    def called(self, module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        shape = _shape(output)
        macs = module.macs(_shape(inputs), shape)
        self.rows.append(self.row(module, shape[1:], macs))

    def never_called(self) -> list[LayerSummary]:
        rest = [m for m in self.names if m not in self.counted and m.count_parameters()[0]]
        return [self.row(module, None, 0) for module in rest]

    def row(self, module: Module, shape: tuple[int, ...] | None, macs: int) -> LayerSummary:
        total, nonzero = 0, 0
        if module not in self.counted:
            (total, nonzero), again = module.count_parameters(), module.count_repeated(self.seen)
            total, nonzero = total - again[0], nonzero - again[1]
        self.counted.add(module)
        held = (*module._parameters.values(), *module._buffers.values())
        self.seen |= {id(each) for each in held if each is not None}
        kind = type(module).__name__
        return LayerSummary(self.names[module], kind, shape, total, nonzero, macs)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of a tensor, or of the first one among several inputs or outputs."""
    if isinstance(value, tuple | list) and value:
        return _shape(value[0])
    return getattr(value, "shape", ())
