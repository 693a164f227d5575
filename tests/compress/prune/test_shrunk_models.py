"""Where a smaller model goes on from: into a file, into codes, into training."""

import numpy as np
import pytest
from random_networks import RandomNetwork, images as random_images
from shrinking import Residual, assert_same, images, outputs, sizes

import tinycompress as tc
from tinycompress import optim
from tinycompress.compress.prune.channels import channel_masks
from tinycompress.compress.prune.gradual import GradualPruning


def test_a_residual_network_s_channels_hang_together():
    slim = tc.remove_channels(Residual(), 0.5)
    assert slim.stem.out_channels == slim.conv2.out_channels == slim.head.in_features == 4
    assert slim.conv1.weight.shape == (8, 4, 3, 3)
    assert [slim.norm0.num_features, slim.norm1.num_features] == [4, 8]


@pytest.fixture
def registered():
    tc.register(Residual, "residual-of-a-test")
    tc.register(RandomNetwork, "random-network-of-a-test")


@pytest.mark.parametrize(
    "model",
    [tc.models.ArticleCNN, tc.models.LeNet5, tc.models.LeNet300100, Residual,
     lambda: RandomNetwork(5), lambda: RandomNetwork(8, "even")],
)  # fmt: skip
@pytest.mark.usefixtures("registered")
def test_a_smaller_model_is_saved_and_loaded(model, tmp_path):
    model = model()
    own = isinstance(model, RandomNetwork)
    x = random_images(dtype="f") if own else images(1, 28, 28, dtype="f")
    slim = tc.remove_channels(model, 0.5, sample=x)
    size = tc.save(slim, tmp_path / "slim.tcz")
    again = tc.load(tmp_path / "slim.tcz")
    assert repr(again) == repr(slim)
    np.testing.assert_array_equal(outputs(again, x), outputs(slim, x))
    numbers = sum(p.size for p in slim.parameters()) + sum(b.size for b in slim.buffers())
    assert size <= 4 * numbers + 900
    assert size < tc.save(model, tmp_path / "model.tcz") or own


def test_the_description_of_a_smaller_layer_is_what_became_smaller(tmp_path):
    tc.save(tc.remove_channels(tc.models.LeNet5(), 0.5), tmp_path / "m.tcz")
    assert tc.inspect(tmp_path / "m.tcz").architecture == ["lenet-5", {}, {
        "conv1": ["Conv2d", {"out_channels": 10}],
        "conv2": ["Conv2d", {"in_channels": 10, "out_channels": 25}],
        "fc1": ["Linear", {"in_features": 400, "out_features": 250}],
        "fc2": ["Linear", {"in_features": 250}],
    }]  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    train, test = tc.data.mnist()
    return train.take(256), test.take(64)


@pytest.mark.parametrize("kind", [tc.models.TinyCNN, Residual])
def test_a_smaller_model_is_quantized_prepared_and_distilled(kind, digits):
    train, test = digits
    model = kind()
    slim = tc.remove_channels(model, 0.5, importance="taylor", data=train)
    x = test.images
    q8 = tc.quantize(slim, tc.QuantConfig(bits=8), calibration=train)
    error = np.abs(outputs(q8, x) - outputs(slim, x)).max()
    assert error < 0.1 * np.abs(outputs(slim, x)).max()
    prepared = tc.prepare_qat(slim, tc.QuantConfig(bits=8), calibration=train)
    tc.fit(prepared, train, epochs=1, optimizer=optim.SGD(prepared.parameters(), lr=0.01))
    assert outputs(tc.convert(prepared), x).shape == (64, 10)
    small = tc.distill(teacher=model, student=slim, data=train, epochs=1)
    assert sizes(small) == sizes(slim)


def test_a_prepared_model_is_masked_as_its_float_model(digits):
    train, _ = digits
    model = tc.models.TinyCNN()
    prepared = tc.prepare_qat(model, tc.QuantConfig(bits=8), calibration=train)
    expected = channel_masks(model, 0.5)
    found = channel_masks(prepared, 0.5)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[n], mask) for n, mask in expected.items())


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("importance", ["taylor", "geometric_median", "random"])
def test_channels_that_went_gradually_in_training_are_then_removed(digits, scope, importance):
    train, test = digits
    model = tc.models.TinyCNN(8)
    callback = GradualPruning(
        0.5, structure="channel", importance=importance, scope=scope, data=train, every=1
    )
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    tc.fit(model, train, epochs=2, optimizer=optimizer, callbacks=[callback])
    slim = tc.remove_channels(model)
    assert slim.conv1.out_channels + slim.conv2.out_channels == (8 + 16) / 2
    assert_same(slim, model, test.images, 1e-5)
