"""``tc.quantize`` with all its ways: what runs, in which order, and what is refused beforehand."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import (
    QuantConfig,
    QuantizedConv2d,
    QuantizedLinear,
    quantization_report,
    quantize,
)
from tinycompress.compress.quantize.integer import IntegerConv2d, IntegerLinear
from tinycompress.data import Dataset, mnist
from tinycompress.train import evaluate, fit

rng = np.random.default_rng(0)
images = rng.random((40, 1, 28, 28)).astype("f")


@pytest.fixture(scope="module")
def trained():
    """(a small trained CNN, calibration data, test images)."""
    random.manual_seed(0)
    train, test = mnist()
    model = models.TinyCNN()
    fit(model, train.take(2000), 3, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model, train.take(200), test.take(1000)


def normed():
    """A CNN with batch norm, one of them in a block with a forward of its own."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.add, self.relu = nn.Add(), nn.ReLU()

        def forward(self, x):
            return self.relu(self.add(self.norm(self.conv(x)), x))

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), Block(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 36, 5),
    )  # fmt: skip
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean[...] = rng.normal(size=4) / 4
            layer.weight.data[...] = rng.uniform(0.5, 1.5, 4) * rng.choice([-1, 1], 4)
    return model.eval()


def kinds(model):
    return {type(m) for m in model.modules()}


# ---------------------------------------------------------------------------------- three ways


def test_calibration_makes_an_integer_model_of_8_bits(trained):
    model, calibration, test = trained
    q = quantize(model, calibration=calibration)
    assert kinds(q) >= {IntegerConv2d, IntegerLinear}
    before, after = (evaluate(m, test, workers=1) for m in (model, q))
    assert abs(after.accuracy - before.accuracy) <= 0.01


def test_activations_say_how_many_bits(trained):
    model, calibration, _ = trained
    q = quantize(model, QuantConfig(4, activations=5), calibration)
    assert q.conv1.target.bits == 5
    assert q.conv1.weight_codes.max() <= 7


def test_images_alone_are_calibration_too(trained):
    model, calibration, _ = trained
    a = quantize(model, calibration=calibration)(images).data
    b = quantize(model, calibration=calibration.images)(images).data
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("observer", ["minmax", "percentile", "kl", "mse"])
def test_the_order_of_calibration_data_does_not_matter(trained, observer):
    model, calibration, _ = trained
    config = QuantConfig(4, activations=4, observer=observer)
    order = rng.permutation(200)
    a = quantize(model, config, calibration.images)(images).data
    b = quantize(model, config, calibration.images[order])(images).data
    np.testing.assert_array_equal(a, b)


def test_weights_only_although_there_is_data(trained):
    model, calibration, _ = trained
    q = quantize(model, QuantConfig(4), calibration, weights_only=True)
    assert kinds(q) >= {QuantizedConv2d, QuantizedLinear}
    expected = quantize(model, QuantConfig(4))
    np.testing.assert_array_equal(q(images).data, expected(images).data)


def test_overrides_by_name_and_class(trained):
    model, calibration, _ = trained
    config = QuantConfig(3, overrides={"conv1": QuantConfig(8), nn.Linear: None})
    q = quantize(model, config)
    assert (q.conv1.quantization.bits, q.conv2.quantization.bits) == (8, 3)
    assert type(q.fc) is nn.Linear
    whole = quantize(model, config, calibration)
    assert np.abs(whole.conv1.weight_codes).max() == 127
    assert np.abs(whole.conv2.weight_codes).max() == 3
    assert np.isfinite(whole(images).data).all()


# ------------------------------------------------------------------------------ what is done before


def test_batch_norm_is_folded_also_in_a_forward_of_ones_own():
    model = normed()
    q = quantize(model, calibration=images)
    assert nn.BatchNorm2d not in kinds(q)
    right = model(images).data
    assert np.abs(q(images).data - right).max() < 0.1 * np.abs(right).max()
    assert nn.BatchNorm2d not in kinds(quantize(model, QuantConfig(dynamic=True), images))
    assert nn.BatchNorm2d in kinds(quantize(model, QuantConfig(dynamic=True)))  # unseen
    assert nn.BatchNorm2d in kinds(quantize(model))
    assert nn.BatchNorm2d not in kinds(quantize(model, fold=True)[:2])


@pytest.mark.parametrize("option", ["adaround", "bias_correction", "equalize"])
@pytest.mark.parametrize("weights_only", [True, False])
def test_each_option_changes_the_result_and_keeps_it_sensible(trained, option, weights_only):
    model, calibration, test = trained
    config = QuantConfig(4, weight_observer="mse")
    plain, better = (
        quantize(model, config, calibration, weights_only=weights_only, **{option: on})
        for on in (False, True)
    )
    assert not np.array_equal(plain(images).data, better(images).data)
    float_accuracy = evaluate(model, test, workers=1).accuracy
    assert evaluate(better, test, workers=1).accuracy >= float_accuracy - 0.05


def test_adaround_rescues_two_bits(trained):
    model, calibration, test = trained
    config = QuantConfig(2, weight_observer="mse")
    nearest, better = (
        evaluate(quantize(model, config, calibration, adaround=on), test, workers=1)
        for on in (False, True)
    )
    assert better.loss < nearest.loss


