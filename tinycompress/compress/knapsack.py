"""One option for each layer, so that the damage is least and the cost within a budget.

    the choice with the smallest Σ damage,  among those with Σ cost ≤ budget

The multiple-choice knapsack problem, solved exactly: go from layer to layer, and keep of all
combinations so far only those that no other one beats in both cost and damage. Whatever a beaten
one is continued with, the one that beats it can be continued with too, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 4096
"""How many combinations are kept from layer to layer. With more, the best of each stretch of cost:
the choice is then the best up to one part in 4,096 of the budget per layer."""


class Option(NamedTuple):
    """What one layer may be: its cost (bytes, parameters, MACs), its damage, and what it is."""

    cost: int
    damage: float
    what: Any


def best_sum(rows: Sequence[Sequence[Option]], allowed: int) -> tuple[Any, ...] | None:
    """``what`` of one option of each row: the least sum of damages within the ``allowed`` cost.

    None where nothing fits. Of equals, the one of less cost.
    """
    kept: list[tuple[int, float, tuple[Any, ...]]] = [(0, 0.0, ())]
    for row in rows:
        longer = [(b + o.cost, d + o.damage, (*c, o.what)) for b, d, c in kept for o in row]
        kept = _unbeaten([each for each in longer if each[0] <= allowed], allowed)
    return kept[-1][2] if kept else None


def _unbeaten(found: list[Any], allowed: int) -> list[Any]:
    """Those that none of less or as much cost is as good as; the best ones come last."""
    found.sort(key=lambda each: each[:2])
    kept: list[Any] = []
    for each in found:
        if not kept or each[1] < kept[-1][1]:
            kept.append(each)
    if len(kept) <= MOST:
        return kept
    stretches = {each[0] * MOST // allowed: each for each in reversed(kept)}  # the smallest of each
    return sorted({id(e): e for e in (*stretches.values(), kept[-1])}.values(), key=lambda e: e[:2])
