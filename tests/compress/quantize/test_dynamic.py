"""Dynamic quantization: exact sums, and an answer for each image that is its own."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import float_arrays
from references import conv2d_reference
from strict_cupy import install

import tinycompress as tc
from tinycompress import models, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import QuantConfig, affine, quantization_report, quantize
from tinycompress.compress.quantize.dynamic import DynamicConv2d, DynamicLinear, steps_of

rng = np.random.default_rng(0)
CONFIGS = [
    QuantConfig(dynamic=True),
    QuantConfig(4, granularity="per_tensor", activations=3, dynamic=True),
    QuantConfig(1, activations=16, dynamic=True),
    QuantConfig(2, activations=5, activation_scheme="symmetric", dynamic=True),
    QuantConfig(11, activations=16, dynamic=True),
]
LAYERS = {
    "linear": (lambda: nn.Linear(7, 3), (7,)),
    "no bias": (lambda: nn.Linear(7, 3, bias=False), (7,)),
    "rows": (lambda: nn.Linear(7, 3), (4, 7)),
    "conv": (lambda: nn.Conv2d(2, 4, 3, padding=1, stride=2), (2, 7, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, (3, 1), groups=2, bias=False), (4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, dilation=2, groups=4), (4, 7, 7)),
}


def dynamic(layer, config):
    return (DynamicLinear if isinstance(layer, nn.Linear) else DynamicConv2d).from_float(
        layer, config, "fc"
    )


def whole_sums(layer, steps):
    """The same in int64, slowly."""
    codes = layer.weight_codes.astype(np.int64)
    if isinstance(layer, DynamicLinear):
        return steps @ codes.T
    zeros = np.zeros(len(codes), np.int64)
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return conv2d_reference(steps, codes, zeros, *geometry)


def expected(layer, x):
    """For each example alone."""
    q = layer.quantization
    outputs = []
    for example in x:
        lo, hi = affine.min_max(example)
        scale, zero = affine.choose_qparams(lo, hi, q.activation_target, q.activation_scheme)
        codes = affine.quantize(example, scale, zero, q.activation_target).astype(np.int64)
        sums = whole_sums(layer, (codes - int(zero[0]))[None])[0].astype(np.float64)
        row = (-1,) if isinstance(layer, DynamicLinear) else (-1, 1, 1)
        y = sums * layer.weight_scale.astype(np.float64).reshape(row) * np.float64(scale[0])
        if layer.bias is not None:
            y += layer.bias.data.reshape(row)
        outputs.append(y.astype("f"))
    return np.stack(outputs)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_each_example_is_computed_exactly_as_in_int64(device, name, config):
    make, shape = LAYERS[name]
    layer = dynamic(make(), config)
    x = rng.normal(size=(3, *shape)).astype("f") * np.float32([1, 100, 0]).reshape(
        -1, *(1,) * len(shape)
    )
    right = expected(layer, x)
    found = layer.to(device)(to_device(x, device))
    np.testing.assert_array_equal(to_numpy(found.data), right)
    assert found.dtype == np.float32


@given(float_arrays(shape=(3, 7)), st.sampled_from(CONFIGS))
def test_any_numbers_and_every_device(x, config):
    layer = dynamic(nn.Linear(7, 3), config)
    with np.errstate(over="ignore"):
        here = layer(x).data
        np.testing.assert_array_equal(here, expected(layer, x))
        with install():
            there = layer.to("cuda")(to_device(x, "cuda"))
            assert to_numpy(there.data).tobytes() == here.tobytes()


def test_an_image_s_answer_does_not_depend_on_its_neighbours():
    """With one range for the batch, an image beside a bright one loses its details."""
    model = quantize(models.TinyCNN(), QuantConfig(4, activations=4, dynamic=True))
    x = rng.random((6, 1, 28, 28)).astype("f")
    alone = np.concatenate([model(x[i : i + 1]).data for i in range(6)])
    np.testing.assert_array_equal(model(x).data, alone)
    bright = np.concatenate([x, 100 * x])
    np.testing.assert_array_equal(model(bright).data[:6], alone)
    target = QuantConfig(activations=4).activation_target
    wrong = [
        affine.quantize(x, *affine.choose_qparams(*affine.min_max(b), target), target)
        for b in (x, bright)
    ]
    assert not np.array_equal(*wrong)


def test_the_whole_model_is_near_the_float_one():
    model, x = models.TinyCNN(), rng.random((20, 1, 28, 28)).astype("f")
    q = quantize(model, QuantConfig(dynamic=True))
    kinds = {n: type(q.get_submodule(n)) for n in ("conv1", "conv2", "fc")}
    assert kinds == {"conv1": DynamicConv2d, "conv2": DynamicConv2d, "fc": DynamicLinear}
    right = model(x).data
    assert np.abs(q(x).data - right).max() < 0.03 * np.abs(right).max()


def test_batch_norm_is_folded_first_unless_told_otherwise():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    assert isinstance(quantize(model, QuantConfig(dynamic=True))[1], nn.Identity)
    assert isinstance(quantize(model, QuantConfig(dynamic=True), fold=False)[1], nn.BatchNorm2d)


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_it_is_stored_and_comes_back(tmp_path, config):
    model, x = models.TinyCNN(), rng.random((4, 1, 28, 28)).astype("f")
    q = quantize(model, config)
    tc.save(q, tmp_path / "q.tcz")
    again = tc.load(tmp_path / "q.tcz")
    np.testing.assert_array_equal(again(x).data, q(x).data)
    assert repr(again) == repr(q)
    layer = q.conv1
    twin = type(layer)(**json.loads(json.dumps(layer.config())))
    assert repr(twin) == repr(layer)


def test_new_codes_are_noticed():
    layer = dynamic(nn.Linear(7, 3), CONFIGS[0])
    x = rng.normal(size=(2, 7)).astype("f")
    before = layer(x).data
    layer.weight_codes[0] = 0
    np.testing.assert_array_equal(layer(x).data, expected(layer, x))
    assert not np.array_equal(layer(x).data, before)
    assert layer.copy()._kept is None


def test_overflow_is_refused_by_name_before_anything_runs():
    config = QuantConfig(16, activations=16, dynamic=True)
    with pytest.raises(ValueError, match=r"fc: the sum of 7 products .* beyond"):
        dynamic(nn.Linear(7, 3), config)
    model = nn.Sequential(nn.Linear(7, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="this model cannot be quantized") as error:
        quantize(model, config)
    assert "0 (Linear): the sum" in str(error.value)
    assert "2 (Linear): the sum" in str(error.value)


def test_the_smallest_and_largest_step():
    assert steps_of(QuantConfig(activations=4, dynamic=True)) == (-15, 15)
    symmetric = QuantConfig(activations=4, activation_scheme="symmetric", dynamic=True)
    assert steps_of(symmetric) == (-7, 7)


def test_what_cannot_be_is_named():
    model = quantize(nn.Sequential(nn.Linear(3, 2)), QuantConfig(dynamic=True))
    with pytest.raises(ValueError, match=r"the input of .*: holds NaN"):
        model(np.float32([[np.nan, 1, 2]]))
    with pytest.raises(ValueError, match=r"linear: input of shape \(1, 2\) must end in"):
        model(np.ones((1, 2), "f"))
    conv = quantize(nn.Sequential(nn.Conv2d(2, 2, 1)), QuantConfig(dynamic=True))
    with pytest.raises(ValueError, match=r"conv2d: input must be \(N, 2, H, W\)"):
        conv(np.ones((1, 3, 4, 4), "f"))
    with pytest.raises(ValueError, match="DynamicLinear: quantization must have dynamic=True"):
        DynamicLinear(3, 2)


def test_it_reports_and_goes_back_to_floats():
    model = models.TinyCNN()
    q = quantize(model, QuantConfig(4, dynamic=True))
    assert [entry.bits for entry in quantization_report(model, q)] == [4, 4, 4]
    back = tc.dequantize(q)
    np.testing.assert_array_equal(back.conv1.weight.data, q.conv1.weight.data)
