"""What quantization did to each layer, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.registry import why_skipped


@dataclass(frozen=True)
class LayerReport:
    """One layer with parameters.

    Attributes:
        name, kind: dotted name and class of the layer.
        bits, scheme, granularity: how its weights are quantized; None where they are not.
        snr_db: signal-to-noise ratio ``10 lg(Σw² / Σ(w − ŵ)²)`` in decibels, infinite where
            nothing was lost; None where the layer is not quantized.
        max_error: the largest ``|w − ŵ|``; None where the layer is not quantized.
        bytes: of codes and zero points (which the symmetric scheme has not) at their bit width,
            scales, and bias. Arithmetic, not a measurement: how large the file is, the file says.
        float_bytes: of the same layer before.
        skipped: why it is not quantized, or "".
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


def quantization_report(original: nn.Module, quantized: nn.Module) -> list[LayerReport]:
    """One entry for each layer with parameters, in order of definition.

    Args:
        original: the model that was given to ``quantize``.
        quantized: what came back.
    """
    before = dict(original.named_modules())
    entries = []
    for name, layer in quantized.named_modules():
        if name not in before:
            raise ValueError(f"these are two different models: only one has a layer {name!r}")
        if isinstance(layer, QuantizedLayer):
            entries.append(_quantized_entry(name, before[name], layer))
        elif layer.count_parameters()[0]:
            entries.append(_float_entry(name, layer))
    return entries


def _quantized_entry(name: str, before: nn.Module, layer: QuantizedLayer) -> LayerReport:
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
    q = layer.quantization
    return LayerReport(
        name,
        type(before).__name__,
        q.bits,
        q.scheme,
        q.granularity,
        snr_db(w, approximate),
        float(np.abs(w - approximate).max()),
        _bytes(layer),
        _parameter_bytes(before),
        "",
    )


def _float_entry(name: str, layer: nn.Module) -> LayerReport:
    size = _parameter_bytes(layer)
    kind = type(layer).__name__
    return LayerReport(name, kind, None, None, None, None, None, size, size, why_skipped(layer))


def snr_db(signal: np.ndarray, approximation: np.ndarray) -> float:
    """Signal-to-noise ratio in decibels; 6.02 dB are one bit."""
    noise = float(((signal - approximation) ** 2).sum())
    power = float((signal**2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def _bytes(layer: QuantizedLayer) -> int:
    q = layer.quantization
    packed = lambda codes: -(-codes.size * q.bits // 8)  # noqa: E731
    shifts = packed(layer.weight_zero_point) if q.scheme == "affine" else 0
    return packed(layer.weight_codes) + layer.weight_scale.nbytes + shifts + _parameter_bytes(layer)


def _parameter_bytes(layer: nn.Module) -> int:
    """Of the layer's own parameters."""
    return sum(p.data.nbytes for p in layer._parameters.values() if p is not None)
