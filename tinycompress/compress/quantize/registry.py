"""Which layer takes the place of which: the only link from ``nn`` layers to quantized ones."""

from __future__ import annotations

from tinycompress import nn
from tinycompress.compress.quantize.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear

REPLACEMENTS: dict[type[nn.Module], type[QuantizedLayer]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv2d: QuantizedConv2d,
}


def replacement_for(layer: nn.Module) -> type[QuantizedLayer] | None:
    """The quantized class for ``layer``, or None.

    A subclass is not its parent: it may compute something else in ``forward``.
    """
    return REPLACEMENTS.get(type(layer))


def why_skipped(layer: nn.Module) -> str:
    """Why a layer with parameters stays in floats, in words."""
    kind = type(layer).__name__
    parent = next((t.__name__ for t in REPLACEMENTS if isinstance(layer, t)), None)
    if parent:
        return f"{kind} is a subclass of {parent} and may compute something else"
    return f"there is no quantized {kind}"
