"""Channels taken out of a model: smaller arrays, that compute the same as the masked ones.

``dependencies.py`` says which places of which arrays belong to a channel, ``channels.py`` which
channels go, and ``constants.py`` what they leave behind in biases. Here they are cut out of a copy,
and the copy has to prove itself: it must compute what the masked model does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.prune.channels import (
    Options,
    Ranking,
    choose_channels,
    masks_of,
    refusal,
)
from tinycompress.compress.prune.constants import Constants
from tinycompress.compress.prune.dependencies import Dependencies, follow, places_of
from tinycompress.compress.prune.probe import run_watched
from tinycompress.compress.quantize.integer import IntegerModule
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.qat.layers import Switched
from tinycompress.compress.share.layers import SharedLayer
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

WITH_CODES = (Switched, QuantizedLayer, IntegerModule, SharedLayer)
"""Layers in training for codes, and layers with codes: quantized, integer, or shared weights."""
TOLERANCE = 1e-3
"""How much outputs may differ, of the largest: rounding in many layers, and no more."""


def remove_channels(
    model: nn.Module,
    amount: float | Mapping[str, float] | None = None,
    importance: Ranking = "magnitude",
    *,
    scope: str = "local",
    sample: Any = None,
    data: Dataset | None = None,
    objective: Objective | None = None,
    skip: str | Iterable[str] = (),
    keep_at_least: float | Mapping[str, float] = 1,
    seed: int = 0,
) -> nn.Module:
    """A smaller copy of ``model``, without the channels that matter least.

    It computes what ``model`` would in evaluation with these channels masked, to rounding, which is
    tried on random input before it is given back. Masks on what is left stay. Make a new optimizer
    for it.

    Followed are convolutions (depthwise and grouped ones too), linear layers, batch norm, pooling,
    activations of each value, dropout, flatten, sums and concatenations, as layers and in a
    ``forward`` of your own. In a grouped convolution, channel j of every group goes or stays. The
    model's own inputs and outputs stay.

    Args:
        amount: the share of channels to remove, 0 ≤ a < 1, rounded to whole groups of channels that
            go together; or a share for each layer by name or pattern, ``{"conv*": 0.5}``. None:
            those whose weights are all 0, masked or not, as ``tc.prune`` with
            ``structure="channel"`` leaves them.
        importance: as for :func:`tinycompress.prune`, summed over all weights that make a group;
            or "batch_norm" or "geometric_median" (``channels.py``).
        scope: "local" takes this share of each layer, and of layers whose channels are tied
            together; "global" ranks all groups of the model together.
        sample: inputs (N, ...), an array or data set: only their shape is used, to run the model
            once. None: that of ``data``, or what the first layer takes, square images of any size.
        data: samples on which the derivative of the loss is taken, where ``importance`` wants it.
        objective: gives that loss; cross-entropy unless given.
        skip: names or patterns of layers whose channels stay.
        keep_at_least: how many channels stay in each layer: a whole number, a share (a float), or
            either by name or pattern. At least one always does.
        seed: of the random criterion.

    Raises:
        ValueError: a channel that cannot be followed, named by its layer, with the operation that
            was in the way; an unknown name; an amount out of range. Nothing was changed.
        TypeError: a model that is prepared for quantization, quantized or compiled.
    """
    _check_is_float(model)
    found, x = follow(model, data if sample is None else sample)
    options = Options(importance, scope, data, objective, skip, keep_at_least, seed)
    gone = choose_channels(model, found, amount, options)
    masked = _masked(model, found, set() if amount is None else gone)
    sums = Constants(masked, x, found, gone)
    if sums.problems and amount is None:
        gone -= set(sums.problems)  # constants that no bias can take over: they stay
        sums = Constants(masked, x, found, gone)
    if sums.problems:
        raise ValueError(_named(sums.problems, found))
    slim = _without(model, found, gone, sums.added)
    why = _difference(masked, slim, x)
    if why:
        raise ValueError(_culprits(model, found, gone, x, amount is None) or why)
    return slim


def _check_is_float(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"remove_channels takes a model, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, WITH_CODES):
            raise TypeError(
                f"remove_channels: layer {name!r} is a {type(module).__name__}; remove channels "
                "from the float model first, then prepare, quantize or share the smaller one"
            )


def _masked(model: nn.Module, found: Dependencies, gone: set[int]) -> nn.Module:
    """A copy in which the channels with these labels are 0."""
    copy = model.copy()
    parameters = dict(copy.named_parameters())
    for name, mask in masks_of(model, found, gone).items():
        p = parameters[name]
        with on_device(p.data):
            p.data = p.data * to_device(mask, device_of(p.data))
    return copy


def _named(problems: Mapping[int, str], found: Dependencies) -> str:
    """The problems by the layers that make these channels."""
    why: dict[str, str] = {}
    for name, labels in found.outputs().items():
        for label in labels.tolist():
            if label in problems:
                why.setdefault(name, problems[label])
    return refusal("removed", why)


# ------------------------------------------------------------------------------- smaller arrays


def _without(
    model: nn.Module,
    found: Dependencies,
    gone: set[int],
    added: Mapping[tuple[str, str | None], np.ndarray],
) -> nn.Module:
    """A copy without the channels of these labels."""
    slim = model.copy()
    per_group = {id(m): m.weight.shape[0] // m.groups for m in slim.modules() if _by_groups(m)}
    parameters = dict(slim.named_parameters())
    for (layer, bias), constants in added.items():
        add_to_bias(slim.get_submodule(layer), parameters[bias] if bias else None, constants)
    places = {(place.layer, place.own): place for place in places_of(slim).values()}
    kept: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
    for axis in found.axes:
        keep = ~np.isin(axis.labels, list(gone))
        if not keep.all():
            kept.setdefault((axis.layer, axis.own), []).append((axis.number, keep))
    for (layer, bias), _ in added.items():  # a bias that was not there before
        if bias is None and (layer, "weight") in kept:
            kept[layer, "bias"] = [(n, keep) for n, keep in kept[layer, "weight"] if n == 0]
    for key, cuts in kept.items():
        module = places[key].module
        if key[1] in module._buffers:
            module._buffers[key[1]] = _cut(module._buffers[key[1]], cuts)
        else:
            p = module._parameters[key[1]]
            p.data, p.grad = _cut(p.data, cuts), None
            p.mask = None if p.mask is None else _cut(p.mask, cuts)
    for module in slim.modules():
        _set_sizes(module, per_group)
    return slim


def add_to_bias(layer: Any, bias: nn.Parameter | None, constants: np.ndarray) -> None:
    """Add (O) float64 to the bias of a layer; where it is None, the layer gets one."""
    w = layer.weight
    if bias is None:
        with on_device(w.data):
            zeros = array_module(w.data).zeros(len(constants), w.dtype)
        layer.bias = bias = nn.Parameter(zeros, requires_grad=w.requires_grad)
    with on_device(w.data):
        total = to_numpy(bias.data).astype(np.float64) + constants
        bias.data = to_device(total.astype(w.dtype), device_of(w.data))
        if bias.mask is not None:
            bias.mask = bias.mask | to_device(constants != 0, device_of(w.data))


def _cut(array: Any, cuts: list[tuple[int, np.ndarray]]) -> Any:
    with on_device(array):
        for axis, keep in cuts:
            index = to_device(np.flatnonzero(keep), device_of(array))
            array = array_module(array).take(array, index, axis=axis)
    return array


def _by_groups(module: Any) -> bool:
    """Whether its groups go as a whole (see ``following.py``)."""
    if not isinstance(module, nn.Conv2d) or module.groups == 1:
        return False
    return 1 in (module.weight.shape[0] // module.groups, module.weight.shape[1])


def _set_sizes(module: Any, per_group: Mapping[int, int]) -> None:
    """The sizes that a layer remembers, from its arrays; ``per_group``: outputs of such a group."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv2d):
        outputs, inputs = module.weight.shape[:2]
        if id(module) in per_group:
            module.groups = outputs // per_group[id(module)]
        module.out_channels, module.in_channels = outputs, inputs * module.groups
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = len(module.running_mean)


