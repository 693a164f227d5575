"""Models in float16 and float64: converted where nothing is lost, refused by name elsewhere."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.quantize import QuantConfig

X = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype("f")
WAYS = {
    "weights only": (QuantConfig(4), None),
    "dynamic": (QuantConfig(8, dynamic=True), None),
    "static": (QuantConfig(8, activations=8), X),
}


def network():
    tc.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


@pytest.mark.parametrize("way", WAYS)
def test_scales_are_not_made_float16(way):
    net = tc.quantize(network(), *WAYS[way])
    before, answers = net.state_dict(), net(X).data
    with pytest.raises(TypeError, match=r"to: 0.* \(\w+\) keeps scales of codes, .*got float16"):
        net.to("float16")
    for name, array in net.state_dict().items():
        assert array.dtype == before[name].dtype
    np.testing.assert_array_equal(net.to("float32")(X).data, answers)


def test_scales_that_are_float64_are_the_same_numbers():
    net = tc.quantize(network(), *WAYS["static"])
    answers = net(X).data
    np.testing.assert_array_equal(net.to(np.float64)(X).data, answers)


@pytest.mark.parametrize("way", ["weights only", "dynamic"])
def test_float64_computes_the_same_more_exactly(way):
    net = tc.quantize(network(), *WAYS[way])
    answers = net(X).data
    y = net.to("float64")(X.astype("d"))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y.data, answers, rtol=1e-4, atol=1e-5)


def test_weights_of_float16_are_refused_by_name():
    with pytest.raises(ValueError, match=r"0 \(Conv2d\): scales need float32, and it is float16"):
        tc.quantize(network().to("float16"), QuantConfig(4))


@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_a_float16_model_gives_a_model_that_runs(way):
    config, data = WAYS[way]
    net = network().to("float16")
    q = tc.quantize(net, config, None if data is None else data.astype("e"))
    x = X.astype("e")
    np.testing.assert_allclose(q(x).data, net(x).data, atol=0.05)


@pytest.mark.parametrize("way", WAYS)
def test_no_image_gives_no_answer(way):
    assert tc.quantize(network(), *WAYS[way])(X[:0]).shape == (0, 5)
