"""Weights as codes, for every config: 1–16 bits, every scheme, granularity and observer.

``test_affine_properties.py`` says the same of the formulas; here it is what ``tc.quantize`` does.
"""

import numpy as np
from hypothesis import assume, given, strategies as st
from quantize_cases import SMALLEST_NORMAL, float_arrays, ordinary

from tinycompress.compress.quantize import QuantConfig
from tinycompress.compress.quantize.affine import choose_qparams
from tinycompress.compress.quantize.blocks import block_shape, spread
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.compress.quantize.weights import dequantize_weight, quantize_weight

shapes = st.sampled_from([(1, 1), (3, 10), (4, 2, 3, 3)])
weights = shapes.flatmap(lambda shape: float_arrays(shape=shape))
ordinary_weights = shapes.flatmap(lambda shape: float_arrays(shape=shape, elements=ordinary))


@st.composite
def configs(draw, min_bits=1):
    scheme = draw(st.sampled_from(["symmetric", "affine"]))
    bits = draw(st.integers(max(min_bits, 1 if scheme == "symmetric" else 2), 16))
    blocks = [("per_tensor", None), ("per_channel", None), ("per_group", 7), ("per_group", 1)]
    observer = draw(st.sampled_from(["minmax", "minmax", "mse"]))
    return QuantConfig(bits, scheme, *draw(st.sampled_from(blocks)), weight_observer=observer)


def fits(w, config):
    """At one bit, zeros are refused."""
    return np.where(w == 0, np.float32(1), w) if config.bits == 1 else w


def back(w, config):
    return dequantize_weight(quantize_weight(w, config), config)


@given(weights, configs())
def test_codes_lie_in_the_range_in_the_smallest_dtype_and_blocks_have_their_shape(w, config):
    codes, scale, zero_point = quantize_weight(fits(w, config), config)
    if config.bits == 1:
        assert set(np.unique(codes)) <= {-1, 1}
        assert codes.dtype == np.int8
    else:
        assert config.target.qmin <= codes.min()
        assert codes.max() <= config.target.qmax
        assert codes.dtype == zero_point.dtype == config.target.dtype
    assert scale.shape == zero_point.shape == block_shape(w.shape, config.axis, config.group_size)
    assert np.isfinite(scale).all()
    assert (scale >= SMALLEST_NORMAL).all()


@given(weights, configs(min_bits=2))
def test_zeros_stay_exactly_zero(w, config):
    w = w.copy()
    w[..., ::2] = 0
    found = back(w, config)
    assert np.all(found[w == 0] == 0)
    assert not np.signbit(found[w == 0]).any()


@given(weights, configs(min_bits=2))
def test_the_error_is_half_a_step_unless_it_was_clipped(w, config):
    codes, scale, _ = quantize_weight(w, config)
    steps = spread(scale, w.shape, config.axis, config.group_size).astype(np.float64)
    error = np.abs(back(w, config).astype(np.float64) - w)
    at_an_end = (codes == config.target.qmin) | (codes == config.target.qmax)
    rounding = 3 * 2.0**-24 * (config.target.qmax - config.target.qmin)
    clipped = at_an_end & (config.weight_observer == "mse")
    assert np.all(clipped | (error <= steps * (0.5 + rounding)))


@given(weights, configs())
def test_minus_the_weights_have_minus_the_codes(w, config):
    assume(config.scheme == "symmetric")
    w = fits(w, config)
    np.testing.assert_array_equal(
        quantize_weight(-w, config).codes, -quantize_weight(w, config).codes
    )


@given(ordinary_weights, configs(), st.integers(-40, 40))
def test_a_power_of_two_leaves_the_codes_alone(w, config, k):
    w = fits(w, config)
    scaled = w * np.float32(2.0**k)
    assume(np.array_equal(scaled * np.float32(2.0**-k), w))
    before, after = quantize_weight(w, config), quantize_weight(scaled, config)
    assume(not np.any(before.scale == 1) and not np.any(after.scale == 1))
    assume(np.all(after.scale > SMALLEST_NORMAL))
    np.testing.assert_array_equal(after.codes, before.codes)
    np.testing.assert_array_equal(after.scale, before.scale * np.float32(2.0**k))


@given(weights, configs(), st.randoms(use_true_random=False))
def test_permuting_channels_permutes_codes(w, config, random):
    assume(config.axis == 0)
    w = fits(w, config)
    order = random.sample(range(len(w)), len(w))
    for a, b in zip(quantize_weight(w[order], config), quantize_weight(w, config), strict=True):
        np.testing.assert_array_equal(a, b[order])


@given(weights, configs(min_bits=2))
def test_quantizing_twice_changes_nothing_where_nothing_was_clipped(w, config):
    assume(config.weight_observer == "minmax")
    assume(config.scheme == "symmetric")
    assume(np.abs(w).max() < 1e38)
    first = quantize_weight(w, config)
    again = quantize_weight(dequantize_weight(first, config), config)
    np.testing.assert_array_equal(again.codes, first.codes)


@given(ordinary_weights, configs())
def test_the_weights_themselves_stay(w, config):
    w = fits(w, config)
    before = w.copy()
    quantize_weight(w, config)
    np.testing.assert_array_equal(w, before)


def test_two_bits_are_ternary_and_one_is_a_sign():
    w = np.linspace(-1, 1, 8, dtype="f")[None]
    assert set(np.unique(quantize_weight(w, QuantConfig(2)).codes)) == {-1, 0, 1}
    assert set(np.unique(quantize_weight(w, QuantConfig(1)).codes)) == {-1, 1}


def test_two_bits_stay_ternary_where_the_range_is_cut():
    """An outlier beyond the best range gets −1; −2 would fit into two bits, too."""
    w = np.float32([[-4.0, *np.linspace(-1, 1, 40)]])
    codes, scale, _ = quantize_weight(w, QuantConfig(2, weight_observer="mse"))
    assert scale[0] < 2
    assert set(np.unique(codes)) == {-1, 0, 1}


def test_a_scale_below_the_smallest_normal_number_would_lose_everything():
    """The trap: the scale that the formula gives is 0 in float32."""
    x = np.float32([1e-44, 3e-44])
    target = IntegerRange(8, signed=False)
    wrong = np.float32(float(x.max()) / 255)
    assert wrong == 0  # and x / 0 is infinity
    scale, zero_point = choose_qparams(0.0, float(x.max()), target)
    assert scale[0] == 1
    assert zero_point[0] == 0


def test_the_sign_of_a_large_code_needs_the_narrow_range():
    """Per tensor or channel alike: the lowest of the full range has no opposite."""
    w = np.float32([[-1.0, 1.0]])
    codes, scale, _ = quantize_weight(w, QuantConfig(8))
    np.testing.assert_array_equal(codes, [[-127, 127]])
    assert scale[0] == np.float32(1 / 127)
