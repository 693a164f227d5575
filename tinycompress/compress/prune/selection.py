"""Which units go: exact counts, stable ties, no layer left empty. Arrays in, masks out.

A *unit* is what is pruned as a whole: a weight, a kernel, a row (``structure.py``). Of n units,
sparsity s removes exactly ``round(s·n)`` (Python's rounding: a half goes to the even number). They
are named by index and not by a threshold, so equal importances do not change the count: among
equals the one with the lower index goes first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

GONE, ZERO, RANKED, LAST = range(4)
"""The order in which units go: pruned before, zero anyway, ranked by score, and last of all those
that keep a layer alive."""


def pruned_count(sparsity: float, n: int, floor: int = 1) -> int:
    """``round(sparsity · n)``, but at least ``floor`` of the n units stay."""
    return max(0, min(round(float(sparsity) * n), n - floor))


def keep_masks(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray | None],
    count: int,
    floors: Mapping[str, int] | None = None,
    units: str = "weights",
    or_more: bool = False,
) -> dict[str, np.ndarray]:
    """Rank the units of these layers together and drop the ``count`` least important.

    Units that were pruned before go first, then those that are zero anyway (so that the zeros
    are ``count`` in the end), then the others by importance; the most important ones of each
    layer, as many as its floor, stay whatever the count.

    Args:
        scores: importance by layer, one number for each unit, without NaN; of any shape.
        weights: the weights: of the shape of the scores, or with one more axis that runs through
            the weights of a unit.
        masks: the masks that are there, True where a weight is kept, of the weights' shapes; or
            None.
        count: how many units are pruned afterwards, those of ``masks`` included.
        floors: how many units of each layer stay at least; 1 where it does not say.
        units: what they are called in errors.
        or_more: where more are pruned already, leave it so.

    Returns:
        Boolean arrays of the shapes of the scores, True where the unit is kept.

    Raises:
        ValueError: more units than ``count`` are pruned already; a mask only grows.
    """
    floors = floors or {}
    tiers = {n: _tiers(s, weights[n], masks[n], floors.get(n, 1)) for n, s in scores.items()}
    joined = _joined(tiers)
    before = int((joined == GONE).sum())
    if before > count and not or_more:
        where = f"layer {next(iter(scores))!r}" if len(scores) == 1 else "the model"
        raise ValueError(
            f"{where} has {before:,} of {joined.size:,} {units} pruned already, a sparsity of "
            f"{before / joined.size:.4f}, and {count:,} were asked for; pruning only adds zeros"
        )
    count = min(max(count, before), int((joined != LAST).sum()))
    return _split(~first_to_go(_joined(scores), joined, count), scores)


def first_to_go(scores: np.ndarray, tiers: np.ndarray, count: int) -> np.ndarray:
    """Where the first ``count`` are by tier, within it by score, within that by index.

    Args:
        scores, tiers: of shape (n,).

    Returns:
        A boolean array (n,) with ``count`` True.
    """
    goes = np.zeros(scores.size, dtype=bool)
    for tier in (GONE, ZERO, RANKED, LAST):
        here = np.flatnonzero(tiers == tier)
        if here.size >= count:
            goes[here[lowest(scores[here], count)]] = True
            break
        goes[here] = True
        count -= here.size
    return goes


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the ``count`` lowest scores are; of equal ones those with the lower index.

    In linear time, not that of sorting: a network is ranked often while it is trained.
    """
    if count == 0:
        return np.zeros(scores.size, dtype=bool)
    highest = np.partition(scores, count - 1)[count - 1]
    low = scores < highest
    ties = np.flatnonzero(scores == highest)
    low[ties[: count - int(low.sum())]] = True
    return low


def _tiers(scores: np.ndarray, w: np.ndarray, mask: np.ndarray | None, floor: int) -> np.ndarray:
    """GONE where pruned, then ZERO, then RANKED; LAST for those that keep the layer alive."""
    inside = tuple(range(scores.ndim, w.ndim))  # the axis of a unit's own weights
    tiers = np.where((w != 0).any(axis=inside), np.int8(RANKED), np.int8(ZERO))
    if mask is not None:
        tiers[~mask.any(axis=inside)] = GONE
    alive = tiers != GONE
    others = max(0, tiers.size - floor)
    stays = ~first_to_go(scores.ravel(), tiers.ravel(), others).reshape(tiers.shape)
    tiers[stays & alive] = LAST
    return tiers


def _joined(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays.values()])


def _split(joined: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``joined`` cut into pieces of the shapes in ``like``."""
    edges = np.cumsum([a.size for a in like.values()])[:-1]
    pieces = np.split(joined, edges)
    return {name: p.reshape(a.shape) for (name, a), p in zip(like.items(), pieces, strict=True)}
