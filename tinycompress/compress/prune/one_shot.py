"""Pruning in one shot: rank the weights, zero the least important, hold them there by masks.

Read ``importance.py`` (how they are ranked), ``structure.py`` (what goes as a whole),
``amounts.py`` and ``selection.py`` (how many go, and which) and ``masks.py`` first; this file puts
them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.amounts import (
    SCOPES as SCOPES,
    check_scope,
    check_seed,
    check_sparsities,
    check_sparsity as check_sparsity,
    floors_of,
    pools,
)
from tinycompress.compress.prune.channels import channel_masks
from tinycompress.compress.prune.importance import Criterion, Importance
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.scores import weight_scores
from tinycompress.compress.prune.selection import keep_masks
from tinycompress.compress.prune.structure import Structure, keep_n_of_m, parse_structure
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

Sparsity = float | Mapping[str, float] | None
Ranking = str | Importance | Mapping[str, Any]
Floor = float | Mapping[str, float]


def prune(
    model: nn.Module,
    sparsity: Sparsity = None,
    importance: Ranking = "magnitude",
    scope: str = "global",
    *,
    structure: str = "weight",
    skip: str | Iterable[str] = (),
    keep_at_least: Floor = 1,
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` with its least important weights at 0, and masks that hold them there.

    Pruned are the weights of ``Linear`` and ``Conv2d``, not biases. Of n weights (or kernels, or
    rows) exactly ``round(sparsity · n)`` are zero afterwards, counting those that were zero before,
    as far as ``keep_at_least`` allows. Pruning a pruned model prunes more of it; ``sparsity`` is
    always the share of all. Make a new optimizer for the copy.

    Args:
        sparsity: the share of weights to be zero, 0 ≤ s < 1; or a share for each layer by name or
            pattern, ``{"fc1": 0.9, "features.*": 0.5}``, the other layers being left as they are.
            With a structure n:m it is 1 − n/m, and may be left out.
        importance: "magnitude" |w|, "l2", "lamp", "gradient" |g|, "taylor" |w·g|, "snip" (before
            training), "random", or a function ``(w, g) -> array of w's shape``, larger where the
            weight is needed more; ``g`` is None without ``data``. Or such arrays, by layer. See
            ``importance.py``. For channels also "batch_norm" and "geometric_median".
        scope: "global" ranks the weights of all layers together; "local" prunes each layer by the
            same share. Without effect where ``sparsity`` names layers.
        structure: what goes as a whole: "weight", "kernel" (of convolutions; linear layers are left
            as they are), "row", n of every m such as "2:4" (``structure.py``), or "channel", an
            output channel with its bias and batch norm and what is tied to it (``channels.py``;
            :func:`tinycompress.remove_channels` then makes the model smaller).
        skip: names or patterns of layers to leave alone; their weights are not counted.
        keep_at_least: how much of each layer stays, whatever its share: a whole number of weights
            (kernels, rows, channels), a share of the layer as a float, or a mapping from layers to
            these. One always stays.
        data: samples on which the derivative ``g`` of the loss is taken; for "snip" the batch, of
            at most 500. With "channel", a model with a ``forward`` of its own is run on it.
        objective: gives that loss, ``objective(model, *batch) -> (loss, outputs)``; cross-entropy
            unless given.
        seed: of the random criterion, and of SNIP's batch where it is drawn from more samples.

    Raises:
        ValueError: no layer to prune, an unknown name, a sparsity out of range or below what is
            pruned already, a layer with fewer units than are to stay, weights or importances that
            are NaN, a criterion that needs ``data``.
        TypeError: ``model`` is no module, ``data`` no Dataset, a sparsity no number.
    """
    masks = choose_masks(
        model,
        sparsity,
        importance,
        scope,
        structure=structure,
        skip=skip,
        keep_at_least=keep_at_least,
        data=data,
        objective=objective,
        seed=seed,
    )
    thin = model.copy()
    apply_masks(thin, masks)
    return thin


