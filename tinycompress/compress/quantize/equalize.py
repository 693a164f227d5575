"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1).

One scale for a whole weight is a poor fit where its channels differ a hundredfold in size. But in
``w₂ · relu(w₁ x + b₁)`` a channel may be divided by a number ``s > 0`` in one layer and multiplied
by it in the next, since ``relu(s x) = s · relu(x)``; what comes out is the same. With

    sᵢ = √(r₁ᵢ / r₂ᵢ),   r₁ᵢ = max |w₁ of output channel i|,  r₂ᵢ = max |w₂ of input channel i|

both channels have the size ``√(r₁ᵢ r₂ᵢ)`` afterwards, which is best for both (equation 9). Layers
in a row are done pair by pair until nothing changes. Between the two there may be any layers that
let a positive factor through: ReLU, LeakyReLU, pooling, flatten.

It helps most with ``granularity="per_tensor"``. With a scale for each output channel the first
layer gains nothing, the second one still does. It makes activations of different channels larger
or smaller too, and they share one scale: measure. Fold batch norm before.

Traps: a channel whose weights are all 0 in one of the layers keeps its size (s = 1); after flatten
an input channel is a *block* of columns of the linear layer; in a grouped convolution input channel
i belongs to one group alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.flow import Call, Flow, flow_of

HEADS = (nn.Conv2d, nn.Linear)
HOMOGENEOUS = (
    nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten
)  # fmt: skip
"""Layers with ``f(s x) = s f(x)`` for every s > 0 that may differ from channel to channel."""


class Pair(NamedTuple):
    """Two neighbouring layers by name, and how many inputs of the second one are one channel."""

    first: str
    second: str
    block: int


def equalize(
    model: nn.Module, sample: Any = None, *, rounds: int = 50, tolerance: float = 1e-4
) -> nn.Module:
    """A copy of ``model`` that computes the same with weights of more even size.

    Args:
        model: it is not changed. Fold batch norm first.
        sample: a few inputs, as an array or a data set, to see which layer follows which; None:
            only what stands in Sequentials is seen.
        rounds: how often to go through all pairs, at most.
        tolerance: stop where no channel changes by more than this share.

    Raises:
        ValueError: there are no two layers to equalize.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"equalize takes a model, got {type(model).__name__}")
    pairs = _pairs(flow_of(model, sample))
    if not pairs:
        hint = "" if sample is not None else "; give a sample to look into a forward of your own"
        raise ValueError(
            f"equalize: no two layers of this {type(model).__name__} follow each other with "
            f"nothing but ReLU, pooling and flatten between{hint}"
        )
    copy = model.copy()
    for _ in range(rounds):
        if max(_equalize_pair(copy, pair) for pair in pairs) <= tolerance:
            break
    return copy


def _pairs(flow: Flow) -> list[Pair]:
    found = [_pair(flow, call) for call in flow.calls if type(call.layer) in HEADS]
    return [pair for pair in found if pair is not None]


def _pair(flow: Flow, first: Call) -> Pair | None:
    """The pair that ``first`` begins; None where there is none."""
    call, flattened = first, False
    while True:
        reader = flow.reader(call)
        if isinstance(reader, str):
            return None
        if type(reader.layer) in HEADS:
            break
        if type(reader.layer) not in HOMOGENEOUS:
            return None
        flattened |= type(reader.layer) is nn.Flatten
        call = reader
    channels = first.layer.weight.shape[0]
    inputs = _inputs(reader.layer)
    convolution = type(first.layer) is nn.Conv2d
    if type(reader.layer) is nn.Conv2d:
        fits = convolution and not flattened and inputs == channels
    else:
        fits = inputs % channels == 0 if convolution else inputs == channels
        fits = fits and flattened == convolution
    return Pair(first.name, reader.name, inputs // channels) if fits else None


def _inputs(layer: Any) -> int:
    return layer.in_channels if type(layer) is nn.Conv2d else layer.in_features


def _equalize_pair(model: nn.Module, pair: Pair) -> float:
    """Equalize it; the largest ``|s − 1|``."""
    first: Any = model.get_submodule(pair.first)
    second: Any = model.get_submodule(pair.second)
    w1, w2 = first.weight.data, second.weight.data
    xp = array_module(w1)
    with on_device(w1), np.errstate(divide="ignore", invalid="ignore"):
        r1 = abs(w1).reshape(len(w1), -1).max(axis=1).astype(xp.float64)
        by_channel = _by_input_channel(second, pair.block)  # a view: (groups, O', C', block)
        r2 = abs(by_channel).max(axis=(1, 3)).reshape(-1).astype(xp.float64)
        s = xp.where((r1 > 0) & (r2 > 0), xp.sqrt(r1 / xp.where(r2 > 0, r2, 1.0)), 1.0)
        s = s.astype(w1.dtype)
        first.weight.data = w1 / s.reshape(-1, *(1,) * (w1.ndim - 1))
        if first.bias is not None:
            first.bias.data = first.bias.data / s
        scaled = by_channel * s.reshape(len(by_channel), 1, -1, 1)
        second.weight.data = scaled.reshape(w2.shape)
        return float(abs(s - 1).max())


def _by_input_channel(layer: Any, block: int) -> Array:
    """The weight as (groups, outputs of a group, inputs of a group, numbers of one input)."""
    groups = layer.groups if type(layer) is nn.Conv2d else 1
    inputs = _inputs(layer) // block // groups
    return layer.weight.data.reshape(groups, len(layer.weight.data) // groups, inputs, -1)
