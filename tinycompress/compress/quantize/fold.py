"""Batch norm folded into the layer before it.

In evaluation batch norm multiplies each channel by a number and adds one, and a convolution or
linear layer is linear, so the two are one layer (Jacob et al. 2018, arXiv:1712.05877, section
3.2)::

    γ · (w x + b − μ) / √(σ² + ε) + β  =  (s w) x + (s (b − μ) + β),   s = γ / √(σ² + ε)

It comes first, before anything is quantized: the weights that are given codes should be those that
compute, and an integer engine has no batch norm. Statistics are those of evaluation, and it is
computed in float64. s may be negative (as γ may) or 0; a missing b counts as 0, and afterwards
there is one; without γ and β they are 1 and 0. Output channel o is made with ``weight[o]`` alone,
whatever ``groups`` is.

Which pairs there are, ``flow.py`` finds. A pair is folded where nobody but the norm reads what the
layer gives out. The norm's place is taken by an Identity, so that names stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.flow import Call, Flow, first_images, flow_of, tensors_in
from tinycompress.compress.quantize.replacing import replace_layers
from tinycompress.graph import no_grad
from tinycompress.nn import evaluation_mode

HEADS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
TOLERANCE = 1e-3
"""How much the outputs may change, of the largest: rounding in many layers, and no more."""

Pair = tuple[Call, Call]


def fold_batch_norm(model: nn.Module, sample: Any = None, *, strict: bool = True) -> nn.Module:
    """A copy of ``model`` with every batch norm that follows a layer folded into it.

    The copy computes the same in evaluation, up to rounding. Norms that follow something else stay.

    Args:
        model: it is not changed. Pruning masks stay, and hold.
        sample: a few inputs, as an array or a data set. The model is run on them to see which layer
            follows which, and once more to compare. None: only what stands in Sequentials is seen.
        strict: whether a norm that follows a layer, but cannot be folded into it, is an error;
            otherwise it stays.

    Raises:
        ValueError: such a norm, with the reason; or statistics that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fold_batch_norm takes a model, got {type(model).__name__}")
    pairs, problems = _pairs(flow_of(model, sample))
    folded = _with_folded(model, pairs)
    if sample is not None and pairs and not _agree(model, folded, sample):
        wrong = [p for p in pairs if not _agree(model, _with_folded(model, [p]), sample)]
        problems += [
            f"{norm} changes the outputs when it is folded into {head}: something else reads what "
            f"{head.name} gives out"
            for head, norm in wrong
        ]
        folded = _with_folded(model, [p for p in pairs if p not in wrong])
    if problems and strict:
        raise ValueError("batch norm cannot be folded:\n  " + "\n  ".join(problems))
    return folded


def _pairs(flow: Flow) -> tuple[list[Pair], list[str]]:
    """(layer and norm, for each that can be folded; why others cannot)."""
    pairs, problems = [], []
    for norm in flow.calls:
        head = flow.writer(norm.inputs[0]) if type(norm.layer) in NORMS else None
        if head is None or type(head.layer) not in HEADS:
            continue
        reader = flow.reader(head)
        if isinstance(reader, str):
            problems.append(f"{norm} follows {head}, but {reader}")
        elif isinstance(head.layer, nn.Linear) and head.axes not in (None, 2):
            problems.append(f"{norm}: its channels are not the features that {head} gives out")
        else:
            pairs.append((head, norm))
    return pairs, problems


def _with_folded(model: nn.Module, pairs: list[Pair]) -> nn.Module:
    copy = model.copy()
    norms: dict[int, nn.Module] = {}
    for head, norm in pairs:
        layer, statistics = copy.get_submodule(head.name), copy.get_submodule(norm.name)
        _fold(layer, statistics, str(norm))
        norms[id(statistics)] = nn.Identity().train(statistics.training)
    return replace_layers(copy, norms)


def _fold(layer: Any, norm: Any, label: str) -> None:
    """Change ``layer`` so that it computes what it and ``norm`` do now."""
    xp = array_module(layer.weight.data)
    with on_device(layer.weight.data), np.errstate(all="ignore"):
        wide = lambda a: a.astype(xp.float64)  # noqa: E731
        scale = 1 / xp.sqrt(wide(norm.running_var) + norm.eps)
        if norm.weight is not None:
            scale = wide(norm.weight.data) * scale
        shift = -wide(norm.running_mean) * scale
        if norm.bias is not None:
            shift = shift + wide(norm.bias.data)
        if layer.bias is not None:
            shift = shift + scale * wide(layer.bias.data)
        column = scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
        weight = (column * wide(layer.weight.data)).astype(layer.weight.dtype)
        bias = shift.astype(layer.weight.dtype)
        if not bool(xp.isfinite(weight).all() & xp.isfinite(bias).all()):
            raise ValueError(f"{label}: its statistics or factors hold NaN, infinity or too much")
    layer.weight.data = weight
    if layer.bias is None:
        layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.data = bias


def _agree(model: nn.Module, folded: nn.Module, sample: Any) -> bool:
    """Whether the two compute the same on the sample, up to rounding."""
    images = first_images(model, sample)
    with on_device(images):
        return all(
            float(abs(a - b).max()) <= TOLERANCE * max(float(abs(a).max()), 1e-30)
            for a, b in zip(*(_outputs(m, images) for m in (model, folded)), strict=True)
        )


def _outputs(model: nn.Module, images: Array) -> list[Array]:
    with evaluation_mode(model), no_grad():
        return [t.data for t in tensors_in(model(images))]
