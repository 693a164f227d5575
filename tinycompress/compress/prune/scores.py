"""The importance of every weight of some layers, whatever the criterion: names, functions, arrays.

``importance.py`` has the formulas and ``gradients.py`` the derivatives; this file brings the two
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import array_module, on_device
from tinycompress.compress.prune.gradients import batch_gradients, mean_gradients
from tinycompress.compress.prune.importance import (
    Criterion,
    Importance,
    checked_scores,
    criterion,
    layer_scores,
)
from tinycompress.compress.prune.layers import (
    PRUNABLE,
    check_finite,
    check_names,
    weights_by_layer,
)
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective


def weight_scores(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    importance: str | Importance | Mapping[str, Any] = "magnitude",
    data: Dataset | None = None,
    objective: Objective | None = None,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], Criterion]:
    """(layer → the importance of each of its weights as float64 on the host, the criterion).

    The criterion says how those of a unit become one: ``criterion.of_units(rows)``.

    Args:
        model: only read.
        weights: the layers, by name, and their weights.
        importance: a name, a function of (w, g), or the importances themselves by layer.
        data, objective, seed: as for :func:`~.one_shot.prune`.

    Raises:
        ValueError: weights, derivatives or importances that are NaN, shapes that differ, an unknown
            name, or a criterion that needs ``data``.
        TypeError: ``data`` that is no Dataset.
    """
    with on_device(next(iter(weights.values())).data):
        check_finite(weights)
        if isinstance(importance, Mapping):
            check_names("importance", importance, weights_by_layer(model, PRUNABLE))
            chosen = Criterion(_are_given, "unused")
            return checked_scores(weights, importance), chosen
        chosen = criterion(importance, seed)
        gradients = _gradients(model, list(weights), chosen, data, objective, seed)
        scores = layer_scores(weights, gradients, chosen.measure)
    if chosen.normalized:
        total = sum(float(s.sum()) for s in scores.values())
        scores = {name: s / total if total > 0 else s for name, s in scores.items()}
    return scores, chosen


def _are_given(w: Any, g: Any) -> Any:
    raise AssertionError("these importances are arrays, and nothing is left to measure")


def _gradients(
    model: nn.Module,
    layers: list[str],
    chosen: Criterion,
    data: Dataset | None,
    objective: Objective | None,
    seed: int,
) -> dict[str, Any]:
    """The derivatives where the criterion looks at them (a user's own always may), else None."""
    if data is None and chosen.gradients in ("required", "batch"):
        raise ValueError(
            f"importance {chosen.measure.__name__!r} looks at the derivative of the loss: give "
            "data=, a Dataset of images and labels to take it on"
        )
    if data is None or chosen.gradients == "unused":
        return dict.fromkeys(layers)
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset of images and labels, got {type(data).__name__}")
    if chosen.gradients == "batch":
        gradients = batch_gradients(model, layers, data, objective, seed)
    else:
        gradients = mean_gradients(model, layers, data, objective)
    for name, g in gradients.items():
        if not bool(array_module(g).isfinite(g).all()):
            raise ValueError(
                f"the derivative of the loss by layer {name!r} is NaN or infinite on this data; "
                "look at the loss there, and at the objective"
            )
    return dict(gradients)
