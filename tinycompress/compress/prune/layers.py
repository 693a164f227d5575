"""What is pruned: the weights of linear and convolutional layers, by the layer's name.

Layers prepared for quantization-aware training are such layers too: what is masked is their latent
weight, under the same name, and a masked latent weight has the code of 0.
Biases and normalisation have too few numbers to be worth a mask, and losing one costs accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinycompress import nn
from tinycompress.backend import array_module
from tinycompress.compress.prune.amounts import matching
from tinycompress.compress.quantize.integer import IntegerLayer
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.share.layers import SharedLayer

PRUNABLE = (nn.Linear, nn.Conv2d)


def prunable_weights(model: nn.Module, skip: str | Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """Layer name → weight, in the order of definition; a shared weight comes once.

    Args:
        model: the network, or a single layer (whose name is then "").
        skip: names or patterns (``fnmatch``) of layers to leave out.

    Raises:
        ValueError: a name in ``skip`` that is no prunable layer, or no layer is left.
        TypeError: no model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is what can be pruned, got {type(model).__name__}")
    weights = weights_by_layer(model, PRUNABLE)
    if not weights:
        _refuse_codes(model)
    skipped = matching("skip", skip, weights)
    left = {name: w for name, w in weights.items() if name not in skipped}
    if not left:
        raise ValueError(
            f"{type(model).__name__} has no layer to prune: it needs at least one Linear or "
            f"Conv2d that is not skipped (skip={skipped})"
        )
    return left


def _refuse_codes(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer | IntegerLayer | SharedLayer):
            then = "share its weights" if isinstance(module, SharedLayer) else "quantize it"
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__}, whose codes are not pruned; prune "
                f"the float model first, then {then}"
            )


def weights_by_layer(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, Any]:
    """Layer name → weight of every layer of these kinds; a shared weight comes once."""
    weights: dict[str, Any] = {}
    seen: set[tuple[int, ...]] = set()
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            weight = module.weight
            key: tuple[int, ...] = (id(weight),)
            if isinstance(module, SharedLayer):  # makes a new weight at each reading
                key = id(module.codebook), id(module.codes)
            if key not in seen:
                seen.add(key)
                weights[name] = weight
    return weights


def check_names(argument: str, names: Iterable[str], weights: Iterable[str]) -> None:
    """Raise where one of ``names`` is not among the layers of ``weights``."""
    unknown = [name for name in names if name not in weights]
    if unknown:
        raise ValueError(
            f"{argument}: there is no prunable layer {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(map(repr, weights))}"
        )


def check_finite(weights: Mapping[str, nn.Parameter]) -> None:
    """Raise where a weight is NaN or infinite: it has no rank among the others."""
    for name, p in weights.items():
        bad = int((~array_module(p.data).isfinite(p.data)).sum())
        if bad:
            raise ValueError(
                f"layer {name!r} holds {bad} weights that are NaN or infinite, so they cannot be "
                "ranked; train again with a smaller learning rate, or clip_grad_norm"
            )
