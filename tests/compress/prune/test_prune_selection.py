"""Exact counts, stable ties, nothing that was pruned comes back, no layer is emptied."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress.compress.prune.selection import first_to_go, keep_masks, lowest, pruned_count

sparsities = st.floats(0, 1, exclude_max=True)
few_values = st.integers(0, 3).map(float)  # many ties, and many zeros


@st.composite
def layers(draw, most=4):
    """Scores and weights by layer, with ties."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=most))
    arrays = [
        np.array(draw(st.lists(few_values, min_size=n, max_size=n))) for n in (*sizes, *sizes)
    ]
    names = [f"layer{i}" for i in range(len(sizes))]
    return dict(zip(names, arrays, strict=False)), dict(
        zip(names, arrays[len(sizes) :], strict=True)
    )


def no_masks(scores):
    return dict.fromkeys(scores)


def pruned(keep):
    return sum(int((~k).sum()) for k in keep.values())


@given(sparsities, st.integers(1, 10_000))
def test_the_count_is_the_rounded_share_unless_that_would_empty_the_layer(sparsity, n):
    assert pruned_count(sparsity, n) == min(round(sparsity * n), n - 1)


@given(layers(), sparsities)
def test_exactly_the_count_is_pruned_whatever_the_ties(arrays, sparsity):
    scores, weights = arrays
    n = sum(s.size for s in scores.values())
    count = pruned_count(sparsity, n, len(scores))
    keep = keep_masks(scores, weights, no_masks(scores), count)
    assert pruned(keep) == count
    assert [k.shape for k in keep.values()] == [s.shape for s in scores.values()]


@given(layers(), sparsities)
def test_every_layer_keeps_a_weight(arrays, sparsity):
    scores, weights = arrays
    n = sum(s.size for s in scores.values())
    count = pruned_count(sparsity, n, len(scores))
    keep = keep_masks(scores, weights, no_masks(scores), count)
    assert all(k.any() for k in keep.values())


@given(layers(), sparsities, sparsities)
def test_pruning_again_only_adds(arrays, one, other):
    scores, weights = arrays
    n = sum(s.size for s in scores.values())
    low, high = sorted(pruned_count(s, n, len(scores)) for s in (one, other))
    first = keep_masks(scores, weights, no_masks(scores), low)
    # Another ranking altogether must not bring a weight back either.
    for again in (scores, {name: -s for name, s in scores.items()}):
        second = keep_masks(again, weights, first, high)
        assert pruned(second) == high
        assert all((second[name] <= first[name]).all() for name in first)


@given(layers(most=1), sparsities)
def test_in_one_layer_nothing_kept_matters_less_than_what_was_pruned(arrays, sparsity):
    scores, _ = arrays
    (score,) = scores.values()
    weights = {name: np.ones_like(s) for name, s in scores.items()}
    count = pruned_count(sparsity, score.size)
    (keep,) = keep_masks(scores, weights, no_masks(scores), count).values()
    assert score[~keep].max(initial=-np.inf) <= score[keep].min()


def test_among_equals_the_lower_index_goes_first():
    scores = {"a": np.ones((2, 3)), "b": np.ones(3)}
    keep = keep_masks(scores, scores, no_masks(scores), 4)
    np.testing.assert_array_equal(keep["a"], [[False, False, False], [False, True, True]])
    np.testing.assert_array_equal(keep["b"], [True, True, True])


def test_the_last_weight_of_a_weak_layer_is_its_most_important():
    scores = {"weak": np.array([1.0, 3.0, 2.0]), "strong": np.array([9.0, 8.0, 7.0, 6.0])}
    keep = keep_masks(scores, scores, no_masks(scores), 4)
    np.testing.assert_array_equal(keep["weak"], [False, True, False])
    np.testing.assert_array_equal(keep["strong"], [True, True, False, False])


def test_weights_that_are_zero_anyway_go_first():
    weights = {"a": np.array([0.0, 1.0, 0.0, 2.0])}
    scores = {"a": np.array([9.0, 1.0, 8.0, 2.0])}
    for count, expected in ((2, [0, 1, 0, 1]), (3, [0, 0, 0, 1])):
        keep = keep_masks(scores, weights, {"a": None}, count)["a"]
        np.testing.assert_array_equal(keep, np.array(expected, dtype=bool))


def test_less_than_what_is_pruned_already_is_refused():
    scores = {"fc1": np.ones(4)}
    masks = {"fc1": np.array([True, False, False, False])}
    with pytest.raises(ValueError, match=r"'fc1' has 3 of 4 weights pruned already.* 2 were asked"):
        keep_masks(scores, scores, masks, 2)


# -------------------------------------------------------------------------- without sorting


many_ties = st.lists(st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, np.inf]), min_size=1)


@given(many_ties, st.data())
def test_the_lowest_are_those_that_stable_sorting_puts_first(drawn, data):
    scores = np.array(drawn)
    count = data.draw(st.integers(0, scores.size))
    first = np.argsort(scores, kind="stable")[:count]
    np.testing.assert_array_equal(np.flatnonzero(lowest(scores, count)), np.sort(first))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.data())
def test_tiers_come_before_scores_and_these_before_the_index(drawn, data):
    tiers, scores = np.array(drawn).T
    count = data.draw(st.integers(0, scores.size))
    first = np.lexsort((scores, tiers))[:count]
    goes = first_to_go(scores.astype(float), tiers, count)
    np.testing.assert_array_equal(np.flatnonzero(goes), np.sort(first))


def test_units_have_an_axis_for_their_weights():
    """Gone are units that are masked as a whole; a zero unit is one without any other weight."""
    scores = {"a": np.array([5.0, 1.0, 4.0, 2.0])}
    rows = {"a": np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])}
    masks = {"a": np.array([[True, True], [True, True], [False, False], [False, True]])}
    for count, expected in ((1, [1, 1, 0, 1]), (2, [0, 1, 0, 1]), (3, [0, 0, 0, 1])):
        keep = keep_masks(scores, rows, masks, count)["a"]
        np.testing.assert_array_equal(keep, np.array(expected, dtype=bool))
