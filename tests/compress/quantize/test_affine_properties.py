"""The properties of affine quantization, for bits 2–16, every granularity and adversarial floats.

The numbers in the names of the sections are those of the list in the project's definitions.
"""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from quantize_cases import (
    LARGEST,
    SMALLEST,
    SMALLEST_NORMAL,
    Case,
    cases,
    float_arrays,
    narrow_targets,
    ordinary,
    targets,
)
from strict_cupy import install

from tinycompress.backend import to_numpy
from tinycompress.compress.quantize import affine
from tinycompress.compress.quantize.blocks import block_shape
from tinycompress.compress.quantize.ranges import IntegerRange

# ------------------------------------------------------------------------------- codes (1, 5)


@given(cases())
def test_codes_lie_in_the_range_and_in_the_smallest_dtype_that_holds_it(device, case):
    codes = case.with_(device=device).codes()
    target = case.target
    assert target.qmin <= codes.min()
    assert codes.max() <= target.qmax
    assert codes.dtype == smallest_dtype(target)


def smallest_dtype(target):
    names = ["int8", "int16"] if target.signed else ["uint8", "uint16"]
    limits = [np.iinfo(name) for name in names]
    return next(i.dtype for i in limits if i.min <= target.qmin and target.qmax <= i.max)


@given(cases(), st.data())
def test_codes_grow_with_the_numbers(device, case, data):
    case = case.with_(axis=None, group=None, device=device)
    x = np.sort(data.draw(float_arrays(shape=20)))
    assert np.all(np.diff(case.codes(x).astype(int)) >= 0)


@given(cases(data=float_arrays(elements=ordinary)))
def test_what_is_out_of_range_gets_the_code_at_that_end(device, case):
    case = case.with_(axis=None, group=None, device=device)
    far = np.float32([np.inf, 1e30, LARGEST])
    assert np.all(case.codes(far) == case.target.qmax)
    assert np.all(case.codes(-far) == case.target.qmin)


# ------------------------------------------------------------------------------- zero (2)


@given(cases())
def test_zero_is_represented_exactly(device, case):
    case = case.with_(device=device)
    for zero in (0.0, -0.0):
        back = case.values(case.codes(np.full_like(case.x, zero)))
        assert np.all(back == 0)
        assert not np.signbit(back).any()


# ------------------------------------------------------------------------------- error (3, 9)


@given(cases())
def test_the_error_is_at_most_half_a_step(device, case):
    case = case.with_(device=device)
    back = case.values(case.codes()).astype(np.float64)
    steps = case.steps().astype(np.float64)
    # Three float32 roundings (scale, quotient, product), each of at most 2⁻²⁴ of at most N steps.
    rounding = 3 * 2.0**-24 * (case.target.qmax - case.target.qmin)
    assert np.all(np.abs(back - case.x) <= steps * (0.5 + rounding))


@given(cases(data=float_arrays(dtype=np.float64)))
def test_in_float64_the_error_is_at_most_half_a_step_at_any_width(device, case):
    case = case.with_(device=device)
    back = case.values(case.codes())
    assert back.dtype == np.float64
    assert np.all(np.abs(back - case.x) <= case.steps() * (0.5 + 1e-10))


@given(float_arrays(), st.booleans(), st.sampled_from(["affine", "symmetric"]))
def test_the_worst_error_does_not_grow_with_the_bits(x, narrow, scheme):
    lo, hi = affine.min_max(x)
    # A range of less than 2¹⁶ of the smallest normal numbers has no scale at some widths.
    assume(max(-lo[0], hi[0]) / 2**16 > SMALLEST_NORMAL)
    targets = [IntegerRange(bits, narrow=narrow) for bits in range(2, 17)]
    scales = [affine.choose_qparams(lo, hi, target, scheme)[0][0] for target in targets]
    assert np.all(np.diff(scales) < 0)


# ------------------------------------------------------------------------------- round trips (4)


