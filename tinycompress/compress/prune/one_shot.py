"""Pruning in one shot: rank the weights, zero the least important, hold them there by masks.

Read ``importance.py`` (how they are ranked), ``selection.py`` (how many go, and which) and
``masks.py`` first; this file puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import on_device, to_numpy
from tinycompress.compress.prune.gradients import mean_gradients
from tinycompress.compress.prune.importance import (
    Criterion,
    Importance,
    criterion,
    layer_scores,
)
from tinycompress.compress.prune.layers import check_finite, check_names, prunable_weights
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.selection import keep_masks, pruned_count
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

SCOPES = ("global", "local")


def prune(
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    *,
    importance: str | Importance = "magnitude",
    scope: str = "global",
    skip: str | Iterable[str] = (),
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` with its least important weights at 0, and masks that hold them there.

    Pruned are the weights of ``Linear`` and ``Conv2d``, not biases. Of n weights exactly
    ``round(sparsity · n)`` are zero afterwards, counting those that were zero before; only the last
    weight of a layer is always kept. Pruning a pruned model prunes more of it; ``sparsity`` is
    always the share of all weights. Make a new optimizer for the copy.

    Args:
        sparsity: the share of weights to be zero, 0 ≤ s < 1; or a share for each layer by name,
            ``{"fc1": 0.9}``, the other layers being left as they are.
        importance: "magnitude" |w|, "gradient" |g|, "taylor" |w·g|, "random", or a function
            ``(w, g) -> array of w's shape``, larger where the weight is needed more. ``g`` is None
            without ``data``.
        scope: "global" ranks the weights of all layers together; "local" prunes each layer by the
            same share. Without effect where ``sparsity`` names layers.
        skip: names of layers to leave alone; their weights are not counted.
        data: samples on which the derivative ``g`` of the loss is taken.
        objective: gives that loss, ``objective(model, *batch) -> (loss, outputs)``; cross-entropy
            unless given.
        seed: of the random criterion.

    Raises:
        ValueError: no layer to prune, an unknown name, a sparsity out of range or below what is
            pruned already, weights or importances that are NaN, a criterion that needs ``data``.
        TypeError: a sparsity that is no number.
    """
    masks = choose_masks(model, sparsity, importance, scope, skip, data, objective, seed)
    thin = model.copy()
    apply_masks(thin, masks)
    return thin


def choose_masks(
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    importance: str | Importance = "magnitude",
    scope: str = "global",
    skip: str | Iterable[str] = (),
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The masks that :func:`prune` would set, by layer name; ``model`` is only read."""
    weights = prunable_weights(model, skip)
    pools = _pools(weights, sparsity, scope)
    weights = {name: weights[name] for names, _ in pools for name in names}
    chosen = criterion(importance, seed)
    with on_device(next(iter(weights.values())).data):
        check_finite(weights)
        gradients = _gradients(model, list(weights), chosen, data, objective)
        scores = layer_scores(weights, gradients, chosen.measure)
    masks: dict[str, np.ndarray] = {}
    for names, count in pools:
        masks |= keep_masks(
            {name: scores[name] for name in names},
            {name: to_numpy(weights[name].data) for name in names},
            {name: _host_mask(weights[name]) for name in names},
            count,
        )
    return masks


def _pools(
    weights: Mapping[str, nn.Parameter], sparsity: float | Mapping[str, float], scope: str
) -> list[tuple[list[str], int]]:
    """Which layers are ranked together, and how many of their weights go."""
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(map(repr, SCOPES))}, got {scope!r}")
    if not isinstance(sparsity, Mapping):
        check_sparsity("sparsity", sparsity)
        if scope == "global":
            n = sum(p.size for p in weights.values())
            return [(list(weights), pruned_count(sparsity, n, len(weights)))]
        sparsity = dict.fromkeys(weights, sparsity)
    if not sparsity:
        raise ValueError('sparsity names no layer; give a number, or {"fc1": 0.9, …}')
    check_names("sparsity", sparsity, weights)
    for name, value in sparsity.items():
        check_sparsity(f"sparsity of layer {name!r}", value)
    return [([name], pruned_count(s, weights[name].size)) for name, s in sparsity.items()]


def _gradients(
    model: nn.Module,
    layers: list[str],
    chosen: Criterion,
    data: Dataset | None,
    objective: Objective | None,
) -> dict[str, Any]:
    """The derivatives where the criterion looks at them (a user's own always may), else None."""
    if data is None and chosen.gradients == "required":
        raise ValueError(
            f"importance {chosen.measure.__name__!r} looks at the derivative of the loss: give "
            "data=, a Dataset of images and labels to take it on"
        )
    if data is None or chosen.gradients == "unused":
        return dict.fromkeys(layers)
    return dict(mean_gradients(model, layers, data, objective))


def _host_mask(p: nn.Parameter) -> np.ndarray | None:
    return None if p.mask is None else to_numpy(p.mask)


def check_sparsity(what: str, value: float) -> None:
    """Raise unless ``value`` is a number of [0, 1)."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not (math.isfinite(value) and 0 <= value < 1):
        raise ValueError(
            f"{what} must be at least 0 and below 1, the share of weights to become zero, "
            f"got {value!r}"
        )
