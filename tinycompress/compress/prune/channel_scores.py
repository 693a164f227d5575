"""How important a group of channels is.

All rows w[o] of weights that make its channels (a residual sum ties those of several layers) count
as one unit of a criterion of ``importance.py``; or what channels alone have does, added up:

    "magnitude"         Σ |w[o]|              Li et al. 2017, arXiv:1608.08710
    "taylor"            Σ |w[o]·g[o]|         Molchanov et al. 2017, arXiv:1611.06440
    "batch_norm"        Σ |γ[o]|              network slimming, Liu et al. 2017, arXiv:1708.06519
    "geometric_median"  Σ_j ‖w[o] − w[j]‖₂    FPGM, He et al. 2019, arXiv:1811.00250: a channel near
                                              the middle of its layer's can be stood for by others

All is ranked on the host, so that it is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.dependencies import Dependencies
from tinycompress.compress.prune.importance import Importance
from tinycompress.compress.prune.layers import check_finite
from tinycompress.compress.prune.scores import weight_scores
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

Rows = list[tuple[np.ndarray, np.ndarray]]
"""(labels, scores) of the rows of one array after the other."""
Together = Callable[[np.ndarray], np.ndarray]
"""One score for each of several sets of scores, (sets, scores) -> (sets,)."""


def group_scores(
    model: nn.Module,
    found: Dependencies,
    labels: list[int],
    importance: str | Importance | Mapping[str, Any],
    data: Dataset | None,
    objective: Objective | None,
    seed: int,
) -> dict[int, float]:
    """Label → importance, for these labels.

    Raises:
        ValueError: a criterion needs ``data`` or a batch norm that is not there; importances or
            weights without rank.
    """
    together: Together = lambda rows: rows.sum(axis=1)  # noqa: E731
    layers = {n: own for n, own in found.outputs().items() if np.isin(own, labels).any()}
    weights: dict[str, Any] = {name: model.get_submodule(name).weight for name in layers}
    if isinstance(importance, str) and importance == "batch_norm":
        rows = _norm_rows(model, found, layers, labels)
    elif isinstance(importance, str) and importance == "geometric_median":
        check_finite(weights)
        rows = [(layers[name], distances(to_numpy(p.data))) for name, p in weights.items()]
    else:
        scores, chosen = weight_scores(model, weights, importance, data, objective, seed)
        together = chosen.of_units
        for name, p in weights.items():
            if p.mask is not None and chosen.reduction != "first":  # what is pruned adds nothing
                scores[name] = np.where(to_numpy(p.mask), scores[name], 0.0)
        rows = [(layers[n], together(s.reshape(len(s), -1))) for n, s in scores.items()]
    return _by_label(rows, labels, together)


def _by_label(rows: Rows, labels: list[int], together: Together) -> dict[int, float]:
    parts: dict[int, list[float]] = {label: [] for label in labels}
    for own, scores in rows:
        for label, score in zip(own.tolist(), scores.tolist(), strict=True):
            if label in parts:
                parts[label].append(score)
    total = {label: float(together(np.array([scores]))[0]) for label, scores in parts.items()}
    if np.isnan(list(total.values())).any():
        raise ValueError("importance: NaN, or +∞ and −∞, meet in a group of channels: no rank")
    return total


def distances(w: np.ndarray) -> np.ndarray:
    """For each row of a weight (O, ...) the sum of its distances to all rows, (O) float64."""
    rows = w.reshape(len(w), -1).astype(np.float64)
    return np.array([np.sqrt(((rows - row) ** 2).sum(axis=1)).sum() for row in rows])


def _norm_rows(
    model: nn.Module, found: Dependencies, layers: Mapping[str, np.ndarray], labels: list[int]
) -> Rows:
    """|γ| of each batch norm behind these channels."""
    rows = []
    for axis in found.axes:
        layer = model.get_submodule(axis.layer)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and axis.own == "weight":
            gamma: Any = layer.weight
            rows.append((axis.labels, np.abs(to_numpy(gamma.data)).astype(np.float64)))
    normed = {label for own, _ in rows for label in own.tolist()}
    bare = [n for n, own in layers.items() if set(own.tolist()) & set(labels) - normed]
    if bare:
        raise ValueError(
            'importance "batch_norm" is the |γ| of the norm behind a layer, and there is none '
            f"behind {', '.join(map(repr, bare))}; skip={bare} leaves these as they are"
        )
    return rows
