"""Bias correction: on average each channel gives what the float model gives."""

import numpy as np
import pytest

from tinycompress import models, nn
from tinycompress.backend import to_device
from tinycompress.compress.quantize import QuantConfig, adaround, quantize
from tinycompress.compress.quantize.bias_correction import correct_biases, with_rounded_weights
from tinycompress.compress.quantize.capture import channel_means, inputs_and_outputs
from tinycompress.data import Dataset

rng = np.random.default_rng(0)
images = rng.random((30, 1, 28, 28)).astype("f")


def names_of(model):
    return [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("create", [models.ArticleCNN, models.LeNet5])
def test_the_mean_of_each_channel_is_that_of_the_float_model(bits, create):
    model, config = create(), QuantConfig(bits)
    names = names_of(model)
    right = channel_means(model, names, images)
    corrected = with_rounded_weights(correct_biases(model, config, images), config, names)
    found, before = (
        channel_means(m, names, images)
        for m in (corrected, with_rounded_weights(model, config, names))
    )
    for name in names:
        size = np.abs(right[name]).max()
        np.testing.assert_allclose(found[name], right[name], rtol=0, atol=1e-4 * size)
        assert np.abs(before[name] - right[name]).max() > 1e-3 * size


def test_each_layer_is_corrected_after_those_before_it():
    """The wrong version measures all shifts at once, with uncorrected inputs."""
    model, config = models.ArticleCNN(), QuantConfig(2)
    names = names_of(model)
    right = channel_means(model, names, images)
    rounded = with_rounded_weights(model, config, names)
    at_once = channel_means(rounded, names, images)
    for name in names:
        rounded.get_submodule(name).bias.data += (right[name] - at_once[name]).astype("f")
    wrong = channel_means(rounded, names, images)["fc2"]
    corrected = with_rounded_weights(correct_biases(model, config, images), config, names)
    good = channel_means(corrected, names, images)["fc2"]
    assert np.abs(good - right["fc2"]).max() < 0.1 * np.abs(wrong - right["fc2"]).max()


def test_layers_without_bias_get_one_and_others_are_left_out():
    model = nn.Sequential(nn.Conv2d(1, 3, 5, bias=False), nn.Flatten(), nn.Linear(3 * 576, 4))
    config = QuantConfig(2, overrides={"2": None})
    corrected = correct_biases(model, config, Dataset(images))
    assert corrected[0].bias.shape == (3,)
    assert model[0].bias is None
    np.testing.assert_array_equal(corrected[2].bias.data, model[2].bias.data)
    np.testing.assert_array_equal(corrected[0].weight.data, model[0].weight.data)
    assert quantize(corrected, config)[0].bias.shape == (3,)


def test_the_means_are_those_of_numpy(device):
    model = nn.Sequential(nn.Conv2d(1, 3, 5), nn.Flatten(), nn.Linear(3 * 576, 4)).to(device)
    data = to_device(images, device)
    found = channel_means(model, ["0", "2"], data, batch_size=7)
    y = model[0](data)
    np.testing.assert_allclose(found["0"], to_numpy64(y).mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["2"], to_numpy64(model(data)).mean(axis=0), rtol=1e-5)


def to_numpy64(tensor):
    return np.asarray(tensor.to("cpu").data, np.float64)


def test_capture_gives_what_passes_in_evaluation():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 2), nn.ReLU())
    x, y = inputs_and_outputs(model, "2", images, batch_size=8)
    np.testing.assert_array_equal(x, images.reshape(30, -1))
    np.testing.assert_allclose(y, model[2](x).data, rtol=1e-5)
    assert model.training
    assert not any(m._hooks for m in model.modules())


def test_a_layer_that_sees_images_of_two_sizes():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)

        def forward(self, x):
            return self.conv(x).mean() + self.conv(self.pool(x)).mean()

    model = Twice()
    x, _ = inputs_and_outputs(model, "conv", images)
    np.testing.assert_array_equal(x, images)
    corrected = correct_biases(model, QuantConfig(2), images)
    assert corrected.conv.bias.data != model.conv.bias.data
    assert adaround(model, QuantConfig(2), images, steps=5).conv.weight.shape == (1, 1, 3, 3)


def test_no_images():
    with pytest.raises(ValueError, match="there are no images"):
        correct_biases(models.TinyCNN(), QuantConfig(4), images[:0])
