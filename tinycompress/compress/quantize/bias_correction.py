"""Bias correction: what rounding shifts on average is taken back.

Nagel et al. 2019, arXiv:1906.04721, section 4.2; the empirical one, appendix D.

Rounding weights shifts what a layer gives out on average: ``E[ŵ x] − E[w x] = (ŵ − w) E[x]`` is not
0, since x is not (after ReLU it is positive). At few bits that shift is most of the error, and a
shift can be taken back by the bias::

    b ← b + E[y of the float model] − E[y of the model with rounded weights]

for each output channel, over calibration data, layer by layer in the order of the forward pass, so
that each layer's shift is measured with what the corrected layers before it give.

Trap: it takes rounding for a shift. At 2 bits with the ranges of least squared error, rounding also
makes what a layer gives out *smaller*, as a whole; a bias for the full size is then too much, and
the model may become worse. Measure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import device_of, on_device, to_device
from tinycompress.compress.quantize.capture import channel_means
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.flow import flow_of
from tinycompress.compress.quantize.registry import REPLACEMENTS
from tinycompress.compress.quantize.weights import dequantize_weight, quantize_weight


def correct_biases(
    model: nn.Module,
    config: QuantConfig,
    data: Any,
    *,
    reference: nn.Module | None = None,
    batch_size: int = 100,
) -> nn.Module:
    """A copy of ``model``, still in floats, with the biases that its quantized weights need.

    Quantize it with the same ``config`` next; on its own it is worse than ``model``.

    Args:
        model: it is not changed. Fold batch norm first.
        config: how its weights will be quantized.
        data: images as an array or a data set; a few hundred do.
        reference: whose outputs are right (None: those of ``model``).
        batch_size: how many images at once.

    Raises:
        ValueError: there are no images, or weights that cannot be quantized; layers are named.
    """
    reference = model if reference is None else reference
    names = layers_in_order(model, config, data)
    right = channel_means(reference, names, data, batch_size)
    corrected, rounded = model.copy(), with_rounded_weights(model, config, names)
    for name in names:
        shift = right[name] - channel_means(rounded, [name], data, batch_size)[name]
        for each in (corrected, rounded):
            _add_to_bias(each.get_submodule(name), shift)
    return corrected


def layers_in_order(model: nn.Module, config: QuantConfig, data: Any) -> list[str]:
    """The layers that ``config`` quantizes, in the order in which the model calls them."""
    calls = [c for c in flow_of(model, data).calls if type(c.layer) in REPLACEMENTS]
    names = dict.fromkeys(c.name for c in calls if config.for_layer(c.name, c.layer) is not None)
    return list(names)


def with_rounded_weights(model: nn.Module, config: QuantConfig, names: list[str]) -> nn.Module:
    """A copy of ``model`` in floats whose layers of these names have weights on their grid."""
    copy = model.copy()
    for name in names:
        layer: Any = copy.get_submodule(name)
        own = config.for_layer(name, layer)
        if own is not None:
            label = f"{name or 'the model'} ({type(layer).__name__})"
            codes = quantize_weight(layer.weight.data, own, label)
            layer.weight.data = dequantize_weight(codes, own)
    return copy


def _add_to_bias(layer: Any, shift: np.ndarray) -> None:
    weight = layer.weight
    with on_device(weight.data):
        moved = to_device(shift.astype(weight.dtype), device_of(weight.data))
        if layer.bias is None:
            layer.bias = nn.Parameter(moved, requires_grad=weight.requires_grad)
        else:
            layer.bias.data = layer.bias.data + moved
