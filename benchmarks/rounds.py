"""Paired rounds: how two programs are compared on a machine that never holds still.

A machine's speed drifts: it warms up, others use it, the memory's history matters. So contenders
take turns. In one *round* each has one turn of a few dozen steps, whose median time counts. A ratio
is taken within a round, where both saw the same weather, and the figure is the median of the ratios
over the rounds, with the quartiles as its spread:

    ratio(a, b) = median over rounds r of  seconds[r][b] / seconds[r][a]      (> 1: a is faster)

The order of turns moves on by one in each round, so that nobody always follows the same neighbour.
The first round only warms up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Round = dict[str, float]  # contender -> seconds for one batch


class Spread(NamedTuple):
    """The middle of several figures, and the quarter points around it."""

    median: float
    q1: float
    q3: float


def spread(values: Iterable[float]) -> Spread:
    values = sorted(values)
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    q1, middle, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, q1, q3)


def take_turns(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: int = 1,
    tell: Callable[[int], object] = lambda number: None,
) -> list[Round]:
    """The rounds after the first ``warm_up``; each contender returns the seconds of its turn."""
    names, kept = list(contenders), []
    for number in range(warm_up + rounds):
        first = number % len(names)
        this = {name: contenders[name]() for name in names[first:] + names[:first]}
        if number >= warm_up:
            kept.append({name: this[name] for name in names})
        tell(number + 1)
    return kept


def images_per_second(rounds: list[Round], name: str, batch: int) -> Spread:
    return spread(batch / this[name] for this in rounds)


def ratio(rounds: list[Round], name: str, rival: str) -> Spread:
    """How many times as fast as ``rival`` the contender ``name`` is, within a round."""
    return spread(this[rival] / this[name] for this in rounds)


def median_seconds(
    step: Callable[[], Any],
    steps: int,
    warm_up: int = 3,
    least: int = 3,
    budget: float = float("inf"),
) -> float:
    """The median time of ``steps`` calls, after ``warm_up`` that do not count.

    Once they have taken ``budget`` seconds, no more are begun than ``least`` (one, to warm up).
    """

    def seconds(count: int, least: int) -> list[float]:
        times: list[float] = []
        while len(times) < least or (len(times) < count and sum(times) < budget):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return times

    seconds(warm_up, min(1, warm_up))
    return statistics.median(seconds(steps, min(least, steps)))