def choose_masks(
    model: nn.Module,
    sparsity: Sparsity = None,
    importance: Ranking = "magnitude",
    scope: str = "global",
    *,
    structure: str = "weight",
    skip: str | Iterable[str] = (),
    keep_at_least: Floor = 1,
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    regrow: bool = False,
    or_more: bool = False,
) -> dict[str, np.ndarray]:
    """The masks that :func:`prune` would set; ``model`` is only read.

    Args:
        regrow: rank all weights anew by importance alone, whatever the masks that are there and the
            zeros: what was pruned may come back. (As magnitude a pruned weight is 0; give
            ``importance`` the arrays to rank by.)
        or_more: where more than ``sparsity`` is pruned already, leave it so; else that is an error.

    Returns:
        Layer name → boolean array of the weight's shape, True where it is kept, for each layer that
        is pruned. For structure "channel" parameter name → boolean array, for weights, biases and
        what belongs to the batch norms. ``apply_masks`` takes both.
    """
    check_seed(seed)
    if structure == "channel":
        if regrow:
            raise ValueError('regrow=True is of weights, kernels and rows, not structure="channel"')
        prunable_weights(model)
        check_scope(scope)
        check_sparsities(sparsity)
        options: dict[str, Any] = {"amount": sparsity, "importance": importance, "scope": scope}
        options |= {"skip": skip, "keep_at_least": keep_at_least, "seed": seed}
        options |= {"or_more": or_more}
        return channel_masks(model, data=data, objective=objective, **options)
    unit = parse_structure(structure)
    weights = _with_units(prunable_weights(model, skip), unit)
    sizes = {name: unit.count(p.shape) for name, p in weights.items()}
    together = pools(sizes, _share(sparsity, unit), scope)
    weights = {name: weights[name] for names, _ in together for name in names}
    floors = floors_of(keep_at_least, sizes, units=unit.units, pruned=weights)
    scores, chosen = weight_scores(model, weights, importance, data, objective, seed)
    w = {n: np.ones(p.shape) if regrow else to_numpy(p.data) for n, p in weights.items()}
    old = {n: None if regrow else _host_mask(p) for n, p in weights.items()}
    if unit.m:
        return {n: _n_of_m(n, scores[n], w[n], old[n], unit, floors[n]) for n in weights}
    masks: dict[str, np.ndarray] = {}
    for names, count in together:
        keep = keep_masks(
            {n: _unit_scores(n, scores[n], old[n], unit, chosen) for n in names},
            {n: unit.rows(w[n]) for n in names},
            {n: _rows(old[n], unit) for n in names},
            count,
            floors,
            unit.units,
            or_more,
        )
        for n in names:
            spread = unit.spread(keep[n], w[n].shape)
            masks[n] = spread if old[n] is None else spread & old[n]
    return masks


def _with_units(weights: Mapping[str, nn.Parameter], unit: Structure) -> dict[str, nn.Parameter]:
    """The layers that have such units."""
    having = {name: p for name, p in weights.items() if unit.prunes(p.shape)}
    if not having:
        raise ValueError(
            f"structure {unit.name!r}: there is no layer to prune with {unit.units} among "
            f"{', '.join(map(repr, weights))}"
        )
    return having


def _share(sparsity: Sparsity, unit: Structure) -> Any:
    """The sparsity, checked against the one that n:m has."""
    if unit.sparsity is None:
        return sparsity
    if sparsity is None:
        return unit.sparsity
    given = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
    for value in given:
        check_sparsity("sparsity", value)
        if not math.isclose(value, unit.sparsity):
            raise ValueError(
                f"structure {unit.name!r} prunes {unit.sparsity:g} of the weights, got sparsity="
                f"{value!r}; leave it out"
            )
    return sparsity


def _unit_scores(
    name: str, scores: np.ndarray, mask: np.ndarray | None, unit: Structure, chosen: Criterion
) -> np.ndarray:
    """One number for each unit; weights that were pruned before add nothing."""
    if mask is not None and chosen.reduction != "first":
        scores = np.where(mask, scores, 0.0)
    of_units = chosen.of_units(unit.rows(scores))
    if np.isnan(of_units).any():
        raise ValueError(
            f"importance of layer {name!r}: +∞ and −∞ meet in one of its {unit.units}, and their "
            "sum has no rank"
        )
    return of_units


def _n_of_m(
    name: str,
    scores: np.ndarray,
    w: np.ndarray,
    mask: np.ndarray | None,
    unit: Structure,
    floor: int,
) -> np.ndarray:
    """The mask of a layer that keeps n of every m."""
    keep = keep_n_of_m(scores, w, mask, unit.n, unit.m)
    kept = int(keep.sum())
    if kept < floor:
        raise ValueError(
            f"structure {unit.name!r} leaves layer {name!r} {kept:,} of its {keep.size:,} weights, "
            f"and keep_at_least wants {floor:,}; skip={name!r} leaves it as it is"
        )
    return keep


def _rows(mask: np.ndarray | None, unit: Structure) -> np.ndarray | None:
    return None if mask is None else unit.rows(mask)


def _host_mask(p: nn.Parameter) -> np.ndarray | None:
    return None if p.mask is None else to_numpy(p.mask)
