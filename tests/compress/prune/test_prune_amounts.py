"""Amounts by name and pattern, and floors: what may differ from layer to layer."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress import nn
from tinycompress.compress.prune import choose_masks, prune, sparsity_report
from tinycompress.compress.prune.amounts import by_layer, floors_of, matching


def net():
    """Weights: 16, 64, 40, 20; all those of fc2 are the smallest."""
    model = nn.Sequential(
        {
            "features": nn.Sequential({"a": nn.Conv2d(1, 4, 2), "b": nn.Conv2d(4, 4, 2)}),
            "fc1": nn.Linear(4, 10),
            "fc2": nn.Linear(10, 2),
        }
    )
    model.get_submodule("fc2").weight.data *= 1e-4
    return model


NAMES = ("features.a", "features.b", "fc1", "fc2")
SIZES = dict(zip(NAMES, (16, 64, 40, 20), strict=True))


def zeros(model):
    return {layer.name: layer.zeros for layer in sparsity_report(model).layers}


# ---------------------------------------------------------------------------- names and patterns


def test_amounts_are_given_by_name_or_pattern():
    thin = prune(net(), {"features.*": 0.5, "fc2": 0.25})
    assert zeros(thin) == {"features.a": 8, "features.b": 32, "fc1": 0, "fc2": 5}
    assert thin.get_submodule("fc1").weight.mask is None


@pytest.mark.parametrize("order", [("*", "fc2", "fc*"), ("fc*", "*", "fc2"), ("fc2", "fc*", "*")])
def test_a_name_counts_before_patterns_and_of_these_the_first(order):
    amounts = {"*": 0.5, "fc*": 0.25, "fc2": 0.75}
    first = min(("*", "fc*"), key=order.index)
    thin = prune(net(), {key: amounts[key] for key in order})
    assert zeros(thin) == {
        "features.a": 8,
        "features.b": 32,
        "fc1": 20 if first == "*" else 10,
        "fc2": 15,
    }


def test_patterns_skip_layers():
    assert list(choose_masks(net(), 0.5, skip="features.*")) == ["fc1", "fc2"]
    assert list(choose_masks(net(), 0.5, skip=["*.a", "fc1"])) == ["features.b", "fc2"]
    with pytest.raises(ValueError, match=r"has no layer to prune.* skip"):
        prune(net(), 0.5, skip="*")


@given(st.dictionaries(st.sampled_from([*NAMES, "*", "f*", "fc?"]), st.integers()))
def test_every_layer_gets_the_value_of_its_name_or_of_the_first_pattern(given_values):
    found = by_layer("x", given_values, NAMES)
    fits = {"*": NAMES, "f*": NAMES, "fc?": NAMES[2:]}
    for name in NAMES:
        keys = [k for k in given_values if k == name] or [
            k for k in given_values if name in fits.get(k, ())
        ]
        assert (name in found) == bool(keys)
        assert not keys or found[name] == given_values[keys[0]]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"sparsity": {"fc9": 0.5}}, "sparsity"),
        ({"sparsity": {"fc1": 0.5, "conv*": 0.5}}, "sparsity"),
        ({"sparsity": 0.5, "skip": "conv*"}, "skip"),
        ({"sparsity": 0.5, "keep_at_least": {"FC1": 2}}, "keep_at_least"),
    ],
)
def test_a_name_or_pattern_that_fits_nothing_is_refused(options, argument):
    known = ", ".join(map(repr, NAMES))
    with pytest.raises(
        ValueError, match=f"^{argument}: there is no prunable layer .*; there are {known}"
    ):
        prune(net(), **options)


def test_layers_come_in_the_order_of_the_model():
    assert matching("x", ["fc2", "features.a"], NAMES) == ["features.a", "fc2"]


# ------------------------------------------------------------------------------------- floors


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 16), st.sampled_from(["global", "local"]))
def test_a_number_of_weights_stays_in_every_layer(sparsity, floor, scope):
    thin = prune(net(), sparsity, scope=scope, keep_at_least=floor)
    left = {name: SIZES[name] - n for name, n in zeros(thin).items()}
    floor = max(1, floor)
    assert all(n >= floor for n in left.values())
    if scope == "global":
        assert sum(left.values()) == max(140 - round(sparsity * 140), 4 * floor)
    else:
        assert left == {n: max(k - round(sparsity * k), floor) for n, k in SIZES.items()}


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_a_share_stays_in_every_layer(sparsity, share):
    left = {n: SIZES[n] - k for n, k in zeros(prune(net(), sparsity, keep_at_least=share)).items()}
    floors = {name: max(1, int(np.ceil(share * n))) for name, n in SIZES.items()}
    assert all(left[name] >= floors[name] for name in NAMES)
    assert sum(left.values()) == max(140 - round(sparsity * 140), sum(floors.values()))


def test_without_a_floor_the_layer_of_small_weights_is_left_one():
    assert zeros(prune(net(), 0.3))["fc2"] == 19
    assert zeros(prune(net(), 0.3, keep_at_least={"fc2": 0.5}))["fc2"] == 10
    assert zeros(prune(net(), 0.3, keep_at_least={"fc?": 7}))["fc2"] == 13


def test_what_stays_for_the_floor_is_the_most_important():
    model = net()
    w = np.abs(model.get_submodule("fc2").weight.data)
    mask = choose_masks(model, 0.3, keep_at_least={"fc2": 6})["fc2"]
    assert w[mask].min() > w[~mask].max()
    assert mask.sum() == 6


def test_a_floor_counts_units():
    thin = prune(net(), 0.9, structure="row", keep_at_least={"fc1": 4})
    rows = (thin.get_submodule("fc1").weight.data != 0).any(axis=1)
    assert rows.sum() == 4


def test_a_floor_never_brings_back_what_was_pruned():
    once = prune(net(), {"fc1": 0.9})
    twice = choose_masks(once, {"fc1": 0.95}, keep_at_least=20)
    np.testing.assert_array_equal(twice["fc1"], once.get_submodule("fc1").weight.mask)


def test_a_layer_that_was_emptied_by_hand_stays_so_and_the_others_are_pruned():
    model = net()
    model.get_submodule("fc2").weight.mask = np.zeros((2, 10), bool)
    masks = choose_masks(model, 0.999)
    assert [int(m.sum()) for m in masks.values()] == [1, 1, 1, 0]
    half = choose_masks(model, 0.5)
    assert sum(int((~m).sum()) for m in half.values()) == 70


@pytest.mark.parametrize(
    ("floor", "error", "message"),
    [
        (17, ValueError, "keep_at_least=17 weights: layer 'features.a' has only 16; give a share"),
        ({"fc2": 21}, ValueError, "layer 'fc2' has only 20"),
        (-1, ValueError, "must not be negative, got -1"),
        (1.5, ValueError, r"a share of each layer, from 0\.0 to 1\.0, got 1\.5"),
        (float("nan"), ValueError, "a share of each layer"),
        ("two", TypeError, "keep_at_least must be a whole number of weights, or a share"),
        (True, TypeError, "keep_at_least must be a whole number"),
        ({"fc1": None}, TypeError, "keep_at_least must be a whole number"),
    ],
)
def test_floors_that_make_no_sense_are_refused(floor, error, message):
    with pytest.raises(error, match=message):
        prune(net(), 0.5, keep_at_least=floor)


def test_a_floor_is_asked_only_of_layers_that_are_pruned():
    assert zeros(prune(net(), {"features.b": 0.9}, keep_at_least=30))["features.b"] == 34
    assert floors_of(30, SIZES, pruned=["fc1"]) == {"fc1": 30}


def test_a_floor_that_n_of_m_goes_below_is_refused():
    assert choose_masks(net(), structure="2:4", keep_at_least=0.5)["fc1"].sum() == 20
    with pytest.raises(ValueError, match=r"'1:4' leaves layer 'features\.b' 16 of its 64 weights"):
        prune(net(), structure="1:4", keep_at_least=0.5)


# --------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_numbers_of_numpy_are_numbers(number):
    assert sum(zeros(prune(net(), number)).values()) == 70
    assert zeros(prune(net(), {"fc1": number}))["fc1"] == 20
