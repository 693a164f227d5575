"""Bias correction: a class that a student never met is one that it hardly dares to name.

A student that learned from a transfer set without 3s knows from its teacher what a 3 looks like,
since other digits look a little like one. But the last layer's bias has learned how often a 3
comes: never. One number repairs it. With z the logits of an image and m = max_{k ≠ c} z_k, class c
is chosen where z_c + b > m, so only the *thresholds* m − z_c of the images matter, and between two
of them all b are alike. The best one can be found exactly, by sorting them:

    labels     the b with which most of some labelled images are right (Hinton chose it so)
    share      the b with which class c is named as often as it is known to come; needs no labels

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3: "if this bias is increased by 3.5 …".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinycompress.backend import on_device, to_device, to_numpy
from tinycompress.compress.answers import labels_of
from tinycompress.data import Dataset
from tinycompress.nn import Module, Parameter
from tinycompress.optim.checks import count, unit_interval
from tinycompress.train.evaluate import has_classes, predict
from tinycompress.train.workers import Workers

ROUNDS = 10  # over several classes, whose offsets depend on each other
SLACK = 1e-6  # of shares that should add up to 1


def correct_bias(
    model: Module,
    data: Dataset,
    classes: int | Iterable[int] = (),
    *,
    shares: Mapping[int, float] | None = None,
    layer: str | None = None,
    workers: Workers | int | None = None,
) -> Module:
    """A copy of ``model`` in which the biases of some classes in the last layer are moved.

    Args:
        model: whose outputs (N, K) are those of a layer with a bias.
        data: images to choose by, not those of the final test; with labels, unless ``shares``.
        classes: whose biases are moved so that most of ``data`` is right.
        shares: instead, class → how often it comes, 0 … 1, such as ``{3: 0.1}``: the biases are
            moved so that the model names it as often. Labels are not looked at.
        layer: the dotted name of the last layer; None: the last one that has a bias of K numbers.
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        TypeError, ValueError: neither classes nor shares, or both; a class that is not there; a
            share out of range, or shares that are more than 1 together, or less for all classes;
            labels that are no classes of the model's; a model that answers NaN, or knows one class
            only; no such layer, or one that is not the last.
    """
    wanted = list(classes) if isinstance(classes, Iterable) else [classes]
    _check_arguments(data, wanted, shares)
    z = to_numpy(predict(model, data.images, workers=workers)).astype(np.float64)
    if not np.isfinite(z).all():
        raise ValueError("correct_bias: the model answers NaN or infinity")
    _check_classes(z.shape[1], list(shares or wanted), list((shares or {}).values()))
    labels = None if shares else labels_of("correct_bias", data, z.shape[1])
    offsets = np.zeros(z.shape[1])
    for _ in range(ROUNDS):
        before = offsets.copy()
        for c in shares or wanted:
            bare = z + offsets
            thresholds = np.delete(bare, c, axis=1).max(axis=1) - z[:, c]
            if labels is None:
                offsets[c] = offset_for_share(thresholds, (shares or {})[c])
            else:
                rest = bare.copy()
                rest[:, c] = -np.inf
                offsets[c] = offset_for_labels(thresholds, labels == c, rest.argmax(1) == labels)
        if np.array_equal(before, offsets):
            break
    return _moved(model, data, offsets, layer, workers)


def offset_for_labels(thresholds: np.ndarray, is_c: np.ndarray, right_else: np.ndarray) -> float:
    """The b with which most images are right.

    An image counts where it is of class c and b > threshold, or where its other choice is right
    and b ≤ threshold. Of several best stretches of b the one nearest to 0 is taken.

    Args:
        thresholds: (N), above which b makes the choice c.
        is_c: (N), whether the label is c.
        right_else: (N), whether the choice among the others is right.
    """
    order = np.argsort(thresholds, kind="stable")
    gain = is_c[order].astype(int) - right_else[order].astype(int)
    edges = thresholds[order]
    right = right_else.sum() + np.r_[0, np.cumsum(gain)]  # with the first k images choosing c
    possible = np.r_[True, edges[1:] > edges[:-1], True]  # equal thresholds are passed together
    lows, highs = np.r_[-np.inf, edges], np.r_[edges, np.inf]
    best = np.flatnonzero(possible & (right == right[possible].max()))
    return min((_between(lows[k], highs[k]) for k in best), key=abs)


def offset_for_share(thresholds: np.ndarray, share: float) -> float:
    """The b nearest to 0 with which ``round(share · N)`` images choose c (ties: all or none)."""
    edges = np.sort(thresholds)
    k = round(share * len(edges))
    return _between(np.r_[-np.inf, edges][k], np.r_[edges, np.inf][k])


def _between(low: float, high: float) -> float:
    """Nearest to 0 in the stretch (low, high], but in its middle half, away from both edges."""
    if np.isinf(low) and np.isinf(high):
        return 0.0
    width = 2.0 if np.isinf(low) or np.isinf(high) else high - low
    low = high - width if np.isinf(low) else low
    high = low + width if np.isinf(high) else high
    if low < 0 <= high:
        return 0.0
    return float(np.clip(0.0, low + width / 4, high - width / 4))


def _check_arguments(data: Dataset, wanted: list[int], shares: Any) -> None:
    if not isinstance(data, Dataset):
        raise TypeError(f"correct_bias: data must be a tc.data.Dataset, got {type(data).__name__}")
    if not (shares is None or isinstance(shares, Mapping)):
        raise TypeError(f"correct_bias: shares must be {{class: how often}}, got {shares!r}")
    if bool(wanted) == bool(shares):
        raise ValueError("correct_bias: give classes=[…], or shares={class: how often}")
    if not shares and (len(data.arrays) < 2 or not has_classes(data)):
        raise ValueError("correct_bias: without labels that are class numbers, give shares={…}")


def _check_classes(K: int, classes: list[int], shares: list[float]) -> None:
    if K < 2:
        raise ValueError("correct_bias: a model of one class has no other to choose")
    for c in classes:
        if count("correct_bias: a class", c, least=0) >= K:
            raise ValueError(f"correct_bias: class {c!r} is none of the model's 0 … {K - 1}")
    for share in shares:
        unit_interval("correct_bias: a share", share)
    if sum(shares) > 1 + SLACK:
        raise ValueError(f"correct_bias: the shares add up to {sum(shares):g}, which is above 1")
    if len(shares) == K and sum(shares) < 1 - SLACK:
        raise ValueError(
            f"correct_bias: the shares of all {K} classes add up to {sum(shares):g}, which is "
            "below 1; leave out a class that may be named more often"
        )


def _moved(
    model: Module,
    data: Dataset,
    offsets: np.ndarray,
    layer: str | None,
    workers: Workers | int | None,
) -> Module:
    model = model.copy()
    bias = _last_bias(model, len(offsets), layer)
    few = data.images[:10]
    before = to_numpy(predict(model, few, workers=1))
    with on_device(bias.data):
        bias.data += to_device(offsets.astype(bias.dtype), bias.device)
    after = to_numpy(predict(model, few, workers=1))
    error = np.abs(after - before - offsets).max()
    if error > 1e-3 * (1 + np.abs(offsets).max() + np.abs(before).max()):
        raise ValueError(
            "correct_bias: the outputs do not follow the bias of this layer; name the last layer, "
            "layer=…"
        )
    return model


def _last_bias(model: Module, K: int, layer: str | None) -> Parameter:
    names = [name for name, _ in model.named_modules()] if layer is None else [layer]
    for name in reversed(names):
        try:
            bias = getattr(model.get_submodule(name), "bias", None)
        except AttributeError as error:
            raise ValueError(f"correct_bias: {error}") from None
        if isinstance(bias, Parameter) and bias.shape == (K,):
            return bias
    raise ValueError(f"correct_bias: there is no layer with a bias of {K} numbers to move")
