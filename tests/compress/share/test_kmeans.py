"""k-means on a line, beside a slow Lloyd that measures every distance, and the optimum."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from strategies import seeds

from tinycompress.compress.share.kmeans import STARTS, Sorted, kmeans_1d, lloyd

inits = st.sampled_from(list(STARTS))
each_init = pytest.mark.parametrize("init", STARTS)
numbers = st.floats(-100, 100, width=32)
lists = st.lists(numbers, min_size=1, max_size=40)


def squared_error(values, codebook, codes):
    return float(((values.astype(np.float64) - codebook.astype(np.float64)[codes]) ** 2).sum())


def slow_lloyd(values, centroids, steps=1000):
    """Every value measures its distance to every centroid. Draws, which rounding decides, are left
    out: what follows from them differs, and neither is wrong."""
    centroids = np.array(sorted(set(centroids)))
    for _ in range(steps):
        distances = np.abs(values[:, None] - centroids)
        if len(centroids) > 1:
            two = np.sort(distances, axis=1)
            assume((two[:, 1] - two[:, 0]).min() > 1e-9 * max(1, np.abs(values).max()))
        nearest = distances.argmin(axis=1)
        before = centroids.copy()
        for k in set(nearest.tolist()):
            centroids[k] = values[nearest == k].mean()
        if np.array_equal(centroids, before):
            break
    return centroids[sorted(set(nearest.tolist()))]


def optimum(values, clusters):
    """The least squared error of at most ``clusters`` intervals, by dynamic programming."""
    v = np.sort(values.astype(np.float64))

    def cost(i, j):
        return ((v[i:j] - v[i:j].mean()) ** 2).sum()

    best = [0.0] + [np.inf] * len(v)
    for _ in range(clusters):
        best = [0.0] + [
            min(min(best[i] + cost(i, j) for i in range(j)), best[j]) for j in range(1, len(v) + 1)
        ]
    return best[-1]


# ------------------------------------------------------------------------------- what it gives


@given(lists, st.integers(1, 12), inits, seeds)
def test_codebook_is_ascending_and_each_number_of_it_is_used(values, clusters, init, seed):
    values = np.array(values, np.float32)
    codebook, codes = kmeans_1d(values, clusters, init, seed)
    assert (codebook.dtype, codes.dtype, codes.shape) == (np.float32, np.uint8, values.shape)
    assert 1 <= codebook.size <= min(clusters, len(set(values.tolist())))
    assert (np.diff(codebook) > 0).all()
    assert set(codes.tolist()) == set(range(codebook.size))


@given(lists, st.integers(1, 12), inits, seeds)
def test_each_number_is_the_mean_of_its_values_and_the_nearest_to_them(
    values, clusters, init, seed
):
    values = np.array(values, np.float64)
    codebook, codes = kmeans_1d(values, clusters, init, seed)
    scale = np.abs(values).max()
    for k, centroid in enumerate(codebook):
        assert centroid == pytest.approx(values[codes == k].mean(), rel=1e-12, abs=1e-13 * scale)
    distances = np.abs(values[:, None] - codebook)
    own = distances[np.arange(values.size), codes]
    assert (own <= distances.min(axis=1) + 1e-12 * scale).all()


@given(lists, st.integers(1, 8), st.sampled_from(["linear", "density"]))
def test_it_is_the_slow_algorithm(values, clusters, init):
    values = np.array(values, np.float64)
    distinct = np.unique(values)
    codebook, codes = kmeans_1d(values, clusters, init)
    if distinct.size <= clusters:
        return
    if init == "linear":
        start = np.linspace(values.min(), values.max(), clusters)
    else:
        start = np.sort(values)[
            [int(np.ceil((i + 0.5) / clusters * values.size)) - 1 for i in range(clusters)]
        ]
    expected = slow_lloyd(values, start)
    slow_codes = np.abs(values[:, None] - expected).argmin(axis=1)
    assert squared_error(values, codebook, codes) == pytest.approx(
        squared_error(values, expected, slow_codes), rel=1e-9, abs=1e-9
    )


@given(st.lists(numbers, min_size=1, max_size=9), st.integers(1, 4), inits, seeds)
def test_no_error_is_below_the_optimum(values, clusters, init, seed):
    values = np.array(values, np.float64)
    error = squared_error(values, *kmeans_1d(values, clusters, init, seed))
    assert error >= optimum(values, clusters) - 1e-9 * (1 + error)


def test_groups_far_apart_are_found_exactly():
    values = np.array([5.0, 5.2, -3.0, 0.1, 0.0, -3.2])
    for init in ("linear", "density"):
        codebook, codes = kmeans_1d(values, 3, init)
        np.testing.assert_allclose(codebook, [-3.1, 0.05, 5.1], rtol=1e-15)
        assert codes.tolist() == [2, 2, 0, 1, 1, 0]
        assert squared_error(values, codebook, codes) == pytest.approx(optimum(values, 3))


@each_init
@pytest.mark.parametrize("clusters", [2, 7, 32])
def test_the_error_never_rises_from_step_to_step(monkeypatch, init, clusters):
    values = np.random.default_rng(clusters).standard_t(3, size=500)
    errors = []
    for steps in itertools.count(1):
        monkeypatch.setattr("tinycompress.compress.share.kmeans.ITERATIONS", steps)
        errors.append(squared_error(values, *kmeans_1d(values, clusters, init, seed=1)))
        if len(errors) > 3 and errors[-1] == errors[-2] == errors[-3]:
            break
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@each_init
def test_it_ends_where_neither_step_changes_anything(init):
    values = np.random.default_rng(3).standard_t(3, size=2000)
    codebook, codes = kmeans_1d(values, 16, init)
    np.testing.assert_array_equal(np.abs(values[:, None] - codebook).argmin(axis=1), codes)
    means = [values[codes == k].mean() for k in range(codebook.size)]
    np.testing.assert_allclose(codebook, means, rtol=1e-12)


# ---------------------------------------------------------------------------------- special cases


@given(lists, st.integers(0, 5), inits)
def test_with_enough_clusters_the_distinct_values_are_the_codebook(values, more, init):
    values = np.array(values, np.float32)
    distinct = np.unique(values)
    codebook, codes = kmeans_1d(values, distinct.size + more, init)
    np.testing.assert_array_equal(codebook, distinct)
    np.testing.assert_array_equal(codebook[codes], values)


@each_init
def test_with_just_enough_clusters_none_is_empty(init):
    """Lloyd's algorithm from 0, 5 and 10 would put 0 and 0.1 together."""
    codebook, codes = kmeans_1d(np.array([0.1, 10.0, 0.0]), 3, init)
    assert (codebook.tolist(), codes.tolist()) == ([0.0, 0.1, 10.0], [1, 2, 0])