@given(cases())
def test_quantizing_twice_changes_nothing(device, case):
    case = case.with_(device=device)
    assume(np.abs(case.x).max() < 1e38)  # beyond, a code may stand for more than any float
    codes = case.codes()
    np.testing.assert_array_equal(case.codes(case.values(codes)), codes)


@given(cases(data=float_arrays(elements=ordinary)))
def test_every_code_survives_a_round_trip(device, case):
    case = case.with_(axis=None, group=None, device=device)
    codes = np.arange(case.target.qmin, case.target.qmax + 1).astype(case.target.dtype)
    np.testing.assert_array_equal(case.codes(case.values(codes)), codes)


# ------------------------------------------------------------------------------- symmetry (6, 7)


@given(cases(target=narrow_targets, scheme="symmetric"))
def test_a_narrow_symmetric_code_of_minus_x_is_minus_the_code_of_x(device, case):
    case = case.with_(device=device)
    np.testing.assert_array_equal(case.codes(-case.x), -case.codes())
    whole = case.with_(axis=None, group=None)
    half = to_numpy(whole.qparams()[0]) / 2
    with np.errstate(over="ignore"):
        ties = half * np.float32([1, 3, 5])
    hard = np.concatenate([ties, np.float32([1e30, LARGEST, np.inf])])  # ties; beyond the range
    np.testing.assert_array_equal(whole.codes(-hard), -whole.codes(hard))


@given(cases(data=float_arrays(elements=ordinary)), st.integers(-60, 60))
def test_scaling_by_a_power_of_two_leaves_the_codes_alone(device, case, k):
    case = case.with_(device=device)
    x = case.x * np.float32(2.0**k)
    assume(np.array_equal(x * np.float32(2.0**-k), case.x))
    steps = case.steps() * np.float32(2.0**k)
    assume(not np.any(steps < SMALLEST_NORMAL) and np.all(case.steps() != 1))
    np.testing.assert_array_equal(case.with_(x=x).codes(), case.codes())


# ------------------------------------------------------------------------------- granularity (8)


@given(cases())
def test_each_channel_is_quantized_as_if_it_were_alone(device, case):
    case = case.with_(axis=0, group=None, device=device)
    alone = [case.with_(x=part[None], axis=None) for part in case.x]
    np.testing.assert_array_equal(case.codes(), np.concatenate([a.codes() for a in alone]))
    for i, together in enumerate(case.qparams()):
        one_by_one = np.concatenate([to_numpy(a.qparams()[i]) for a in alone])
        np.testing.assert_array_equal(to_numpy(together), one_by_one)


@given(cases())
def test_an_axis_may_stand_anywhere(device, case):
    for axis in range(case.x.ndim):
        there = case.with_(axis=axis, device=device)
        first = there.with_(x=np.moveaxis(case.x, axis, 0), axis=0)
        np.testing.assert_array_equal(np.moveaxis(there.codes(), axis, 0), first.codes())


@pytest.mark.parametrize("group", [None, 1, 4, 7])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_an_axis_may_stand_anywhere_where_all_numbers_differ(device, axis, group):
    """Hypothesis likes nearly constant arrays, in which wrong rows have the right range."""
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    there = Case(x, IntegerRange(8), "affine", axis, group, device)
    first = there.with_(x=np.moveaxis(x, axis, 0), axis=0)
    np.testing.assert_array_equal(np.moveaxis(there.codes(), axis, 0), first.codes())


@given(cases())
def test_a_group_as_long_as_the_channel_is_the_channel(device, case):
    whole = case.with_(axis=0, group=None, device=device)
    length = case.x.size // case.x.shape[0]
    group = whole.with_(group=length)
    np.testing.assert_array_equal(group.codes(), whole.codes())
    for a, b in zip(group.qparams(), whole.qparams(), strict=True):
        np.testing.assert_array_equal(to_numpy(a)[:, 0], to_numpy(b))


