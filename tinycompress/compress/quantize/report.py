"""What quantization did to each layer, and what it left out and why, as data and as a table.

The signal-to-noise ratio says how much of a weight is left: 6.02 dB are one bit. The headroom of a
layer that computes in integers is explained in ``headroom.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.answers import snr_db as snr_db
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.dynamic import DynamicLayer
from tinycompress.compress.quantize.fold import NORMS, fold_batch_norm
from tinycompress.compress.quantize.headroom import (
    gives_codes,
    headroom_bits,
    incoming_grids,
    widened,
)
from tinycompress.compress.quantize.integer import IntegerLayer, IntegerModule, OnFloats
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.qtensor import Grid
from tinycompress.compress.quantize.registry import replacement_for, why_skipped
from tinycompress.tables import as_text, table_of

WITH_CODES = (QuantizedLayer, IntegerLayer)
GRID_BYTES = 5
"""Of a grid in a file: a scale of four bytes and a zero point of one, or two from 9 bits on."""


@dataclass(frozen=True)
class LayerReport:
    """One layer with parameters, or one that computes with codes.

    Attributes:
        name, kind: dotted name and class of the layer.
        bits, scheme, granularity: how its weights are quantized; None where they are not.
        snr_db: signal-to-noise ratio ``10 lg(Σw² / Σ(w − ŵ)²)`` in decibels, infinite where
            nothing was lost; None where the layer is not quantized.
        max_error: the largest ``|w − ŵ|``; None where the layer is not quantized.
        bytes: of codes and zero points (which the symmetric scheme has not) at their bit width,
            scales, grids, and bias. Arithmetic, not a measurement: how large the file is, the file
            says.
        float_bytes: of the same layer before.
        skipped: why it is not quantized, or "".
        activations: bits of the codes that come in; None: floats come in.
        weight_observer, observer: how the ranges of weights and of activations were found; None
            where it is not known (an integer layer keeps the grids, and not where they came from:
            give the report the config).
        learned_step: whether training learned the scales; None as for the observer.
        arithmetic: "integers" or "floats": what its products are computed in.
        headroom_bits: how often its sums could double without leaving int32; None where they are
            floats, or what comes in is not known.
        notes: what had to be changed, in words; usually nothing.
    """

    name: str
    kind: str
    bits: int | None
    scheme: str | None
    granularity: str | None
    snr_db: float | None
    max_error: float | None
    bytes: int
    float_bytes: int
    skipped: str
    activations: int | None = None
    weight_observer: str | None = None
    observer: str | None = None
    learned_step: bool | None = None
    arithmetic: str = "floats"
    headroom_bits: float | None = None
    notes: tuple[str, ...] = ()


class QuantizationReport(list[LayerReport]):
    """The entries; ``str()`` is a table for people, ``to_list()`` one for programs."""

    def to_list(self) -> list[dict[str, Any]]:
        """The entries as JSON values."""
        return [asdict(entry) for entry in self]

    def table(self) -> Table:
        """A line for each layer. "headroom" is in bits."""
        head = ("layer", "type", "quantized", "computes in", "SNR", "bytes", "before", "headroom")
        return table_of(head, map(_cells, self), words=4)

    def __str__(self) -> str:
        notes = [f"{entry.name}: {note}" for entry in self for note in entry.notes]
        return "\n".join([as_text(self.table()), *notes])


def quantization_report(
    original: nn.Module,
    quantized: nn.Module,
    config: QuantConfig | None = None,
    sample: Any = None,
) -> QuantizationReport:
    """One entry for each layer with parameters or codes, in order of definition.

    Args:
        original: the model that was given to ``quantize`` (where channels were equalized before,
            the equalized one: weights are compared with its).
        quantized: what came back, from ``quantize`` or ``convert``.
        config: how it was made, where that is not kept: observers, learned steps.
        sample: a few inputs, to see what comes into the layers of a model with a ``forward`` of
            its own; in Sequentials it is seen without.
    """
    before = dict(original.named_modules())
    grids = incoming_grids(quantized, sample)
    entries = QuantizationReport()
    folded: dict[str, nn.Module] = {}
    for name, path, layer in _layers(quantized):
        if name not in before:
            raise ValueError(f"these are two different models: only one has a layer {name!r}")
        old = before[name]
        own = None if config is None else config.for_layer(name, old)
        if isinstance(layer, IntegerLayer):
            folded = folded or _folded(original, sample)
            entries.append(_integer_entry(name, folded[name], layer, own, grids.get(path)))
        elif isinstance(layer, QuantizedLayer):
            like = folded[name] if folded else _comparable(original, quantized, sample, name, old)
            entries.append(_quantized_entry(name, like, layer))
        elif gives_codes(layer):
            entries.append(_joining_entry(name, old, layer, own))
        elif isinstance(layer, nn.Identity) and isinstance(old, NORMS):
            entries.append(_left_entry(name, old, 0, "folded into the layer before it"))
        elif layer.count_parameters()[0]:
            entries.append(_left_entry(name, layer, _parameter_bytes(layer), _why_left(layer)))
    return entries


def _layers(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """(name in the original, name here, layer), without what quantization put inside or around."""
    inner: set[int] = set()
    wrapped: dict[str, str] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, (*WITH_CODES, IntegerModule)):
            inner |= {id(child) for child in layer.modules() if child is not layer}
        elif isinstance(layer, OnFloats):
            wrapped[f"{path}.module" if path else "module"] = path
        if id(layer) in inner or isinstance(layer, OnFloats):
            continue
        around = next((w for w in wrapped if path == w or path.startswith(f"{w}.")), None)
        yield (path if around is None else wrapped[around] + path[len(around) :]), path, layer


def _folded(model: nn.Module, sample: Any) -> dict[str, nn.Module]:
    return dict(fold_batch_norm(model, sample, strict=False).named_modules())


def _comparable(
    original: nn.Module, quantized: nn.Module, sample: Any, name: str, old: nn.Module
) -> nn.Module:
    """The float layer whose weights were rounded: folded, where norms are gone."""
    names = [n for n, m in original.named_modules() if isinstance(m, NORMS)]
    now = dict(quantized.named_modules())
    if any(isinstance(now.get(n), nn.Identity) for n in names):
        return _folded(original, sample)[name]
    return old


# -------------------------------------------------------------------------------------- entries


def _quantized_entry(name: str, before: nn.Module, layer: QuantizedLayer) -> LayerReport:
    q = layer.quantization
    dynamic = isinstance(layer, DynamicLayer)
    return LayerReport(
        *(name, type(before).__name__, q.bits, q.scheme, q.granularity),
        *_lost(name, before, layer),
        bytes=_bytes(layer),
        float_bytes=_parameter_bytes(before),
        skipped="",
        activations=q.activations if dynamic else None,
        weight_observer=q.weight_observer,
        observer="each example" if dynamic else None,
        learned_step=q.learn_step,
        arithmetic="integers" if dynamic else "floats",
        headroom_bits=headroom_bits(layer) if isinstance(layer, DynamicLayer) else None,
    )


def _integer_entry(
    name: str,
    before: nn.Module,
    layer: IntegerLayer,
    own: QuantConfig | None,
    grid: Grid | None,
) -> LayerReport:
    q = layer.quantization
    return LayerReport(
        *(name, type(before).__name__, q.bits, q.scheme, q.granularity),
        *_lost(name, before, layer),
        bytes=_bytes(layer),
        float_bytes=_parameter_bytes(before),
        skipped="",
        activations=None if grid is None else grid.target.bits,
        **_origin(own),
        arithmetic="integers",
        headroom_bits=None if grid is None else headroom_bits(layer, grid),
        notes=() if grid is None else widened(layer, grid),
    )


def _joining_entry(
    name: str, before: nn.Module, layer: Any, own: QuantConfig | None
) -> LayerReport:
    kind = type(before).__name__
    size = GRID_BYTES * sum(g is not None for g in (layer.grid, layer.quantize_input))
    return LayerReport(
        *(name, kind, None, None, None, None, None, size, 0, ""),
        activations=None if layer.grid is None else layer.grid.target.bits,
        **{**_origin(own), "weight_observer": None},
        arithmetic="integers",
    )


def _left_entry(name: str, layer: nn.Module, size: int, why: str) -> LayerReport:
    before = _parameter_bytes(layer)
    return LayerReport(name, type(layer).__name__, None, None, None, None, None, size, before, why)


def _why_left(layer: nn.Module) -> str:
    if replacement_for(layer) is not None:
        return "left in floats by the config"
    return why_skipped(layer)


def _origin(own: QuantConfig | None) -> dict[str, Any]:
    names = {"weight_observer": "weight_observer", "observer": "observer"}
    found: dict[str, Any] = {k: own and getattr(own, f) for k, f in names.items()}
    return {**found, "learned_step": own and own.learn_step}


def _lost(name: str, before: Any, layer: Any) -> tuple[float, float]:
    """Signal-to-noise ratio and largest error of a weight."""
    if not isinstance(before, layer.float_type):
        raise ValueError(
            f"these are two different models: {name!r} is a {type(before).__name__} in one and a "
            f"{type(layer).__name__} in the other"
        )
    w, approximate = (to_numpy(m.weight.data).astype(np.float64) for m in (before, layer))
    if w.shape != approximate.shape:
        raise ValueError(
            f"these are two different models: the weight of {name!r} has shape {w.shape} in one, "
            f"{approximate.shape} in the other"
        )
    return snr_db(w, approximate), float(np.abs(w - approximate).max())


def _bytes(layer: Any) -> int:
    q = layer.quantization
    packed = lambda codes: -(-codes.size * q.bits // 8)  # noqa: E731
    shifts = packed(layer.weight_zero_point) if q.scheme == "affine" else 0
    size = packed(layer.weight_codes) + layer.weight_scale.nbytes + shifts
    if isinstance(layer, IntegerLayer):
        grids = sum(g is not None for g in (layer.grid, layer.quantize_input))
        return size + GRID_BYTES * grids + (0 if layer.bias is None else layer.bias.nbytes)
    return size + _parameter_bytes(layer)


def _parameter_bytes(layer: nn.Module) -> int:
    """Of the layer's own parameters."""
    return sum(p.data.nbytes for p in layer._parameters.values() if p is not None)


def _cells(entry: LayerReport) -> tuple[str, ...]:
    how = entry.skipped
    if not how:
        weights = "" if entry.bits is None else f"{entry.bits}-bit weights"
        codes = "" if entry.activations is None else f"{entry.activations}-bit activations"
        origin = [entry.observer, "learned steps" if entry.learned_step else None]
        how = ", ".join(filter(None, [weights, codes, *origin]))
    snr = "" if entry.snr_db is None else f"{entry.snr_db:.1f} dB"
    room = "" if entry.headroom_bits is None else f"{entry.headroom_bits:.1f}"
    sizes = f"{entry.bytes:,}", f"{entry.float_bytes:,}"
    return (entry.name or "(model)", entry.kind, how, entry.arithmetic, snr, *sizes, room)