def test_an_empty_cluster_is_left_out():
    """Linear centroids at −10, −5, 0, 5, 10: nothing is near −5, 0 and 5."""
    codebook, codes = kmeans_1d(np.array([-10.0, -9.0, 9.0, 9.5, 10.0, -9.5]), 5, "linear")
    np.testing.assert_allclose(codebook, [-9.5, 9.5])
    assert codes.tolist() == [0, 0, 1, 1, 1, 0]


def test_an_empty_cluster_may_still_find_values_while_others_move():
    """From −10, 0 and 10: at first the middle one is empty, until the upper one has gone up."""
    data = Sorted(np.array([-10.0, 5.1, 9.0, 10.0, 40.0]), np.ones(5, int))
    borders = lloyd(data, np.array([-10.0, 0.0, 10.0]))
    assert borders.tolist() == [0, 1, 4, 5]


def test_a_value_in_the_middle_goes_to_the_lower_centroid():
    codebook, codes = kmeans_1d(np.array([0.0, 1.0, 2.0]), 2, "linear")
    assert (codebook.tolist(), codes.tolist()) == ([0.5, 2.0], [0, 0, 1])


def test_equal_values_weigh_as_often_as_they_occur():
    values = np.repeat([0.0, 1.0, 10.0], [99, 1, 1])
    codebook, _ = kmeans_1d(values, 2)
    np.testing.assert_allclose(codebook, [0.01, 10.0], rtol=1e-15)


@pytest.mark.parametrize("shape", [(0,), (3, 0)], ids=str)
def test_nothing_has_an_empty_codebook(shape):
    codebook, codes = kmeans_1d(np.zeros(shape, "f"), 4)
    assert (codebook.shape, codes.shape) == ((0,), shape)