@given(cases(), st.integers(1, 7))
def test_each_group_is_quantized_as_if_it_were_alone_and_the_last_may_be_shorter(device, case, g):
    case = case.with_(axis=0, group=g, device=device)
    rows = case.x.reshape(case.x.shape[0], -1)
    expected = np.concatenate(
        [
            np.concatenate(
                [
                    case.with_(x=row[i : i + g], axis=None, group=None).codes()
                    for i in range(0, row.size, g)
                ]
            )
            for row in rows
        ]
    )
    np.testing.assert_array_equal(case.codes().ravel(), expected)
    assert case.qparams()[0].shape == block_shape(case.x.shape, 0, g)


@given(cases(), st.randoms(use_true_random=False))
def test_permuting_channels_permutes_codes(device, case, random):
    case = case.with_(axis=0, device=device)
    order = random.sample(range(len(case.x)), len(case.x))
    np.testing.assert_array_equal(case.with_(x=case.x[order]).codes(), case.codes()[order])


# ------------------------------------------------------------------------------- scales (10)


@given(cases())
def test_scales_are_positive_and_everything_is_finite(device, case):
    case = case.with_(device=device)
    scale, zero_point = map(to_numpy, case.qparams())
    assert np.isfinite(scale).all()
    assert (scale >= SMALLEST_NORMAL).all()
    assert case.target.qmin <= zero_point.min()
    assert zero_point.max() <= case.target.qmax
    assert np.isfinite(case.values(case.codes())).all()


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, SMALLEST, LARGEST, -LARGEST])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("count", [1, 4])
def test_constant_data_come_back(device, value, scheme, count):
    case = Case(np.full(count, value, np.float32), IntegerRange(8), scheme, device=device)
    back = case.values(case.codes())
    lost = abs(value) if abs(value) < SMALLEST_NORMAL else abs(value) * 0.005
    np.testing.assert_allclose(back, value, rtol=0, atol=lost)


def test_a_range_without_a_scale_has_scale_1_and_zero_point_0():
    for value in (0.0, SMALLEST, -SMALLEST):
        for target, zero in ((IntegerRange(8, signed=False), 0), (IntegerRange(4), 0)):
            scale, zero_point = affine.choose_qparams(value, value, target)
            assert (scale[0], zero_point[0]) == (1.0, zero)


@given(targets())
def test_the_zero_point_is_where_zero_falls(target):
    n = target.qmax - target.qmin
    for below in {0, 1, n // 2, n - 1, n}:
        _, zero_point = affine.choose_qparams(-float(below), float(n - below), target)
        assert int(zero_point[0]) == target.qmin + below


# ------------------------------------------------------------------------------- agreement (12)


@given(cases())
def test_fake_quantize_is_the_round_trip_to_the_bit(device, case):
    case = case.with_(device=device)
    fake = affine.fake_quantize(case.put(case.x), *case.qparams(), case.target, *case.block)
    back = case.values(case.codes())
    assert to_numpy(fake).tobytes() == back.tobytes()
    assert fake.dtype == back.dtype


@given(cases())
def test_devices_agree_to_the_bit(case):
    with install():
        there = case.with_(device="cuda")
        for a, b in zip(case.qparams(), there.qparams(), strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == to_numpy(b).tobytes()
        codes = case.codes()
        assert codes.tobytes() == there.codes().tobytes()
        assert case.values(codes).tobytes() == there.values(codes).tobytes()


@given(cases())
def test_a_number_for_the_scale_means_the_same_as_an_array(case):
    case = case.with_(axis=None, group=None)
    scale, zero_point = case.qparams()
    codes = affine.quantize(case.x, float(scale[0]), int(zero_point[0]), case.target)
    np.testing.assert_array_equal(codes, case.codes())
    back = affine.dequantize(codes, float(scale[0]), int(zero_point[0]))
    assert back.tobytes() == case.values(codes).tobytes()
