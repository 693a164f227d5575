"""k-means on a line: few numbers that stand for many, with the smallest squared error nearby.

    min over c_1 < … < c_K of  Σ_i (v_i − c_{k(i)})²,   k(i) the centroid nearest to v_i

Lloyd's algorithm (1957; 1982) takes turns: each value goes to the nearest centroid, each centroid
to the mean of its values. Neither can raise the error, so it ends; in a minimum that depends on
where it started. Deep Compression (Han et al. 2016, arXiv:1510.00149, section 3.1) compares three
starts, and finds the first the best for networks, because the few large weights get centroids:

linear
    evenly from the smallest value to the largest; what stays near an even grid has codes that are
    used unevenly, and so become short in a file (Gish, Pierce 1968)
density
    at the middles of K parts with equally many values
random
    at K of the values

On a line a cluster is an interval of the sorted values, so that a step needs no distances: the
borders are found by bisection, and the means from running sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinycompress.shapes import whole

ITERATIONS = 1000
"""Where it ends at the latest. What could still be gained by then is beyond the fourth digit."""


class Sorted(NamedTuple):
    """Distinct values in ascending order, scaled into [−1, 1], and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray

    def largest_within(self, shares: np.ndarray) -> np.ndarray:
        """For each of these shares, 0 … 1: the least value that so many of all do not exceed."""
        running = np.cumsum(self.counts)
        return self.values[np.searchsorted(running, shares * running[-1])]


def _linear(data: Sorted, clusters: int, rng: np.random.Generator) -> np.ndarray:
    return np.linspace(data.values[0], data.values[-1], clusters)


def _density(data: Sorted, clusters: int, rng: np.random.Generator) -> np.ndarray:
    return data.largest_within((np.arange(clusters) + 0.5) / clusters)


def _random(data: Sorted, clusters: int, rng: np.random.Generator) -> np.ndarray:
    chances = data.counts / data.counts.sum()
    return rng.choice(data.values, clusters, replace=False, p=chances)


STARTS: dict[str, Callable[[Sorted, int, np.random.Generator], np.ndarray]] = {
    "linear": _linear,
    "density": _density,
    "random": _random,
}


def check_init(init: str) -> None:
    """Raise unless ``init`` is one of ``STARTS``."""
    if not isinstance(init, str) or init not in STARTS:
        raise ValueError(f"init must be one of {', '.join(map(repr, STARTS))}, got {init!r}")


def kmeans_1d(
    values: np.ndarray, clusters: int, init: str = "linear", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A codebook of at most ``clusters`` numbers, and for each value the number of its own.

    Args:
        values: finite floats of any shape; not changed.
        clusters: how many centroids at most, from 1 on. Where there are no more distinct values
            than that, these are the codebook, exactly.
        init: where the centroids start: "linear", "density" or "random".
        seed: of "random".

    Returns:
        codebook (K) of the values' dtype, ascending; K is smaller than ``clusters`` where
        clusters are empty at the end, as they can be in a gap of the values. And codes from 0 to
        K − 1, of the values' shape, in the smallest unsigned dtype.

    Raises:
        ValueError: NaN or infinity, no cluster, an unknown start, or a negative seed.
        TypeError: values that are no floats.
    """
    clusters = whole("kmeans_1d: clusters", clusters, 1)
    check_init(init)
    seed = whole("kmeans_1d: seed", seed, 0)
    values = np.asarray(values)
    if values.dtype.kind != "f":
        raise TypeError(f"kmeans_1d: values must be floats, got {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError("kmeans_1d: values hold NaN or infinity, which belong to no cluster")
    distinct, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    places = places.reshape(values.shape)
    if distinct.size <= clusters:
        return distinct, places.astype(np.min_scalar_type(max(distinct.size - 1, 0)))
    exponent = int(np.frexp(np.abs(distinct).max())[1])
    data = Sorted(np.ldexp(distinct.astype(np.float64), -exponent), counts)
    start = STARTS[init](data, clusters, np.random.default_rng(seed))
    borders = lloyd(data, start)
    sizes = np.diff(borders)
    codebook = np.ldexp(exact_means(data, borders), exponent).astype(values.dtype)
    codes = np.repeat(np.arange(sizes.size), sizes)[places]
    return codebook, codes.astype(np.min_scalar_type(codebook.size - 1))


def lloyd(data: Sorted, start: np.ndarray) -> np.ndarray:
    """Lloyd's two steps, in turns, until no value changes its cluster.

    Args:
        data: M distinct values.
        start: (K) centroids, on the scale of ``data``; equal ones count once.

    Returns:
        Where the clusters begin, and the end of the last one, as positions in ``data``: 0 … M,
        ascending, at most K + 1 of them.

    A value in the middle between two centroids goes to the lower one. A cluster that is empty stays
    where it is, since values may still come to it; those that are empty at the end are left out.
    """
    values, counts = data
    centroids = np.unique(start)
    numbers = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(counts * values)])
    borders = np.empty(0, np.intp)
    for _ in range(ITERATIONS):
        before = borders
        inner = np.searchsorted(values, (centroids[:-1] + centroids[1:]) / 2, side="right")
        borders = np.concatenate([[0], inner, [values.size]])
        if np.array_equal(borders, before):
            break
        first, last = borders[:-1], borders[1:]
        filled = first < last
        members = np.maximum(numbers[last] - numbers[first], 1)
        means = (sums[last] - sums[first]) / members
        # A difference of running sums loses digits; a mean lies between the members in any case.
        low, high = values[np.minimum(first, values.size - 1)], values[last - 1]
        centroids = np.where(filled, np.clip(means, low, high), centroids)
    return np.unique(borders)


def exact_means(data: Sorted, borders: np.ndarray) -> np.ndarray:
    """(K) float64: the mean of each cluster, from its own values alone; ``borders`` (K + 1)."""
    values, counts = data
    first, last = borders[:-1], borders[1:]
    means = np.add.reduceat(counts * values, first) / np.add.reduceat(counts, first)
    return np.clip(means, values[first], values[last - 1])
