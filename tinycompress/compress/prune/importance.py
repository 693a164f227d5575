"""Importance: how much a weight would be missed.

A criterion is a function ``(w, g) -> array of w's shape``, where ``w`` is a layer's weight and
``g`` the derivative of the loss by it; the smallest values are pruned first. The loss around ``w``
is ``L(w + d) ≈ L(w) + g·d``, and to prune is to choose ``d = −w``: that gives Taylor's criterion.
Magnitude takes every derivative to be alike, gradient every weight.

Magnitude: Han et al. 2015, arXiv:1506.02626. Taylor: Molchanov et al. 2017, arXiv:1611.06440.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, to_numpy
from tinycompress.tensor import as_array

Importance = Callable[[Array, Any], Array]
"""``(w, g) -> importance``; ``g`` is None where no data was given to differentiate on."""


def magnitude(w: Array, g: Array | None = None) -> Array:
    """``|w|``."""
    return array_module(w).abs(w)


def gradient(w: Array, g: Array) -> Array:
    """``|g|``."""
    return array_module(g).abs(g)


def taylor(w: Array, g: Array) -> Array:
    """``|w·g|``: the change of the loss, to first order, when the weight becomes 0."""
    return array_module(w).abs(w * g)


def random(seed: int = 0) -> Importance:
    """A criterion that knows nothing: numbers drawn on the host, so alike on every device."""
    generator = np.random.default_rng(seed)
    return lambda w, g: generator.random(w.shape)


@dataclass(frozen=True)
class Criterion:
    """A measure of importance, and whether it looks at the derivative."""

    measure: Importance
    gradients: Literal["unused", "optional", "required"]


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude, "unused"),
    "gradient": Criterion(gradient, "required"),
    "taylor": Criterion(taylor, "required"),
}


def criterion(importance: str | Importance, seed: int = 0) -> Criterion:
    """The criterion behind a name, or around a function of your own."""
    known = {c.measure: c for c in CRITERIA.values()}
    if callable(importance):
        return known.get(importance, Criterion(importance, "optional"))
    if importance == "random":
        return Criterion(random(seed), "unused")
    if importance not in CRITERIA:
        raise ValueError(
            f"importance must be one of {', '.join(map(repr, [*CRITERIA, 'random']))} or a "
            f"function (w, g) -> array, got {importance!r}"
        )
    return CRITERIA[importance]


def layer_scores(
    weights: Mapping[str, nn.Parameter],
    gradients: Mapping[str, Array | None],
    measure: Importance,
) -> dict[str, np.ndarray]:
    """The importance of every weight, as float64 on the host, by layer.

    The ranking that follows is done on the host: it is short, and the same on every device.

    Raises:
        ValueError: a criterion returned another shape, or NaN.
    """
    scores = {}
    for name, p in weights.items():
        score = to_numpy(as_array(measure(p.data, gradients[name]))).astype(np.float64)
        if score.shape != p.shape:
            raise ValueError(
                f"importance of layer {name!r} must have the weight's shape {p.shape}, "
                f"got {score.shape}"
            )
        if np.isnan(score).any():
            raise ValueError(f"importance of layer {name!r} holds NaN, which has no rank")
        scores[name] = score
    return scores
