"""AdaRound: weights on their grid, each next to where it was, and a layer that errs less."""

import importlib
import itertools

import numpy as np
import pytest
from gradcheck import check_gradients

from tinycompress import models, nn, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.compress.quantize.adaround import (
    _beta,
    _rectified_sigmoid,
    _undecided,
    adaround,
    on_grid,
)
from tinycompress.compress.quantize.bias_correction import with_rounded_weights
from tinycompress.compress.quantize.blocks import spread
from tinycompress.compress.quantize.weights import dequantize_weight, quantize_weight
from tinycompress.tensor import apply

rng = np.random.default_rng(0)
images = np.maximum(rng.normal(size=(40, 1, 28, 28)), 0).astype("f")
fast = {"steps": 60, "lr": 0.1}
CONFIGS = [
    QuantConfig(2),
    QuantConfig(4, weight_observer="mse"),
    QuantConfig(3, granularity="per_tensor"),
    QuantConfig(3, granularity="per_group", group_size=5, weight_observer="mse"),
    QuantConfig(8),
]


def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Flatten(), nn.Linear(4 * 36, 10), nn.ReLU(), nn.Linear(10, 3),
    ).eval()  # fmt: skip


def weights_of(model):
    return {n: to_numpy(p.data) for n, p in model.named_parameters() if n.endswith("weight")}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_each_weight_becomes_one_of_its_two_neighbours(device, config):
    model = small().to(device)
    rounded = weights_of(adaround(model, config, to_device(images, device), **fast))
    for name, w in weights_of(model).items():
        nearest = quantize_weight(w, config)
        step = np.broadcast_to(_steps(nearest.scale, w, config), w.shape)
        inside = np.abs(w) <= step * config.target.qmax
        assert np.all(np.abs(rounded[name] - w)[inside] <= (step * (1 + 1e-4))[inside])
        at_the_end = dequantize_weight(nearest, config)[~inside]
        np.testing.assert_allclose(rounded[name][~inside], at_the_end, rtol=1e-6)


def _steps(scale, w, config):
    return spread(scale, w.shape, config.axis, config.group_size)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_quantizing_the_result_gives_exactly_these_weights(config):
    rounded = adaround(small(), config, images, **fast)
    q = quantize(rounded, on_grid(config))
    for name in ("0", "2", "4", "6"):
        ours = rounded.get_submodule(name).weight.data
        np.testing.assert_allclose(q.get_submodule(name).weight.data, ours, rtol=3e-7, atol=0)
        codes = q.get_submodule(name).weight_codes
        scale = _steps(q.get_submodule(name).weight_scale, ours, config)
        np.testing.assert_array_equal(codes, np.rint(ours / scale))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_layer_s_outputs_are_nearer_than_with_the_nearest_codes(bits):
    """Where inputs are correlated, as after ReLU, errors of the same sign add up."""
    layer = nn.Linear(60, 8)
    x = (np.maximum(rng.normal(size=(400, 10)), 0) @ rng.random((10, 60))).astype("f")
    config = QuantConfig(bits, weight_observer="mse")
    model = nn.Sequential(layer)
    right = model(x).data
    rounded = adaround(model, config, x, steps=300)
    nearest = with_rounded_weights(model, config, ["0"])
    ours, theirs = (((m(x).data - right) ** 2).mean() for m in (rounded, nearest))
    assert ours < {2: 0.9, 3: 0.5, 4: 0.5}[bits] * theirs


def test_it_is_never_worse_than_the_nearest_codes_on_its_data():
    model, config = small(), QuantConfig(3)
    first = model[:2]
    for settings in ({"steps": 1}, {"steps": 5, "lr": 10.0}):
        rounded = adaround(first, config, images, **settings)
        nearest = with_rounded_weights(first, config, ["0"])
        right = first(images).data
        errors = [((m(images).data - right) ** 2).sum() for m in (rounded, nearest)]
        assert errors[0] <= errors[1] * (1 + 1e-6)


def two_layers():
    """A first layer that loses much, a second one, and inputs."""
    random.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    x = (np.maximum(rng.normal(size=(300, 6)), 0) @ rng.random((6, 12))).astype("f")
    return model, x


def test_a_layer_is_rounded_for_the_inputs_that_it_will_get():
    """The wrong version gives the second layer the float model's inputs."""
    model, x = two_layers()
    config = QuantConfig(4, overrides={"0": QuantConfig(2)})
    right = adaround(model, config, x, steps=300)
    alone = adaround(model, QuantConfig(4, overrides={"0": None}), x, steps=300)
    wrong = right.copy()
    wrong[2].weight.data = alone[2].weight.data
    exact = model(x).data
    ours, theirs = (((m(x).data - exact) ** 2).mean() for m in (right, wrong))
    assert ours < 0.9 * theirs


