"""Criteria, and the derivatives that some of them look at."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress import functional as F, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.prune import gradient, lamp, magnitude, prune, random, taylor
from tinycompress.compress.prune.gradients import mean_gradients
from tinycompress.compress.prune.importance import criterion
from tinycompress.data import Dataset
from tinycompress.train import Supervised


@pytest.fixture
def arrays(rng, device):
    draw = lambda: to_device(rng.normal(size=(3, 4)).astype(np.float32), device)  # noqa: E731
    return draw(), draw()


def test_criteria_are_what_their_names_say(arrays):
    w, g = arrays
    W, G = to_numpy(w), to_numpy(g)
    np.testing.assert_array_equal(to_numpy(magnitude(w, g)), np.abs(W))
    np.testing.assert_array_equal(to_numpy(gradient(w, g)), np.abs(G))
    np.testing.assert_array_equal(to_numpy(taylor(w, g)), np.abs(W * G))


def slow_lamp(w):
    """From the definition, one weight after the other; the first of equal ones goes first."""
    flat = [(float(v) ** 2, i) for i, v in enumerate(w.ravel())]
    found = [square / (sum(s for s, j in flat if (s, j) >= (square, i)) or 1) for square, i in flat]
    return np.array(found).reshape(w.shape)


@given(hnp.arrays(np.float32, (3, 4), elements=st.sampled_from([0, -0.5, 0.5, 1, -2, 1e-3, 3e4])))
def test_lamp_is_a_share_of_what_would_be_left(w):
    found = lamp(w)
    np.testing.assert_allclose(found, slow_lamp(w), rtol=1e-12)
    assert found.max() == (1 if w.any() else 0)


@pytest.mark.parametrize("exponent", [-1000, -200, 1000])
def test_lamp_of_tiny_and_huge_weights_is_that_of_others(exponent):
    """Their squares alone would be 0 or infinite."""
    w = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_array_equal(lamp(np.ldexp(w, exponent)), lamp(w))


def test_lamp_ranks_a_layer_by_magnitude_and_empties_none(arrays):
    w, _ = arrays
    order = np.argsort(to_numpy(lamp(w)), axis=None)
    np.testing.assert_array_equal(order, np.argsort(np.abs(to_numpy(w)), axis=None))
    model = nn.Sequential({"small": nn.Linear(4, 3), "large": nn.Linear(3, 40)})
    model.get_submodule("small").weight.data *= 1e-3
    left = {
        kind: np.count_nonzero(prune(model, 0.9, kind).get_submodule("small").weight.data)
        for kind in ("magnitude", "lamp")
    }
    assert left["magnitude"] == 1  # the one that always stays
    assert left["lamp"] > 1


def test_what_lamp_says_of_a_unit_is_the_sum_over_its_weights():
    rows = np.array([[0.3, 0.4], [0.6, 0.0]])
    np.testing.assert_allclose(criterion("lamp").of_units(rows), [0.7, 0.6])


def test_random_follows_its_seed_alone(arrays):
    w, _ = arrays
    one, same, other = (random(seed)(w, None) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    assert one.shape == w.shape


def linear_data(n=600):
    rng = np.random.default_rng(3)
    return Dataset(rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, 3, n))


def test_the_derivative_is_the_mean_over_all_samples(device):
    """Over several batches and shards; for a linear layer it is (softmax(z) − onehot)ᵀ x / N."""
    model, data = nn.Sequential({"fc": nn.Linear(5, 3)}), linear_data()
    x, y = data.arrays
    z = x @ model.get_submodule("fc").weight.data.T + model.get_submodule("fc").bias.data
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    expected = (p - np.eye(3)[y]).T @ x / len(data)
    found = mean_gradients(model.to(device), ["fc"], data)["fc"]
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-6)


def test_the_derivative_is_that_of_the_objective():
    model, data = nn.Sequential({"fc": nn.Linear(5, 3)}), linear_data()
    doubled = Supervised(lambda outputs, labels: 2 * F.cross_entropy(outputs, labels))
    once, twice = (mean_gradients(model, ["fc"], data, o)["fc"] for o in (None, doubled))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


def test_the_derivative_is_taken_in_evaluation_mode():
    layers = {"fc": nn.Linear(5, 8), "norm": nn.BatchNorm1d(8), "out": nn.Linear(8, 3)}
    plain = nn.Sequential(layers).eval()
    dropping = nn.Sequential({"drop": nn.Dropout(0.5), **layers}).train()
    one, two = (mean_gradients(m, ["fc"], linear_data())["fc"] for m in (plain, dropping))
    np.testing.assert_array_equal(one, two)


def test_taylor_predicts_what_the_loss_loses():
    """L(w with one weight at 0) − L(w) ≈ −g·w where the weight is small."""
    model, data = nn.Sequential({"fc": nn.Linear(5, 3)}).to("float64"), linear_data(64)
    data = Dataset(data.images.astype(np.float64), data.labels)
    w = model.get_submodule("fc").weight.data
    w[...] = np.random.default_rng(0).normal(size=w.shape) * 1e-3
    g = mean_gradients(model, ["fc"], data)["fc"]
    loss = lambda: F.cross_entropy(model(data.images), data.labels).item()  # noqa: E731
    whole, saved = loss(), w[1, 2]
    w[1, 2] = 0
    assert abs(loss() - whole) == pytest.approx(taylor(np.array(saved), g[1, 2]), rel=0.01)


# -------------------------------------------------------------------------- one of your own


def test_a_function_of_your_own_ranks_the_weights():
    model = nn.Sequential({"fc": nn.Linear(4, 3)})
    column = prune(model, 0.25, importance=lambda w, g: w * 0 + np.arange(4))
    np.testing.assert_array_equal(
        column.get_submodule("fc").weight.mask, np.tile([False, True, True, True], (3, 1))
    )


def test_a_function_of_your_own_gets_the_derivative_where_there_is_data():
    model = nn.Sequential({"fc": nn.Linear(5, 3)})
    seen = []
    for data in (None, linear_data(32)):
        prune(model, 0.5, importance=lambda w, g: seen.append(g) or abs(w), data=data)
    assert seen[0] is None
    assert seen[1].shape == (3, 5)


def test_the_named_criteria_are_the_functions():
    model, data = nn.Sequential({"fc": nn.Linear(5, 3)}), linear_data(32)
    for name, function in (("magnitude", magnitude), ("gradient", gradient), ("taylor", taylor)):
        assert criterion(name).measure is function
        by_name, by_function = (
            prune(model, 0.5, importance=i, data=data) for i in (name, function)
        )
        np.testing.assert_array_equal(by_name[0].weight.mask, by_function[0].weight.mask)
    with pytest.raises(ValueError, match="give data="):
        prune(model, 0.5, importance=taylor)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda w, g: w.sum(), r"must have the weight's shape \(3, 4\), got \(\)"),
        (lambda w, g: w[:2], r"layer 'fc' must have the weight's shape"),
        (lambda w, g: w * np.nan, "layer 'fc' holds NaN"),
    ],
)
def test_importances_that_cannot_be_ranked_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        prune(nn.Sequential({"fc": nn.Linear(4, 3)}), 0.5, importance=own)
