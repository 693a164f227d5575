"""What cannot be quantized, prepared or calibrated is said by name, and what to do about it."""

import numpy as np
import pytest
from qat_models import blobs, cnn

import tinycompress as tc
from tinycompress.compress.quantize import QuantConfig, adaround, correct_biases

X = blobs(8).images
WEIGHTS = QuantConfig(4)
INTEGERS = QuantConfig(4, activations=8)
WAYS = {
    "quantize": lambda data: tc.quantize(cnn(), None, data),
    "prepare_qat": lambda data: tc.prepare_qat(cnn(), None, data),
    "adaround": lambda data: tc.quantize(cnn(), WEIGHTS, data, adaround=True, weights_only=True),
    "bias correction": lambda data: tc.quantize(cnn(), WEIGHTS, data, bias_correction=True),
}


# -------------------------------------------------------------------------------- calibration data


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (X.astype("d"), TypeError, r"calibration data are float64, and conv1\.weight is float32"),
        ([1.0, 2.0, 3.0], ValueError, r"images must be an array \(N, ...\), .*got shape \(3,\)"),
        (3.0, ValueError, r"images must be .*got shape \(\)"),
        (np.float32(3), ValueError, r"images must be .*got shape \(\)"),
        ("train", TypeError, "images must be .*got str"),
        (object(), TypeError, "images must be .*got object"),
        (X[:0], ValueError, "there are no images in the data"),
        (np.where(np.arange(8) == 5, np.float32(np.nan), X), ValueError, "NaN or infinity in 8 of"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_done(way, data, kind, message):
    with pytest.raises(kind, match=message):
        WAYS[way](data)


def test_one_bad_image_is_named():
    bad = X.copy()
    bad[6, 0, 3, 3] = np.inf
    with pytest.raises(ValueError, match="in 1 of 8 images, first in image 6; leave those out"):
        tc.quantize(cnn(), None, bad)


def test_whole_numbers_are_images():
    assert tc.quantize(cnn(), None, (X > 0.5).astype(np.uint8))(X).shape == (8, 4)


@pytest.mark.parametrize("function", [adaround, correct_biases])
def test_the_parts_refuse_what_is_no_batch_too(function):
    with pytest.raises(ValueError, match=r"images must be .*got shape \(2,\)"):
        function(cnn(), WEIGHTS, [1.0, 2.0])


# ------------------------------------------------------------------------- models that are codes


MODELS = {
    "integers": (
        lambda: tc.quantize(cnn(), None, X),
        "this Sequential computes in integers already; .* start from the float model",
        "computes in integers .*tc.dequantize only gives back floats where weights alone are codes",
    ),
    "prepared": (
        lambda: tc.prepare_qat(cnn(), None, X),
        "is prepared",
        "is prepared for training with codes and still has float weights",
    ),
    "weights": (lambda: tc.quantize(cnn()), "already is; call dequantize first", None),
    "floats": (cnn, None, "has no quantized layer: its weights are floats already"),
}


@pytest.mark.parametrize("name", [n for n, (_, message, _) in MODELS.items() if message])
def test_what_is_quantized_already_says_what_it_is(name):
    make, message, _ = MODELS[name]
    model = make()
    for again in (
        lambda: tc.quantize(model, WEIGHTS),
        lambda: tc.quantize(model, INTEGERS, X),
        lambda: tc.prepare_qat(model, INTEGERS),
        lambda: tc.sensitivity(model, WEIGHTS, blobs(8), workers=1),
        lambda: tc.mixed_precision(model, blobs(8), budget_bytes=9999, workers=1),
    ):
        with pytest.raises(ValueError, match=message):
            again()


@pytest.mark.parametrize("name", [n for n, (*_, message) in MODELS.items() if message])
def test_what_has_no_float_weights_to_give_back_says_why(name):
    make, _, message = MODELS[name]
    with pytest.raises(ValueError, match=message):
        tc.dequantize(make())


# ------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-np.inf, "infinity")])
@pytest.mark.parametrize(
    "way",
    [
        lambda m: tc.quantize(m, WEIGHTS),
        lambda m: tc.quantize(m, QuantConfig(4, dynamic=True)),
        lambda m: tc.quantize(m, INTEGERS, X),
        lambda m: tc.prepare_qat(m, WEIGHTS),
        lambda m: tc.prepare_qat(m, INTEGERS),
    ],
)
def test_a_bias_that_is_no_number_names_the_layer(way, value, word):
    model = cnn()
    model.conv2.bias.data[1] = value
    with pytest.raises(ValueError, match=rf"conv2 \(Conv2d\): its bias holds {word}"):
        way(model)


@pytest.mark.parametrize("config", [WEIGHTS, INTEGERS])
def test_float16_is_too_narrow_to_train_with_codes(config):
    """Its sums of products of codes overflow at 65,504, and scales of 16-bit codes are 0."""
    with pytest.raises(ValueError, match=r"conv1 \(Conv2d\): training with codes needs float32"):
        tc.prepare_qat(cnn().to("float16"), config)


# ------------------------------------------------------------------------------- learned steps


@pytest.mark.parametrize(
    "config",
    [
        QuantConfig(2, learn_step=True),
        QuantConfig(2, activations=4, learn_step=True),
        WEIGHTS.replace(overrides={"fc1": QuantConfig(2, learn_step=True)}),
    ],
)
def test_steps_are_not_learned_without_training(config):
    with pytest.raises(ValueError, match=r"learn_step=True is for training: tc\.prepare_qat"):
        tc.quantize(cnn(), config, X)


def test_what_training_will_learn_is_measured_without_it():
    """A budget for ``--qat --learn-step``: the choice keeps what it was asked for."""
    model, config = cnn(), QuantConfig(learn_step=True)
    how = {"budget_bytes": 9999, "candidates": (2, 4), "workers": 1}
    found = tc.mixed_precision(model, blobs(8), config=config, **how)
    assert found.config.learn_step
    assert all(own.learn_step for _, own in found.config.overrides)
    assert found.bits == tc.mixed_precision(model, blobs(8), **how).bits
    rows = tc.sensitivity(model, config, blobs(8), workers=1)
    assert [row.name for row in rows] == ["conv1", "conv2", "fc1", "fc2"]
