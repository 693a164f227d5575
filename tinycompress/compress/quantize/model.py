"""``tc.quantize`` and ``tc.dequantize``: a whole model, weights to codes and back."""

from __future__ import annotations

from tinycompress import nn
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.registry import REPLACEMENTS, replacement_for
from tinycompress.compress.quantize.replacing import with_replaced


def quantize(model: nn.Module, config: QuantConfig | None = None) -> nn.Module:
    """A copy of ``model`` whose linear and convolution layers hold codes instead of weights.

    Other layers, and biases, stay as they are. Weights that are 0, such as pruned ones, stay
    exactly 0. The result computes in floats with the weights that the codes stand for.

    Args:
        model: a trained model; it is not changed.
        config: how (default: ``QuantConfig()``: 8 bits, symmetric, per channel).

    Raises:
        ValueError: there is nothing to quantize, or some layers cannot be; all are named.
    """
    _check_model("quantize", model)
    config = QuantConfig() if config is None else config
    if not isinstance(config, QuantConfig):
        raise TypeError(f"config must be a QuantConfig, got {type(config).__name__}")
    new: dict[str, nn.Module] = {}
    problems: list[str] = []
    for name, layer in model.named_modules():
        kind = replacement_for(layer)
        if kind is None:
            continue
        label = f"{name or 'the model'} ({type(layer).__name__})"
        try:
            new[name] = kind.from_float(layer, config, label)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("this model cannot be quantized:\n  " + "\n  ".join(problems))
    if not new:
        raise ValueError(_nothing_to_quantize(model))
    return with_replaced(model, new)


def dequantize(model: nn.Module) -> nn.Module:
    """A copy of a quantized model with float layers again, whose weights are what the codes meant.

    It computes exactly what ``model`` computes. Masks of pruned weights are not brought back:
    prune again before training further.

    Raises:
        ValueError: no layer is quantized.
    """
    _check_model("dequantize", model)
    new = {n: m.to_float() for n, m in model.named_modules() if isinstance(m, QuantizedLayer)}
    if not new:
        raise ValueError(f"{type(model).__name__} has no quantized layer")
    return with_replaced(model, new)


def _check_model(verb: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{verb} takes a model, got {type(model).__name__}")


def _nothing_to_quantize(model: nn.Module) -> str:
    if any(isinstance(m, QuantizedLayer) for m in model.modules()):
        return (
            f"every layer of this {type(model).__name__} that can be quantized already is; call "
            "dequantize first to quantize it differently"
        )
    known = " or ".join(kind.__name__ for kind in REPLACEMENTS)
    return f"there is nothing to quantize in this {type(model).__name__}: it has no {known} layer"
