"""Importance: how much a weight would be missed.

A criterion is a function ``(w, g) -> array of w's shape``, where ``w`` is a layer's weight and
``g`` the derivative of the loss by it; the smallest values are pruned first. The loss around ``w``
is ``L(w + d) ≈ L(w) + g·d``, and to prune is to choose ``d = −w``: that gives Taylor's criterion.
Magnitude takes every derivative to be alike, gradient every weight.

    name          of a weight    of a unit of several      source
    "magnitude"   |w|            Σ |w|, the 1-norm         Han et al. 2015, arXiv:1506.02626
    "l2"          |w|            √(Σ w²), the 2-norm       He et al. 2018, arXiv:1808.06866
    "lamp"        w² / Σ v²      Σ of these                Lee et al. 2021, arXiv:2010.07611
    "gradient"    |g|            Σ |g|
    "taylor"      |w·g|          Σ |w·g|                   Molchanov et al. 2017, arXiv:1611.06440
    "snip"        |w·g| / Σ|w·g| Σ of these                Lee et al. 2019, arXiv:1810.02340
    "random"      a random u     the u of its first one

LAMP looks at the whole layer: v are its weights that are not smaller than w, w among them. So what
is compared is the share of a weight in what would be left of its layer if it went last: within a
layer the order is that of magnitude, and the largest weight of each has 1, so none is emptied.

SNIP is Taylor's formula at another time: before training, on one batch, as a step of training sees
it. Its derivative is that by a factor c on the weight, ``∂L(c·w)/∂c = w·g`` at c = 1; divided by
the sum over all weights it is the share of a weight in all of it, which no ranking sees.
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
    """``|w|``; of a unit of several weights the sum."""
    return array_module(w).abs(w)


def l2(w: Array, g: Array | None = None) -> Array:
    """``|w|``; of a unit of several weights the root of the sum of squares."""
    return array_module(w).abs(w)


def lamp(w: Array, g: Array | None = None) -> Array:
    """``w² / Σ v²`` over the v of this layer with ``v² ≥ w²``, as float64; 0 where w is 0.

    Of equal weights, those that come first have the smaller importance.
    """
    xp = array_module(w)
    wide = w.astype(np.float64).ravel()
    _, exponent = xp.frexp(xp.abs(wide).max())
    squares = xp.ldexp(wide, -exponent) ** 2  # of numbers up to 1, so that none is infinite
    order = xp.argsort(squares, kind="stable")
    ascending = squares[order]
    left = xp.cumsum(ascending[::-1])[::-1]
    importance = xp.empty_like(squares)
    importance[order] = ascending / xp.where(left > 0, left, 1)
    return importance.reshape(w.shape)


def gradient(w: Array, g: Array) -> Array:
    """``|g|``."""
    return array_module(g).abs(g)


def taylor(w: Array, g: Array) -> Array:
    """``|w·g|``: the change of the loss, to first order, when the weight becomes 0."""
    return array_module(w).abs(w * g)


def snip(w: Array, g: Array) -> Array:
    """``|w·g|``, with the ``g`` of one batch before training; the sum divides it later."""
    return array_module(w).abs(w * g)


def random(seed: int = 0) -> Importance:
    """A criterion that knows nothing: numbers drawn on the host, so alike on every device."""
    generator = np.random.default_rng(seed)
    return lambda w, g: generator.random(w.shape)


@dataclass(frozen=True)
class Criterion:
    """A measure of importance, and what it needs.

    Attributes:
        measure: the function of (w, g).
        gradients: whether it looks at the derivative; "batch": at that of one batch.
        reduction: how the importances of a unit's weights become one.
        normalized: whether all are divided by their sum over all layers.
    """

    measure: Importance
    gradients: Literal["unused", "optional", "required", "batch"]
    reduction: Literal["sum", "norm", "first"] = "sum"
    normalized: bool = False

    def of_units(self, rows: np.ndarray) -> np.ndarray:
        """The importance of each unit, (units,), from those of its weights, (units, weights)."""
        if rows.shape[1] == 1 or self.reduction == "first":
            return rows[:, 0]
        if self.reduction == "norm":
            return np.sqrt((rows * rows).sum(axis=1))
        with np.errstate(invalid="ignore"):  # ∞ − ∞, which is refused with the other NaN
            return rows.sum(axis=1)


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude, "unused"),
    "l2": Criterion(l2, "unused", "norm"),
    "lamp": Criterion(lamp, "unused"),
    "gradient": Criterion(gradient, "required"),
    "taylor": Criterion(taylor, "required"),
    "snip": Criterion(snip, "batch", normalized=True),
}
ELSEWHERE = {
    "movement": "adds up −w·g while the network is trained, so there is none in one shot: train "
    "with fit(…, callbacks=[MovementPruning(…)])",
    "batch_norm": 'ranks channels: give structure="channel", or use tc.remove_channels',
    "geometric_median": 'ranks channels: give structure="channel", or use tc.remove_channels',
}


def criterion(importance: str | Importance, seed: int = 0) -> Criterion:
    """The criterion behind a name, or around a function of your own.

    Raises:
        ValueError: a name that there is not, or not here.
    """
    known = {c.measure: c for c in CRITERIA.values()}
    if callable(importance):
        return known.get(importance, Criterion(importance, "optional"))
    if importance == "random":
        return Criterion(random(seed), "unused", "first")
    if isinstance(importance, str) and importance in ELSEWHERE:
        raise ValueError(f"importance {importance!r} {ELSEWHERE[importance]}")
    if not isinstance(importance, str) or importance not in CRITERIA:
        raise ValueError(
            f"importance must be one of {', '.join(map(repr, [*CRITERIA, 'random']))}, a "
            "function (w, g) -> array, or a mapping from layers to arrays of their importances, "
            f"got {importance!r}"
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
    return checked_scores(
        weights, {n: measure(_wide(p.data), _wide(gradients[n])) for n, p in weights.items()}
    )


def _wide(array: Any) -> Any:
    """Half precision as float32: a product of small numbers would be 0."""
    return array.astype("f4") if array is not None and array.dtype == "f2" else array


def checked_scores(
    weights: Mapping[str, nn.Parameter], given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """``given`` as float64 on the host, for each of these layers.

    Raises:
        ValueError: a layer that is missing, another shape than the weight's, or NaN.
    """
    scores = {}
    for name, p in weights.items():
        if name not in given:
            raise ValueError(
                f"importance: there is none of layer {name!r}; there are those of "
                f"{', '.join(map(repr, given))}; leave it as it is with skip={name!r}"
            )
        score = to_numpy(as_array(given[name])).astype(np.float64)
        if score.shape != p.shape:
            raise ValueError(
                f"importance of layer {name!r} must have the weight's shape {p.shape}, "
                f"got {score.shape}"
            )
        if np.isnan(score).any():
            raise ValueError(f"importance of layer {name!r} holds NaN, which has no rank")
        scores[name] = score
    return scores