# ------------------------------------------------------------------------------------ the proof


def _difference(masked: nn.Module, slim: nn.Module, x: Array) -> str:
    """How the two differ on ``x``, in words; empty where they agree up to rounding."""
    expected = run_watched(masked, x, lambda call: None)
    try:
        given = run_watched(slim, x, lambda call: None)
    except Exception as error:
        return f"the smaller model cannot run: {error}"
    for a, b in zip(map(to_numpy, expected), map(to_numpy, given), strict=False):
        if a.shape != b.shape:
            return f"the smaller model gives shape {b.shape} where {a.shape} was given"
        largest = np.abs(a[np.isfinite(a)]).max(initial=1e-30)
        if not np.allclose(b, a, rtol=0, atol=TOLERANCE * largest, equal_nan=True):
            return "the smaller model does not compute what the masked one does"
    return ""


def _culprits(
    model: nn.Module, found: Dependencies, gone: set[int], x: Array, as_it_is: bool
) -> str:
    """The layers whose channels, removed alone, change what the model computes."""
    wrong: dict[int, str] = {}
    for labels in found.outputs().values():
        own = gone & set(labels.tolist())
        if not own:
            continue
        masked = _masked(model, found, set() if as_it_is else own)
        slim = _without(model, found, own, Constants(masked, x, found, own).added)
        why = _difference(masked, slim, x)
        if why:
            why += "; a forward of its own may hold a size, or an index, as a number"
            wrong |= dict.fromkeys(own, why)
    return _named(wrong, found) if wrong else ""
