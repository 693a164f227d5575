"""Which weights go: exact counts, stable ties, no layer left empty. Arrays in, masks out.

Of n weights, sparsity s removes exactly ``round(s·n)`` (Python's rounding: a half goes to the even
number). They are named by index and not by a threshold, so equal importances do not change the
count: among equals the one with the lower index goes first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

GONE, ZERO, RANKED, LAST = range(4)  # the order in which weights are pruned


def pruned_count(sparsity: float, n: int, layers: int = 1) -> int:
    """``round(sparsity · n)``, but at least one weight stays in each of ``layers``."""
    return max(0, min(round(sparsity * n), n - layers))


def keep_masks(
    scores: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray | None],
    count: int,
) -> dict[str, np.ndarray]:
    """Rank the weights of these layers together and drop the ``count`` least important.

    Weights that were pruned before go first, then those that are zero anyway (so that the zeros
    are ``count`` in the end), then the others by importance; the most important one of each
    layer goes last.

    Args:
        scores: importance by layer, without NaN.
        weights: the weights, of the same shapes.
        masks: the masks that are there, True where a weight is kept, or None.
        count: how many weights are pruned afterwards, those of ``masks`` included.

    Returns:
        Boolean arrays by layer, True where the weight is kept.

    Raises:
        ValueError: more weights than ``count`` are pruned already; a mask only grows.
    """
    before = sum(int((~m).sum()) for m in masks.values() if m is not None)
    if before > count:
        where = f"layer {next(iter(scores))!r}" if len(scores) == 1 else "the model"
        total = sum(s.size for s in scores.values())
        raise ValueError(
            f"{where} has {before:,} of {total:,} weights pruned already, a sparsity of "
            f"{before / total:.4f}, and {count:,} were asked for; pruning only adds zeros"
        )
    tiers = {name: _tiers(scores[name], weights[name], masks[name]) for name in scores}
    # By tier, within it by score, within that by index: lexsort is stable.
    order = np.lexsort((_joined(scores), _joined(tiers)))
    keep = np.ones(order.size, dtype=bool)
    keep[order[:count]] = False
    return _split(keep, scores)


def _tiers(scores: np.ndarray, w: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """GONE where pruned, then ZERO, then RANKED; LAST for the one that keeps the layer alive."""
    tiers = np.where(w == 0, ZERO, RANKED)
    if mask is not None:
        tiers[~mask] = GONE
    best = np.lexsort((scores.ravel(), tiers.ravel()))[-1]
    if tiers.flat[best] != GONE:
        tiers.flat[best] = LAST
    return tiers


def _joined(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays.values()])


def _split(joined: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``joined`` cut into pieces of the shapes in ``like``."""
    edges = np.cumsum([a.size for a in like.values()])[:-1]
    pieces = np.split(joined, edges)
    return {name: p.reshape(a.shape) for (name, a), p in zip(like.items(), pieces, strict=True)}
