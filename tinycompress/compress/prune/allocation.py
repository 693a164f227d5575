"""How much of each layer: the sparsities that hurt least, within a budget of parameters or MACs.

For layer l at sparsity s let ``d[l, s]`` be how far the model's answers move when that layer alone
is pruned so (the divergence of ``sensitivity.py``; 0 where it is not pruned). Wanted is::

    one s for each l with the smallest Σ d[l, s],  among those that cost at most the budget

Where single weights, kernels, rows or n of m go, a layer costs what it keeps, whatever the others
do: a knapsack, and solved exactly (``../knapsack.py``). Where channels go, a layer's cost also
depends on how many channels come in (``costs.py``). Then all combinations are tried at once where
there are no more than ``MOST``; with more, a greedy walk (the step with the least damage for what
it saves, until the budget holds) is made better by steps of one or two layers, as long as any
helps. That is good and, other than the two above, not proven to be the best.

That damages add up is an assumption; see ``quantize/mixed.py``, which chooses bits by such a sum.
And damage is measured without training afterwards, which is an order and not a forecast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from tinycompress.compress.knapsack import Option, best_sum
from tinycompress.compress.prune.costs import Costs
from tinycompress.compress.prune.sensitivity import PruneSensitivity
from tinycompress.compress.prune.structure import parse_structure

MOST = 300_000
"""How many combinations of channels are tried, all of them."""
Damage = Mapping[str, Sequence[float]]  # layer → that of each of its options
Choice = dict[str, int]  # layer → the number of its option, 0 for the layer as it is


def choose_sparsities(
    found: PruneSensitivity,
    *,
    budget_parameters: int | None = None,
    budget_macs: int | None = None,
) -> dict[str, float]:
    """The sparsity of each layer, of those measured, that fits the budget and hurts least.

        found = tc.sensitivity(model, tc.PruneConfig(), held_out)
        thin = tc.prune(model, tc.choose_sparsities(found, budget_parameters=20_000))

        found = tc.sensitivity(model, tc.PruneConfig((0.25, 0.5, 0.75), structure="channel"), …)
        slim = tc.remove_channels(model, tc.choose_sparsities(found, budget_macs=500_000))

    Args:
        found: what :func:`tinycompress.sensitivity` measured, with a :class:`PruneConfig`. Prune by
            the same importance and structure.
        budget_parameters: how many parameters of the whole model may be left that are not zero
            (biases and norms all counted), or for channels, that are there.
        budget_macs: how many multiplications of one image may be left that are by a weight other
            than zero, or for channels, that are done.

    Returns:
        Layer → sparsity, for :func:`tinycompress.prune` and for channels
        :func:`tinycompress.remove_channels`; layers that are tied have the same. 0 where a layer
        stays as it is, or the share that was pruned before. With a structure n:m, which knows no
        other share, only the layers that are pruned.

    Raises:
        ValueError: not exactly one budget, one that is no whole number, or one that cannot be met;
            the smallest that can be is named.
        TypeError: ``found`` is something else.
    """
    if not isinstance(found, PruneSensitivity):
        raise TypeError(
            "choose_sparsities takes what tc.sensitivity(model, tc.PruneConfig(…), data) returns, "
            f"got {type(found).__name__}"
        )
    what, budget = _budget(budget_parameters, budget_macs)
    damage = {
        name: [0.0, *(row.divergence for row in rows)] for name, rows in found.by_layer().items()
    }
    least = int(found.costs.of({name: len(d) - 1 for name, d in damage.items()}, what))
    if least > budget:
        raise ValueError(
            f"budget_{what}={budget:,} is too small: with every layer at the largest sparsity that "
            f"was measured, {found.config.sparsities[-1]:g}, {least:,} are left; measure larger "  # type: ignore[index]
            "sparsities, or allow more"
        )
    choice = cheapest_choice(found.costs, damage, what, budget)
    only = parse_structure(found.config.structure).m if found.config.structure != "channel" else 0
    return {
        layer: found.start[name] if not choice[name] else rows[choice[name] - 1].sparsity
        for name, rows in found.by_layer().items()
        for layer in rows[0].layers
        if choice[name] or not only
    }


def _budget(parameters: Any, macs: Any) -> tuple[str, int]:
    if (parameters is None) == (macs is None):
        raise ValueError("choose_sparsities: give budget_parameters or budget_macs, one of the two")
    what, value = ("macs", macs) if parameters is None else ("parameters", parameters)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"budget_{what} must be a whole number ≥ 1, got {value!r}")
    return what, int(value)


def cheapest_choice(costs: Costs, damage: Damage, what: str, budget: int) -> Choice:
    """The choice of least damage that costs at most ``budget``, which some choice does.

    Args:
        costs: what each choice costs.
        damage: layer → the damage of each of its options, the first being 0.
        what: "parameters" or "macs".
    """
    if costs.separable():
        return _by_layers(costs, damage, what, budget)
    if math.prod(len(d) for d in damage.values()) <= MOST:
        return _of_all(costs, damage, what, budget)
    return _greedy(costs, damage, what, budget)


def _by_layers(costs: Costs, damage: Damage, what: str, budget: int) -> Choice:
    """Exactly, for layers that do not depend on each other."""
    most_pruned = _most(damage)
    least = int(costs.of(most_pruned, what))
    rows = []
    for name, d in damage.items():
        more = [int(costs.of({**most_pruned, name: k}, what)) - least for k in range(len(d))]
        rows.append([Option(more[k], each, k) for k, each in enumerate(d)])
    best = best_sum(rows, budget - least)
    assert best is not None  # every row has an option that costs 0 more
    return dict(zip(damage, best, strict=True))


def _of_all(costs: Costs, damage: Damage, what: str, budget: int) -> Choice:
    """Exactly, by trying every combination; of equals, the cheapest."""
    grid = np.indices([len(d) for d in damage.values()]).reshape(len(damage), -1)
    options = dict(zip(damage, grid, strict=True))
    total = np.sum([np.asarray(d)[options[name]] for name, d in damage.items()], axis=0)
    cost = np.broadcast_to(costs.of(options, what), total.shape)
    order = np.lexsort((cost, np.where(cost <= budget, total, np.inf)))
    return {name: int(own[order[0]]) for name, own in options.items()}


def _greedy(costs: Costs, damage: Damage, what: str, budget: int) -> Choice:
    """Well, but without proof: a walk, and then steps of one or two layers that help."""

    def cost(choice: Choice) -> int:
        return int(costs.of(choice, what))

    def hurt(choice: Choice) -> float:
        return sum(damage[name][k] for name, k in choice.items())

    choice = dict.fromkeys(damage, 0)
    while (now := cost(choice)) > budget:
        steps = [{**choice, n: k} for n, d in damage.items() for k in range(choice[n] + 1, len(d))]
        saving = [step for step in steps if cost(step) < now] or [_most(damage)]
        choice = min(saving, key=lambda c: (hurt(c) - hurt(choice)) / (now - cost(c)))
    while True:
        near = [c for c in _beside(choice, damage) if hurt(c) < hurt(choice)]
        fitting = [c for c in near if cost(c) <= budget]
        if not fitting:
            return choice
        choice = min(fitting, key=hurt)


def _most(damage: Damage) -> Choice:
    """Every layer at its last option, the largest sparsity."""
    return {name: len(d) - 1 for name, d in damage.items()}


def _beside(choice: Choice, damage: Damage) -> Iterator[Choice]:
    """One layer at another option, or two."""
    names = list(damage)
    for i, first in enumerate(names):
        for k in range(len(damage[first])):
            one = {**choice, first: k}
            yield one
            for second in names[i + 1 :]:
                for j in range(len(damage[second])):
                    yield {**one, second: j}
