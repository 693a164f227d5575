"""Which output channels go: whole groups of them, the least important first.

A *group* is what can only go together (``dependencies.py``): a channel with its batch norm and what
reads it, in residual networks the same channel of several layers, in a grouped convolution one
channel of every group. ``channel_scores.py`` says how important each is. Layers whose channels are
tied make one set, and a local ``amount`` is the share of the groups of each set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.amounts import (
    by_layer,
    check_scope,
    check_seed,
    check_sparsity,
    floors_of,
    matching,
)
from tinycompress.compress.prune.channel_scores import group_scores
from tinycompress.compress.prune.dependencies import Dependencies, follow
from tinycompress.compress.prune.importance import Importance
from tinycompress.compress.prune.selection import GONE, RANKED, ZERO
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

Amount = float | Mapping[str, float] | None
Ranking = str | Importance | Mapping[str, Any]
KIND = "layer with channels"
SHARE = "channels to remove"


class Options(NamedTuple):
    """How to choose; the arguments of :func:`channel_masks`."""

    importance: Ranking = "magnitude"
    scope: str = "local"
    data: Dataset | None = None
    objective: Objective | None = None
    skip: str | Iterable[str] = ()
    keep_at_least: float | Mapping[str, float] = 1
    seed: int = 0
    or_more: bool = False


def channel_masks(
    model: nn.Module,
    amount: float | Mapping[str, float],
    importance: Ranking = "magnitude",
    *,
    scope: str = "local",
    sample: Any = None,
    data: Dataset | None = None,
    objective: Objective | None = None,
    skip: str | Iterable[str] = (),
    keep_at_least: float | Mapping[str, float] = 1,
    seed: int = 0,
    or_more: bool = False,
) -> dict[str, np.ndarray]:
    """Masks that prune whole channels: on the weights and biases that make them, and on γ and β.

    Arguments and errors are those of :func:`tinycompress.remove_channels`; ``model`` is only read.
    With ``or_more``, what is pruned further than ``amount`` already is left so.

    Returns:
        Parameter name → boolean array of its shape, True where it is kept; what was pruned before
        stays pruned.
    """
    options = Options(importance, scope, data, objective, skip, keep_at_least, seed, or_more)
    found, _ = follow(model, data if sample is None else sample)
    return masks_of(model, found, choose_channels(model, found, amount, options))


def channel_sets(
    model: nn.Module, sample: Any = None, skip: str | Iterable[str] = ()
) -> list[tuple[str, ...]]:
    """The layers whose channels can go, in sets: those of one set hang together.

    In a residual network all convolutions that are added are one set, and ``amount`` must be one
    number for them. Layers that make the model's outputs, or cannot be followed, are in none.

    Args:
        model, sample, skip: as for :func:`tinycompress.remove_channels`; ``model`` is only read.
    """
    found, _ = follow(model, sample)
    groups = _Groups(model, found, Options(skip=skip))
    stay = groups.stay.union(found.problems)
    free = {name: [x for x in own.tolist() if x not in stay] for name, own in groups.layers.items()}
    return [tuple(names) for names, _ in _tied(free)]


def masks_of(model: nn.Module, found: Dependencies, gone: set[int]) -> dict[str, np.ndarray]:
    """The masks of all parameters that make the channels with these labels."""
    masks: dict[str, np.ndarray] = {}
    parameters = dict(model.named_parameters())
    for axis in found.axes:
        goes = np.isin(axis.labels, list(gone))
        if axis.number == 0 and axis.name in parameters and goes.any():
            p = parameters[axis.name]
            mask = np.ones(p.shape, bool) if p.mask is None else to_numpy(p.mask).copy()
            mask[goes] = False
            masks[axis.name] = mask
    return masks


def choose_channels(
    model: nn.Module, found: Dependencies, amount: Amount, options: Options
) -> set[int]:
    """The labels of the groups that go; see :func:`tinycompress.remove_channels`."""
    groups = _Groups(model, found, options)
    if amount is None:
        return groups.without_weights()
    data, objective, seed = options.data, options.objective, options.seed
    pools = groups.pools(amount, options.scope)
    labels = _ordered(own for own, _ in pools)
    scores = group_scores(model, found, labels, options.importance, data, objective, seed)
    gone: set[int] = set()
    for own, share in pools:
        gone |= groups.least_important(own, scores, round(share * len(own)), gone)
    return gone


class _Groups:
    """The groups of channels of a model, and the rules for taking some away."""

    def __init__(self, model: nn.Module, found: Dependencies, options: Options) -> None:
        check_seed(options.seed)
        self.model, self.found, self.or_more = model, found, options.or_more
        self.layers = found.outputs()
        if not self.layers:
            raise ValueError(
                f"{type(model).__name__} has no Linear or Conv2d whose channels could be removed"
            )
        self.skipped = matching("skip", options.skip, self.layers, KIND)
        self.stay = set(found.fixed).union(*(self.layers[n].tolist() for n in self.skipped))
        sizes = {name: len(own) for name, own in self.layers.items()}
        free = [name for name, own in self.layers.items() if set(own.tolist()) - self.stay]
        self.floors = dict.fromkeys(sizes, 1)
        self.floors |= floors_of(options.keep_at_least, sizes, pruned=free, units="channels")
        self.tiers = self._tiers()
        self.members: dict[int, Counter[str]] = {label: Counter() for label in self.tiers}
        for name, own in self.layers.items():
            for label in own.tolist():
                self.members[label][name] += 1

    # --------------------------------------------------------------------- which may go

    def pools(self, amount: Any, scope: str) -> list[tuple[list[int], float]]:
        """Which groups are ranked together, and what share of them goes."""
        check_scope(scope)
        if isinstance(amount, Mapping):
            return self._pools_by_name(amount)
        check_sparsity("amount", amount, SHARE)
        free = self._free([name for name in self.layers if name not in self.skipped])
        if not any(free.values()):
            raise ValueError(
                f"no channel of {type(self.model).__name__} can go: all are its inputs or outputs, "
                f"or skipped (skip={self.skipped})"
            )
        if scope == "global":
            return [(_ordered(free.values()), amount)]
        return [(labels, amount) for _, labels in _tied(free)]

    def _pools_by_name(self, amount: Mapping[str, float]) -> list[tuple[list[int], float]]:
        if not amount:
            raise ValueError('amount names no layer; give a number, or {"conv1": 0.5, …}')
        for name, share in amount.items():
            check_sparsity(f"amount of layer {name!r}", share, SHARE)
        shares = by_layer("amount", amount, self.layers, KIND)
        free = self._free(list(shares))
        for name, labels in free.items():
            if not labels:
                raise ValueError(
                    f"amount: the channels of layer {name!r} are the model's inputs or outputs, or "
                    "tied to these or to a skipped layer; they stay"
                )
        pools = []
        for names, labels in _tied(free):
            if len({shares[name] for name in names}) > 1:
                told = ", ".join(f"{name!r}: {shares[name]}" for name in names)
                raise ValueError(f"amount: the channels of {told} go together; give one number")
            pools.append((labels, shares[names[0]]))
        return pools

    def _free(self, names: list[str]) -> dict[str, list[int]]:
        """Layer → labels that may go; refuses where they cannot be followed."""
        free = {
            name: [x for x in dict.fromkeys(self.layers[name].tolist()) if x not in self.stay]
            for name in names
        }
        self._refuse({n: x for n, x in free.items() if self.floors[n] < len(self.layers[n])})
        return free

    def _refuse(self, labels: Mapping[str, Iterable[int]]) -> None:
        """Raise where one of these labels of a layer cannot be followed."""
        problems = self.found.problems
        why = {
            name: next(problems[x] for x in own if x in problems)
            for name, own in labels.items()
            if any(x in problems for x in own)
        }
        if why:
            raise ValueError(refusal("followed", why))

    # ------------------------------------------------------------------------ which go

    def without_weights(self) -> set[int]:
        """The groups of which every weight is 0, but for the last ones of a layer."""
        zero = [x for x, tier in self.tiers.items() if tier != RANKED and x not in self.stay]
        self._refuse({name: set(own.tolist()) & set(zero) for name, own in self.layers.items()})
        return self.least_important(zero, dict.fromkeys(zero, 0.0), len(zero), set())

    def least_important(
        self, labels: list[int], scores: Mapping[int, float], number: int, gone: set[int]
    ) -> set[int]:
        """``number`` of these groups, as far as the floors of their layers allow it.

        Those that were pruned before go first, then those that are zero anyway, then the others by
        score; of equals the one that comes first in the model.
        """
        before = sum(self.tiers[label] == GONE for label in labels)
        if self.or_more:
            number = max(number, before)
        if before > number:
            raise ValueError(
                f"of {len(labels)} groups of channels {before} are pruned already, and {number} "
                "were asked for; pruning only adds zeros"
            )
        left = Counter({name: len(own) for name, own in self.layers.items()})
        for label in gone:
            left.subtract(self.members[label])
        chosen: set[int] = set()
        for label in sorted(labels, key=lambda x: (self.tiers[x], scores[x])):
            sizes = self.members[label]
            if len(chosen) == number:
                break
            if all(left[name] - n >= self.floors[name] for name, n in sizes.items()):
                chosen.add(label)
                left.subtract(sizes)
        return chosen

    def _tiers(self) -> dict[int, int]:
        """Label → GONE where masks hold all its weights at 0, ZERO where they are 0, or RANKED."""
        tiers: dict[int, int] = {}
        for name, own in self.layers.items():
            p = self.model.get_submodule(name).weight
            rows = to_numpy(p.data).reshape(len(own), -1)
            tier = np.where((rows != 0).any(axis=1), RANKED, ZERO)
            if p.mask is not None:
                tier[~to_numpy(p.mask).reshape(rows.shape).any(axis=1)] = GONE
            for label, one in zip(own.tolist(), tier.tolist(), strict=True):
                tiers[label] = max(tiers.get(label, GONE), one)
        return tiers


def _tied(free: Mapping[str, list[int]]) -> list[tuple[list[str], list[int]]]:
    """(layers, their labels) for each set of layers that share labels; none without labels."""
    sets: list[tuple[list[str], list[int]]] = []
    for name, labels in free.items():
        mine = [s for s in sets if set(s[1]) & set(labels)]
        sets = [s for s in sets if s not in mine]
        names = [n for s in mine for n in s[0]] + [name]
        if labels:
            sets.append((names, _ordered([*(s[1] for s in mine), labels])))
    return sets


def _ordered(lists: Iterable[Iterable[int]]) -> list[int]:
    """All labels in their first order, each once."""
    return list(dict.fromkeys(label for labels in lists for label in labels))


def refusal(verb: str, why: Mapping[str, str]) -> str:
    """What to tell about layers whose channels cannot be ``verb``: the reasons, by layer."""
    lines = "".join(f"\n  {name}: {text}" for name, text in why.items())
    return (
        f"these channels cannot be {verb}:{lines}\nLeave the layers as they are with "
        f"skip={list(why)}"
    )