@pytest.mark.parametrize("clusters", [256, 257])
def test_codes_have_the_smallest_dtype(clusters):
    _, codes = kmeans_1d(np.arange(1000.0).reshape(10, 100), clusters, "density")
    assert (codes.dtype, codes.shape) == (np.uint8 if clusters <= 256 else np.uint16, (10, 100))


@each_init
def test_numbers_near_the_ends_of_their_range_are_no_trouble(init):
    for scale in (1e-310, 1.0, 1.7e308):
        codebook, codes = kmeans_1d(scale * np.array([-1, -0.5, 0.1, 0.2, 1]), 3, init)
        assert np.isfinite(codebook).all()
        assert (np.diff(codebook) > 0).all()
        assert (np.diff(codes.astype(int)) >= 0).all()


@given(lists, st.integers(1, 8), inits, seeds, st.integers(-20, 20))
def test_scaling_by_a_power_of_two_scales_the_codebook(values, clusters, init, seed, exponent):
    values = np.array(values)
    codebook, codes = kmeans_1d(values, clusters, init, seed)
    scaled, same = kmeans_1d(np.ldexp(values, exponent), clusters, init, seed)
    np.testing.assert_array_equal(scaled, np.ldexp(codebook, exponent))
    np.testing.assert_array_equal(same, codes)


def test_a_value_that_is_alone_in_its_cluster_is_its_centroid():
    """0.1 three times, divided by three, is more than 0.1."""
    codebook, _ = kmeans_1d(np.array([0.1, 0.1, 0.1, 5.0, 6.0]), 2)
    assert codebook.tolist() == [0.1, 5.5]


def test_a_large_value_far_away_costs_the_small_ones_no_digits():
    """Running sums that begin with −1e20 have no digits left for the others."""
    values = np.array([-1e20, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0])
    codebook, codes = kmeans_1d(values, 3, "density")
    assert (codebook.tolist(), codes.tolist()) == ([-1e20, 2.0, 11.0], [0, 1, 1, 1, 2, 2, 2])


# ------------------------------------------------------------------------------------- the start


def test_the_seed_decides_where_random_starts_and_nothing_else_does():
    values = np.random.default_rng(0).normal(size=500)
    books = [kmeans_1d(values, 16, "random", seed)[0].tolist() for seed in (0, 0, 1)]
    assert books[0] == books[1] != books[2]


def test_a_random_start_is_a_value_by_how_often_it_occurs():
    data = Sorted(np.array([-1.0, 0.0, 1.0]), np.array([1, 10**6, 1]))
    drawn = [STARTS["random"](data, 1, np.random.default_rng(seed))[0] for seed in range(20)]
    assert drawn == [0.0] * 20


def test_the_linear_start_gives_the_large_values_their_own_centroids():
    """Why the paper prefers it: with the same number, density leaves the tail to few."""
    values = np.random.default_rng(0).standard_t(3, size=20_000)
    errors = {}
    for init in ("linear", "density"):
        codebook, codes = kmeans_1d(values, 16, init)
        largest = np.abs(values) > np.quantile(np.abs(values), 0.999)
        errors[init] = np.abs(values - codebook[codes])[largest].mean()
    assert errors["linear"] < errors["density"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones(3), 0), ValueError, ["clusters", "0"]),
        ((np.ones(3), 2.5), ValueError, ["clusters", "2.5"]),
        ((np.ones(3), 2, "kmeans++"), ValueError, ["init", "'kmeans++'", "'linear'"]),
        ((np.ones(3), 2, ["linear"]), ValueError, ["init", "['linear']"]),
        ((np.ones(3), 2, "random", -1), ValueError, ["kmeans_1d: seed", "-1"]),
        ((np.ones(3, int), 2), TypeError, ["floats", "int64"]),
        ((np.array([1, np.nan]), 2), ValueError, ["NaN"]),
        ((np.array([1, -np.inf]), 2), ValueError, ["infinity"]),
    ],
    ids=["none", "no whole number", "start", "starts", "seed", "integers", "nan", "infinity"],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error) as caught:
        kmeans_1d(*arguments)
    assert all(word in str(caught.value) for word in words)
