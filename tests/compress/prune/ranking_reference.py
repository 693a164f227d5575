"""Which weights go, found slowly: one unit after the other, as the documentation says it."""

import itertools

import numpy as np

GONE, ZERO, RANKED, LAST = range(4)


def units_of(shape, structure):
    """The indices of the weights of each unit, as lists of tuples."""
    if structure == "weight":
        return [[index] for index in np.ndindex(shape)]
    if structure == "row":
        return [[(o, *rest) for rest in np.ndindex(shape[1:])] for o in range(shape[0])]
    O, I, kh, kw = shape
    return [
        [(o, i, y, x) for y in range(kh) for x in range(kw)] for o in range(O) for i in range(I)
    ]


def reference_masks(layers, structure, count, floors, reduce=sum):
    """The masks of layers that are ranked together.

    Args:
        layers: name → (scores, w, mask or None), of the weight's shape.
        count: how many units are to go.
        floors: name → how many stay at least.
        reduce: of the scores of a unit's weights that are still there.
    """
    order = []  # (tier, score, position) of each unit
    for name, (scores, w, mask) in layers.items():
        kept = np.ones(w.shape, bool) if mask is None else mask
        own = []
        for unit in units_of(w.shape, structure):
            score = reduce([scores[i] if kept[i] else 0.0 for i in unit])
            if not any(kept[i] for i in unit):
                tier = GONE
            elif all(w[i] == 0 for i in unit):
                tier = ZERO
            else:
                tier = RANKED
            own.append([tier, score, len(own), name, unit])
        for unit in sorted(own, key=lambda u: u[:3])[len(own) - min(floors[name], len(own)) :]:
            if unit[0] != GONE:
                unit[0] = LAST
        order += own
    ranked = sorted(
        (
            (tier, score, position, name, unit)
            for position, (tier, score, _, name, unit) in enumerate(order)
        ),
        key=lambda u: u[:3],
    )
    masks = {
        name: np.ones(w.shape, bool) if mask is None else mask.copy()
        for name, (_, w, mask) in layers.items()
    }
    for tier, _, _, name, unit in ranked[:count]:
        if tier != LAST:
            for index in unit:
                masks[name][index] = False
    return masks


def reference_n_of_m(scores, w, mask, n, m):
    """The mask that keeps n of every m weights along axis 1, group by group."""
    kept = np.ones(w.shape, bool) if mask is None else mask.copy()
    O, I, *kernel = w.shape
    for o, position in itertools.product(range(O), np.ndindex(*kernel)):
        for start in range(0, I, m):
            group = [(o, i, *position) for i in range(start, min(start + m, I))]
            best_last = sorted(group, key=lambda i: (kept[i], w[i] != 0, scores[i], group.index(i)))
            for index in best_last[: max(0, len(group) - n)]:
                kept[index] = False
    return kept
