"""A bias in whole numbers: exact to half a unit, and never out of int32."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress import nn
from tinycompress.backend import to_device
from tinycompress.compress.quantize import IntegerRange, QuantConfig
from tinycompress.compress.quantize.integer import IntegerLinear
from tinycompress.compress.quantize.integer.bias import whole_bias
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.weights import QuantizedWeight

U8 = IntegerRange(8, signed=False)
scales = st.floats(2.0**-60, 2.0**10, width=32)


@given(
    st.lists(st.tuples(scales, st.floats(-100, 100, width=32)), min_size=1), st.floats(2**-20, 8)
)
def test_it_fits_and_is_right_to_half_a_unit(channels, x_scale):
    scale, bias = (np.array(column, np.float32) for column in zip(*channels, strict=True))
    codes = np.full((len(scale), 3), 7, np.int8)
    whole = whole_bias(codes, scale, bias, x_scale)
    unit = x_scale * whole.scale.astype(np.float64)
    assert np.abs(whole.bias).max() < 2**31 - 2**29
    assert np.all(np.abs(whole.bias * unit - bias) <= unit / 2 * (1 + 1e-9))
    wide = np.abs(bias.astype(np.float64)) / (x_scale * scale.astype(np.float64)) > 2**30
    assert np.all((whole.scale > scale) == wide)
    assert len(whole.notes) == wide.sum()
    np.testing.assert_array_equal(whole.codes[~wide], codes[~wide])
    # what the weights stand for moves by half of the wider step at most
    moved = np.abs(whole.codes * whole.scale[:, None] - codes * scale[:, None].astype(np.float64))
    assert np.all(moved <= whole.scale[:, None] / 2 * (1 + 1e-6))


def test_without_a_bias_nothing_changes():
    codes, scale = np.ones((2, 3), np.int8), np.array([0.5], np.float32)
    whole = whole_bias(codes, scale, None, 0.1)
    assert whole.bias is None
    assert whole.codes is codes
    assert whole.scale.tolist() == [0.5, 0.5]
    assert whole.notes == ()


def test_a_blank_channel_keeps_its_bias():
    """At scale 1 a bias of 0.013 would be one step of 0.02, or none."""
    codes = np.array([[0, 0], [3, -1]], np.int8)
    bias = np.array([0.013, 0.013], np.float32)
    whole = whole_bias(codes, np.array([1, 0.001], np.float32), bias, 0.02)
    values = whole.bias * whole.scale * 0.02
    assert values[0] == pytest.approx(0.013, rel=1e-6)
    assert whole.scale[1] == np.float32(0.001)
    assert whole.notes == ()


def dead_channel():
    """Weights of 1e-12 beside a bias of 0.7: 2.7e10 units."""
    layer = nn.Linear(3, 2)
    layer.bias.data[...] = [0.25, 0.7]
    codes = np.array([[1, -2, 3], [127, -127, 5]], np.int8)
    weight = QuantizedWeight(codes, np.array([0.1, 1e-12], np.float32), np.zeros(2, np.int8))
    return layer, weight


def test_a_layer_says_that_it_widened_a_scale(device):
    layer, weight = dead_channel()
    integer = IntegerLinear.from_codes(layer, weight, QuantConfig()).to(device)
    assert integer.notes == ()
    x = QTensor(to_device(np.array([[10, 20, 30]], np.uint8), device), 0.02, 0, U8)
    y = integer(x).numpy()
    assert y[0, 0] == pytest.approx((10 - 40 + 90) * 0.02 * 0.1 + 0.25, abs=0.001)
    assert y[0, 1] == pytest.approx(0.7, rel=1e-6)
    assert integer.notes == (
        "output channel 1: its bias of 0.7 does not fit into int32 at the weights' scale of 1e-12, "
        "which was widened to 3.26e-08",
    )
    assert integer.weight_scale[1] == np.float32(1e-12)  # what is stored stays


def test_a_bias_that_leaves_no_room_is_refused():
    layer = nn.Linear(66_000, 1)
    layer.bias.data[...] = 1.0
    codes = np.full((1, 66_000), 127, np.int8)
    weight = QuantizedWeight(codes, np.array([1e-9], np.float32), np.zeros(1, np.int8))
    integer = IntegerLinear.from_codes(layer, weight, QuantConfig())
    integer.arithmetic(Grid(200.0, 0, U8))
    with pytest.raises(ValueError, match=r"^fc: .* with a bias of 1,000,000,\d+, can reach"):
        integer.arithmetic(Grid(1.0, 0, U8), "fc")