def test_what_a_relu_takes_away_does_not_count():
    """Where it takes everything away, there is nothing to gain, and the nearest codes stay."""
    model, x = two_layers()
    first, config = model[:2], QuantConfig(2, weight_observer="mse")
    model[0].bias.data -= 1000
    nearest = with_rounded_weights(first, config, ["0"])[0].weight.data
    seen, unseen = (adaround(m, config, x)[0].weight.data for m in (first, first[:1]))
    np.testing.assert_array_equal(seen, nearest)
    assert not np.array_equal(unseen, nearest)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_below_zero_before_a_relu_does_not_draw_weights_its_way(seed):
    """Half of the inputs are large, with outputs far below 0: rounded for them, the rest is worse.
    All 32 roundings are tried."""
    rng = np.random.default_rng(seed)
    x = np.zeros((80, 6), "f")
    x[:40] = rng.random((40, 6)) * [1, 1, 1, 0.2, 0.2, 0.2] + 0.2
    x[40:] = -10 * (rng.random((40, 6)) * [0.2, 0.2, 0.2, 1, 1, 1] + 0.2)
    layer = nn.Linear(6, 1, bias=False)
    w, scale = np.append(rng.uniform(0.2, 0.9, 5), 1), 1 / 3
    layer.weight.data[...] = w

    def error(weight):
        return float(((np.maximum(x @ weight, 0) - np.maximum(x @ w, 0)) ** 2).sum())

    ups = itertools.product((0, 1), repeat=5)
    best = min(error(scale * (np.floor(w / scale) + np.array([*up, 0]))) for up in ups)
    with_relu, without = (
        adaround(model, QuantConfig(3), x)[0].weight.data[0].astype(float)
        for model in (nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer))
    )
    assert error(with_relu) < 1.1 * best
    assert error(without) > 2 * error(with_relu)


def test_what_a_layer_should_give_is_after_the_relu_too(monkeypatch):
    """An output just above 0 would be drawn down by how far below 0 it should have been."""
    goals = []

    def spy(grid, outputs, x, right, settings):
        goals.append(right)
        return grid.at(0)

    monkeypatch.setattr(importlib.import_module(adaround.__module__), "_learn", spy)
    adaround(small(), QuantConfig(2), images)
    assert [goal.min() >= 0 for goal in goals] == [True, False, True, False]


def test_zeros_stay_and_masks_too():
    model = small()
    mask = rng.random(model[4].weight.shape) < 0.3
    model[4].weight.mask = mask
    model[4].weight.data *= mask
    rounded = adaround(model, QuantConfig(3), images, **fast)
    assert np.all(rounded[4].weight.data[~mask] == 0)
    np.testing.assert_array_equal(rounded[4].weight.mask, mask)


def test_blocks_too_small_for_a_scale_do_not_become_ones():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    model[1].weight.data[0] = 1e-39
    rounded = adaround(model, QuantConfig(4), images, **fast)
    assert np.all(rounded[1].weight.data[0] == 0)


def test_layers_that_are_left_out_and_the_old_model_stay():
    model = small()
    before = weights_of(model.copy())
    config = QuantConfig(3, overrides={"0": None, "6": QuantConfig(1)})
    rounded = weights_of(adaround(model, config, images, **fast))
    assert weights_of(model).keys() == before.keys()
    for name, w in before.items():
        np.testing.assert_array_equal(weights_of(model)[name], w)
        assert np.array_equal(rounded[name], w) == (name in ("0.weight", "6.weight"))


def test_the_same_seed_gives_the_same_weights():
    a, b, c = (
        weights_of(adaround(small_seeded(), QuantConfig(3), images, seed=s, steps=30))
        for s in (0, 0, 1)
    )
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not all(np.array_equal(a[n], c[n]) for n in a)


def small_seeded():
    random.manual_seed(3)
    return small()


def test_other_schemes_are_refused_by_name():
    with pytest.raises(ValueError, match="adaround: 0 has scheme='affine', and needs symmetric"):
        adaround(small(), QuantConfig(4, "affine"), images)
    with pytest.raises(ValueError, match="there are no images"):
        adaround(small(), QuantConfig(4), images[:0])


def test_a_forward_of_ones_own():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = models.TinyCNN()

        def forward(self, x):
            return self.body(x * 2.0) + 1.0

    rounded = adaround(Own(), QuantConfig(3), images, **fast)
    assert np.isfinite(rounded(images).data).all()


@pytest.mark.parametrize("beta", [2.0, 7.5, 20.0])
def test_derivatives(beta):
    v = rng.normal(size=50) * 2
    v = v[np.abs(np.abs(v) - np.log(11)) > 0.05]  # not at a corner
    check_gradients(lambda t: apply(_rectified_sigmoid, t), v)
    h = rng.uniform(0, 1, 50)
    check_gradients(lambda t: apply(_undecided, t, beta=beta), h[np.abs(h - 0.5) > 0.02])


def test_the_regulariser_starts_late_and_sharpens():
    betas = [_beta(step, 100) for step in range(100)]
    assert betas[:20] == [None] * 20
    assert betas[20] == 20
    assert betas[-1] == pytest.approx(2, abs=0.01)
    assert betas[20:] == sorted(betas[20:], reverse=True)
