"""``tc.share_weights``: a model whose layers each have one small codebook.

The second stage of Deep Compression (Han et al. 2016, arXiv:1510.00149): prune, *share*, encode.
Afterwards ``tc.fit`` (or ``tc.distill``) trains the centroids, which is what brings the accuracy
back, and ``save`` writes the codes in the bits that they really need.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from tinycompress import nn
from tinycompress.backend import array_module, on_device
from tinycompress.compress.checks import check_model, label_of
from tinycompress.compress.prune.amounts import by_layer, check_seed, matching
from tinycompress.compress.quantize.integer import IntegerModule
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.qat.layers import Switched
from tinycompress.compress.quantize.replacing import with_replaced
from tinycompress.compress.share.kmeans import check_init
from tinycompress.compress.share.layers import SharedConv2d, SharedLayer, SharedLinear
from tinycompress.nn.compiled import Compiled
from tinycompress.shapes import whole

SHARED: dict[type[nn.Module], type[SharedLayer]] = {
    nn.Linear: SharedLinear,
    nn.Conv2d: SharedConv2d,
}
MAX_BITS = 15
"""With the zero, 2^15 + 1 codes are the most that fit into 16 bits."""
KIND = "layer to share weights in"


def share_weights(
    model: nn.Module,
    bits: int | Mapping[str, int] = 5,
    *,
    init: str = "linear",
    skip: str | Iterable[str] = (),
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` whose linear and convolutional layers have few different weights each.

    A weight that is 0, or that a mask prunes, gets the code of zero, which training does not move.
    The others get one of at most 2^bits centroids, found by k-means in each layer by itself.
    Biases and other layers stay as they are. Layers with the same weight keep having the same one,
    and are chosen all together, by the name of the first.

    Args:
        model: usually trained and pruned; it is not changed.
        bits: of a weight that is not pruned, 1 to 15; or a mapping from layers (names or patterns:
            ``{"conv*": 8, "fc*": 5}``) to bits, the other layers staying in floats.
        init: where centroids start: "linear", "density" or "random"; see ``kmeans.py``.
        skip: names or patterns of layers that stay in floats.
        seed: of ``init="random"``.

    Returns:
        A model to train further (``tc.fit(shared, …)`` moves the centroids) and to save.

    Raises:
        ValueError: there is nothing to share, a layer is shared or quantized already, weights are
            NaN or infinite, or an argument names no layer; all layers concerned are named.
        TypeError: ``model`` is no module.
    """
    check_model("share_weights", model)
    check_init(init)
    check_seed(seed)
    twins = _twins(model)
    chosen = _bits_by_layer(model, list(twins), bits, skip)
    _refuse(model, chosen)
    memo: dict[int, Any] = {}
    new: dict[str, nn.Module] = {}
    for number, (name, width) in enumerate(chosen.items()):
        for twin in twins[name]:
            layer = model.get_submodule(twin)
            shared = SHARED[type(layer)].from_float(layer, 2**width, init, seed + number)
            first = new.get(name, shared)
            shared.codebook, shared.codes = first.codebook, first.codes
            shared.bias = copy.deepcopy(layer.bias, memo)
            new[twin] = shared
    return with_replaced(model, new)


def unshare(model: nn.Module) -> nn.Module:
    """A copy of a model with shared weights that has float layers again, with the same weights.

    What has code 0 is pruned in it, by a mask. The weights of a centroid are then free to part;
    layers with the same codes keep having the same weight.

    Raises:
        ValueError: no layer has shared weights.
        TypeError: ``model`` is no module.
    """
    check_model("unshare", model)
    memo: dict[int, Any] = {}
    first: dict[tuple[int, int], nn.Module] = {}
    new: dict[str, nn.Module] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, SharedLayer):
            free = layer.to_float()
            key = id(layer.codebook), id(layer.codes)
            free.weight = first.setdefault(key, free).weight
            free.bias = copy.deepcopy(layer.bias, memo)
            new[name] = free
    if not new:
        raise ValueError(f"no layer of this {type(model).__name__} has shared weights")
    return with_replaced(model, new)


# ------------------------------------------------------------------------------------ validation


def _twins(model: nn.Module) -> dict[str, list[str]]:
    """Layer → all layers that have its weight, itself the first."""
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if type(module) in SHARED:
            found.setdefault(id(module.weight), []).append(name)
    return {names[0]: names for names in found.values()}


def _bits_by_layer(model: nn.Module, layers: list[str], bits: Any, skip: Any) -> dict[str, int]:
    """Layer → bits, for those to be shared, in order of definition."""
    if not layers:
        raise ValueError(_nothing_to_share(model))
    if isinstance(bits, Mapping):
        if not bits:
            raise ValueError('bits names no layer; give a number, or {"fc1": 5, …}')
        chosen = by_layer("bits", bits, layers, KIND)
    else:
        chosen = dict.fromkeys(layers, bits)
    skipped = matching("skip", skip, layers, KIND)
    chosen = {name: _width(name, b) for name, b in chosen.items() if name not in skipped}
    if not chosen:
        raise ValueError(f"bits and skip leave every layer in floats (skip={skipped})")
    return chosen


def _width(name: str, bits: Any) -> int:
    width = whole(f"share_weights: bits of layer {name!r}", bits, 1)
    if width > MAX_BITS:
        raise ValueError(
            f"share_weights: bits of layer {name!r} must be 1 to {MAX_BITS}, got {width}; with "
            "more, a codebook saves nothing, and tc.quantize is the better choice"
        )
    return width


def _nothing_to_share(model: nn.Module) -> str:
    held = _with_codes(model)
    if held:
        return "share_weights: " + "; ".join(held)
    kinds = {type(m).__name__ for m in model.modules() if isinstance(m, tuple(SHARED))}
    but = f"; a subclass ({', '.join(sorted(kinds))}) may compute something else" if kinds else ""
    return f"share_weights: this {type(model).__name__} has no Linear or Conv2d layer{but}"


def _with_codes(model: nn.Module) -> list[str]:
    """What is said of layers that hold codes already."""
    found = []
    for name, m in model.named_modules():
        label = label_of(name, m)
        if isinstance(m, SharedLayer):
            found.append(f"{label} has shared weights already; start from the float model")
        elif isinstance(m, QuantizedLayer | IntegerModule | Switched):
            found.append(f"{label} is for quantized weights; start from the float model")
        elif isinstance(m, Compiled):
            found.append(f"{label} cannot be changed; take the model that it was made from")
    return found


def _refuse(model: nn.Module, chosen: Iterable[str]) -> None:
    problems = _with_codes(model)
    for name in chosen:
        w = model.get_submodule(name).weight.data
        with on_device(w):
            if not bool(array_module(w).isfinite(w).all()):
                label = label_of(name, model.get_submodule(name))
                problems.append(f"{label} has weights that are NaN or infinite; train it again")
    if problems:
        raise ValueError("this model's weights cannot be shared:\n  " + "\n  ".join(problems))