def test_all_of_it_together_and_the_model_stays():
    model = normed()
    before = {k: v.tobytes() for k, v in model.state_dict().items()}
    config = QuantConfig(4, activations=6, observer="mse", weight_observer="mse")
    q = quantize(model, config, Dataset(images), equalize=True, adaround=True, bias_correction=True)
    right = model(images).data
    assert np.abs(q(images).data - right).max() < 0.5 * np.abs(right).max()
    assert {k: v.tobytes() for k, v in model.state_dict().items()} == before
    assert nn.BatchNorm2d in kinds(model)


@pytest.mark.parametrize("gpu", ["cuda:0", "cuda:1"])
def test_devices_agree(cupy, gpu):
    """Whatever device is current, and with every option, the same codes and the same outputs."""
    model = normed()
    all_of_it = QuantConfig(4, activations=5, observer="mse", weight_observer="mse")
    options = {"equalize": True, "adaround": True, "bias_correction": True}
    ways = [(all_of_it, images, options), (QuantConfig(dynamic=True), None, {})]
    ways += [(QuantConfig(activations=8, observer=o), images, {}) for o in ("kl", "moving_average")]
    for config, calibration, how in ways:
        here = quantize(model, config, calibration, **how)
        there = quantize(model.copy().to(gpu), config, calibration, **how)
        assert there.device == gpu
        found = there(to_device(images, gpu)).data
        np.testing.assert_allclose(to_numpy(found), here(images).data, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [nn.Linear(5, 3), nn.Conv2d(5, 3, 1)], ids=repr)
def test_a_single_layer_is_a_model_too(layer):
    x = rng.normal(size=(20, 5, 1, 1)[: layer.weight.ndim]).astype("f")
    options = {"adaround": True, "bias_correction": True}
    for how in ({}, {"weights_only": True}):
        q = quantize(layer, QuantConfig(4), x, **options, **how)
        assert q(x).shape == layer(x).shape


def test_biases_are_corrected_for_the_weights_that_were_rounded_adaptively():
    """Against the float model: with adaround's own outputs there would be no shift left to find."""
    model = models.TinyCNN()
    config = QuantConfig(2, weight_observer="mse")
    q = quantize(model, config, images, weights_only=True, adaround=True, bias_correction=True)
    mean = lambda m: m(images).data.mean(axis=0)  # noqa: E731
    np.testing.assert_allclose(mean(q), mean(model), atol=1e-4)


def test_the_report_speaks_of_layers_with_other_observers(trained):
    model = trained[0]
    plain = quantization_report(model, quantize(model, QuantConfig(3)))
    better = quantization_report(model, quantize(model, QuantConfig(3, weight_observer="mse")))
    assert all(b.snr_db >= p.snr_db for b, p in zip(better, plain, strict=True))


def test_it_is_stored_with_its_overrides(tmp_path, trained):
    config = QuantConfig(3, weight_observer="mse", overrides={"conv1": QuantConfig(8)})
    q = quantize(trained[0], config)
    tc.save(q, tmp_path / "q.tcz")
    again = tc.load(tmp_path / "q.tcz")
    assert again.conv2.quantization == QuantConfig(3, weight_observer="mse")
    np.testing.assert_array_equal(again(images).data, q(images).data)


# ------------------------------------------------------------------------------------- refusals


def test_every_problem_is_named_at_once_and_nothing_is_changed():
    model = models.ArticleCNN()
    model.conv2.weight.data[0, 0, 0, 0] = np.nan
    model.fc1.weight.data[0, 0] = np.inf
    before = {k: v.tobytes() for k, v in model.state_dict().items()}
    config = QuantConfig(
        4, "affine", overrides={"conv7": None, "fc2": QuantConfig(4, "affine", "per_tensor")}
    )
    with pytest.raises(ValueError, match="this model cannot be quantized") as error:
        quantize(model, config, adaround=True, bias_correction=True)
    for problem in (
        "overrides['conv7'] fits no layer",
        "conv2 (Conv2d): holds NaN",
        "fc1 (Linear): holds infinity",
        "conv1 (Conv2d): adaround needs symmetric weights, got scheme='affine'",
        "adaround needs calibration data",
        "bias_correction needs calibration data",
    ):
        assert problem in str(error.value)
    assert {k: v.tobytes() for k, v in model.state_dict().items()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config": QuantConfig(activations=8)},
            r"activations=8 needs .* dynamic=True",
        ),
        ({"config": QuantConfig(4, "affine"), "calibration": images}, "compute in integers"),
        (
            {"config": QuantConfig(4, "symmetric", "per_group", 8), "calibration": images},
            "compute in integers.*per_group",
        ),
        (
            {"config": QuantConfig(activations=8), "calibration": images, "weights_only": True},
            "weights_only=True contradicts activations=8",
        ),
        ({"calibration": images[:0]}, "there are no images"),
        ({"config": QuantConfig(overrides={"*": None})}, "leave every layer in floats"),
        ({"equalize": True, "config": QuantConfig(4)}, "no two layers"),
    ],
)
def test_what_is_refused(arguments, message):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(2 * 676, 3))
    with pytest.raises(ValueError, match=message):
        quantize(model, **arguments)


def test_a_layer_that_calibration_never_reached_is_named():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(784, 3), nn.Linear(784, 3)
            self.flatten = nn.Flatten()

        def forward(self, x):
            return self.used(self.flatten(x))

    with pytest.raises(RuntimeError, match="unused"):
        quantize(Skips(), calibration=images)
