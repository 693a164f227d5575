"""One bit: sign(w)·mean|w|, and the properties that are left of the others."""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from quantize_cases import SMALLEST_NORMAL, blocks, float_arrays, ordinary
from strict_cupy import install

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize.affine import dequantize
from tinycompress.compress.quantize.binary import binarize
from tinycompress.compress.quantize.blocks import block_shape, spread
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.weights import quantize_weight

block_of_three = blocks((3, 4, 2))
weights = float_arrays(shape=(3, 4, 2))


def on(device, w, *block):
    """(codes, scale) computed on ``device``."""
    codes, scale = binarize(to_device(w, device), *block)
    return to_numpy(codes), to_numpy(scale)


@given(weights, block_of_three)
def test_codes_are_the_signs_and_the_sign_of_zero_is_plus(device, w, block):
    codes, scale = on(device, w, *block)
    np.testing.assert_array_equal(codes, np.where(w < 0, -1, 1))
    assert codes.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == block_shape(w.shape, *block)


@given(weights, block_of_three)
def test_scales_are_positive_and_finite(device, w, block):
    _, scale = on(device, w, *block)
    assert np.isfinite(scale).all()
    assert (scale >= SMALLEST_NORMAL).all()


@given(float_arrays(shape=(1, 12), elements=ordinary), st.floats(0.5, 2))
def test_no_other_scale_has_a_smaller_squared_error(w, factor):
    assume(np.abs(w).max() > 1e-3)
    codes, scale = binarize(w.astype(np.float64))
    error = lambda s: ((w - s * codes) ** 2).sum()  # noqa: E731
    assert error(scale) <= error(scale * factor) * (1 + 1e-12)


@given(weights, block_of_three)
def test_quantizing_twice_changes_nothing(device, w, block):
    codes, scale = on(device, w, *block)
    back = dequantize(codes, scale, np.zeros(scale.shape, np.int8), *block)
    again, scale_again = on(device, back, *block)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(scale_again, scale)
    np.testing.assert_array_equal(
        np.abs(back), np.broadcast_to(spread(scale, w.shape, *block), w.shape)
    )


@given(weights, block_of_three)
def test_minus_w_has_minus_the_codes_and_the_same_scale(w, block):
    assume(np.all(w != 0))
    codes, scale = binarize(w, *block)
    minus_codes, same = binarize(-w, *block)
    np.testing.assert_array_equal(minus_codes, -codes)
    np.testing.assert_array_equal(same, scale)


@given(float_arrays(shape=(3, 8), elements=ordinary), st.integers(1, 9))
def test_each_channel_and_each_group_is_as_if_it_were_alone(w, g):
    _, per_channel = binarize(w, 0)
    np.testing.assert_array_equal(per_channel, [binarize(row)[1][0] for row in w])
    _, per_group = binarize(w, 0, g)
    alone = [[binarize(row[i : i + g])[1][0] for i in range(0, 8, g)] for row in w]
    np.testing.assert_array_equal(per_group, alone)


@given(weights, block_of_three)
def test_devices_agree_to_the_bit(w, block):
    codes, scale = on("cpu", w, *block)
    with install():
        there = on("cuda", w, *block)
    assert (codes.tobytes(), scale.tobytes()) == (there[0].tobytes(), there[1].tobytes())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(device, bad):
    with pytest.raises(ValueError, match="conv1: holds"):
        binarize(to_device(np.float32([1, bad]), device), name="conv1")


def test_one_bit_cannot_keep_a_pruned_weight_at_zero(device):
    w = to_device(np.float32([[1, 0], [0, -2]]), device)
    with pytest.raises(ValueError, match=r"fc1: 2 weights are exactly 0 .* use bits=2"):
        quantize_weight(w, QuantConfig(bits=1), "fc1")


def test_anything_but_the_symmetric_scheme_is_refused_at_one_bit():
    with pytest.raises(ValueError, match=r"bits=1 means sign\(w\)·mean\|w\|"):
        QuantConfig(bits=1, scheme="affine")
