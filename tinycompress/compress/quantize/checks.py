"""What cannot be quantized, and what to do about it, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import array_module, on_device
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.integer import IntegerModule
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.qat.layers import Switched
from tinycompress.compress.quantize.registry import REPLACEMENTS


def check_layer(layer: Any, config: QuantConfig, label: str) -> None:
    """Refuse a bias that is no number, and scales that float16 cannot hold.

    Args:
        layer: a float layer with a weight.
        config: its own.
        label: its name, for errors.

    Raises:
        ValueError: with the layer's name.
    """
    if layer.weight.dtype == np.float16 and config.activations is None:
        raise ValueError(f"{label}: scales need float32, and it is float16; .to('float32') first")
    if layer.bias is None:
        return
    bias = layer.bias.data
    xp = array_module(bias)
    with on_device(bias):
        if not bool(xp.isfinite(bias).all()):
            what = "NaN" if bool(xp.isnan(bias).any()) else "infinity"
            raise ValueError(
                f"{label}: its bias holds {what}, and so would all that it gives out; take a model "
                "from before its training diverged"
            )


def nothing_to_quantize(model: nn.Module) -> str:
    """Why there is no layer in ``model`` to quantize."""
    kind = f"this {type(model).__name__}"
    found = list(model.modules())
    if any(isinstance(m, Switched) for m in found):
        return (
            f"{kind} is prepared for training with codes: train it, and tc.convert makes a "
            "quantized model of it; or quantize the float model that it was made from"
        )
    if any(isinstance(m, IntegerModule) for m in found):
        return (
            f"{kind} computes in integers already; to quantize it differently, start from the "
            "float model that it was made from"
        )
    if any(isinstance(m, QuantizedLayer) for m in found):
        return (
            f"every layer of {kind} that can be quantized already is; call dequantize first to "
            "quantize it differently"
        )
    kinds = " or ".join(layer.__name__ for layer in REPLACEMENTS)
    own = sorted({type(m).__name__ for m in found if m._parameters})
    instead = f", but has {', '.join(own)}" if own else ""
    return f"there is nothing to quantize in {kind}: it has no {kinds} layer{instead}"


def nothing_to_dequantize(model: nn.Module) -> str:
    """Why there is no layer in ``model`` whose weights alone are codes."""
    kind = f"this {type(model).__name__}"
    found = list(model.modules())
    if any(isinstance(m, Switched) for m in found):
        return (
            f"{kind} is prepared for training with codes and still has float weights; "
            "tc.dequantize takes what tc.quantize or tc.convert gave"
        )
    if any(isinstance(m, IntegerModule) for m in found):
        return (
            f"{kind} computes in integers from layer to layer, and tc.dequantize only gives back "
            "floats where weights alone are codes; keep the float model that it was made from (one "
            "layer's weights are in its .weight)"
        )
    return f"{kind} has no quantized layer: its weights are floats already"
