"""Each trap of affine quantization: the wrong version falls into it, ours does not.

Wrong versions are written out here, so that a test shows what it would catch.
"""

import numpy as np
import pytest

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import affine
from tinycompress.compress.quantize.ranges import IntegerRange

UINT8, INT8 = IntegerRange(8, signed=False), IntegerRange(8)
NARROW = IntegerRange(8, narrow=True)
f32 = np.float32


def one(x, scale, zero_point=0, target=UINT8):
    return int(affine.quantize(np.atleast_1d(x), scale, zero_point, target)[0])


def test_the_reciprocal_gives_another_code_than_the_division(device):
    scale, x = f32(0.00214854861), f32(0.273939937)
    assert np.rint(x * (f32(1) / scale)) == 128
    array, scale_array = (to_device(np.array([v]), device) for v in (x, scale))
    assert to_numpy(affine.quantize(array, scale_array, 0, UINT8)) == [127]
    fake = affine.fake_quantize(array, scale_array, 0, UINT8)
    assert to_numpy(fake)[0] == scale * f32(127)


def test_casting_before_clipping_sends_large_numbers_anywhere(device):
    x = np.float32([1e10, np.inf, -np.inf])
    with np.errstate(invalid="ignore"):
        wrong = np.clip(np.rint(x).astype(np.int32), INT8.qmin, INT8.qmax)
    assert list(wrong[:2]) != [127, 127]
    right = affine.quantize(to_device(x, device), 1.0, 0, INT8)
    assert list(to_numpy(right)) == [127, 127, -128]


def test_adding_the_zero_point_before_rounding_moves_ties():
    x = f32([0.5, 1.5, 2.5])
    wrong = np.rint(x + 1)
    assert list(wrong) == [2, 2, 4]
    assert [one(v, 1.0, 1) for v in x] == [1, 3, 3]  # rint to even, 0 2 2, then + 1


def test_rounding_is_half_to_even():
    half_up = np.floor(f32([0.5, 2.5]) + 0.5)
    assert list(half_up) == [1, 3]
    assert [one(v, 1.0) for v in (f32(0.5), f32(2.5))] == [0, 2]


def test_the_difference_of_the_ends_overflows_and_the_difference_of_quotients_does_not():
    lo, hi = -1.5e308, 1.5e308
    with np.errstate(over="ignore"):
        assert np.isinf((np.float64(hi) - np.float64(lo)) / 255)
        assert np.isinf((f32(3e38) - f32(-3e38)) / 255)
    scale, zero_point = affine.choose_qparams(lo, hi, UINT8, dtype=np.float64)
    assert scale[0] == pytest.approx(1.5e308 / 127.5)
    assert zero_point[0] == 128
    scale, _ = affine.choose_qparams(-3e38, 3e38, UINT8)
    assert scale[0] == pytest.approx(2 * 3e38 / 255)


def test_float16_is_widened_before_the_division(device):
    x = np.float16([1 / 3])
    assert np.rint(x / np.float16(1e-4)) == 3332  # up there float16 holds even numbers only
    codes = affine.quantize(to_device(x, device), 1e-4, 0, IntegerRange(16))
    assert to_numpy(codes) == [3333]
    codes = affine.quantize(to_device(0 * x, device), 1.0, 2049, IntegerRange(16, signed=False))
    assert to_numpy(codes) == [2049]  # nor does float16 hold that zero point


def test_the_zero_point_comes_from_the_scale_before_it_is_rounded_to_float32(device):
    lo, hi = to_device(np.array([-1.0]), device), to_device(np.array([1.0]), device)
    scale, zero_point = affine.choose_qparams(lo, hi, UINT8)
    assert np.rint(1 / np.float64(to_numpy(scale)[0])) == 127
    assert to_numpy(zero_point) == [128]  # 127.5, to even


def test_a_range_that_is_not_widened_has_no_code_for_zero():
    lo, hi = 0.1, 0.9
    scale = (hi - lo) / 255
    codes = np.clip(np.rint(0 / scale) + np.rint(-lo / scale), 0, 255)
    assert lo + codes * scale == pytest.approx(0.1)  # zero came back as 0.1
    scale, zero_point = affine.choose_qparams(lo, hi, UINT8)
    back = affine.dequantize(affine.quantize(np.zeros(1, f32), scale, zero_point, UINT8), scale, 0)
    assert back == [0.0]


def test_codes_are_widened_before_the_zero_point_is_taken_off(device):
    codes = np.uint8([0, 255])
    wrong = codes - np.uint8(200)
    assert list(wrong) == [56, 55]
    zero_point = to_device(np.uint8([200]), device)
    back = affine.dequantize(to_device(codes, device), 1.0, zero_point)
    assert list(to_numpy(back)) == [-200.0, 55.0]


def test_the_full_signed_range_is_not_symmetric():
    """Which is why weights take the narrow one."""
    x = f32(-200.0)
    assert one(x, 1.0, 0, INT8) == -128 != -one(-x, 1.0, 0, INT8)
    assert one(x, 1.0, 0, NARROW) == -127 == -one(-x, 1.0, 0, NARROW)


def test_a_code_past_the_largest_float_saturates(device):
    largest = np.finfo(f32).max
    scale, zero_point = affine.choose_qparams(-largest, largest, IntegerRange(2, signed=False))
    with np.errstate(over="ignore"):
        assert np.isinf((f32(0) - zero_point.astype(f32)) * scale)
    scale, zero_point = to_device(scale, device), to_device(zero_point, device)
    codes = to_device(np.uint8([0]), device)
    assert to_numpy(affine.dequantize(codes, scale, zero_point)) == [-largest]


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
@pytest.mark.parametrize(("axis", "group"), [(None, None), (0, None), (0, 2)])
def test_data_that_are_not_finite_have_no_range(device, bad, word, axis, group):
    x = np.ones((2, 3), f32)
    x[1, 2] = bad
    with pytest.raises(ValueError, match=f"conv1: holds {word}"):
        affine.min_max(to_device(x, device), axis, group, name="conv1")


def test_nan_has_no_code(device):
    x = to_device(f32([1, np.nan]), device)
    with pytest.raises(ValueError, match="fc2: holds NaN"):
        affine.quantize(x, 1.0, 0, INT8, name="fc2")


@pytest.mark.parametrize(
    ("lo", "hi"),
    [(np.nan, 1), (0, np.nan), (-np.inf, 1), (0, np.inf), (-np.inf, np.inf), (2, 1), (0, 1e300)],
)
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_a_range_that_cannot_be(device, lo, hi, scheme):
    lo, hi = (to_device(np.array([0.0, v]), device) for v in (lo, hi))
    with pytest.raises(ValueError, match="conv1: the range must be finite"):
        affine.choose_qparams(lo, hi, INT8, scheme, name="conv1")


def test_data_that_are_no_floats(device):
    for x in (to_device(np.ones(3, np.int64), device), [1.0, 2.0], 3.0):
        with pytest.raises(TypeError, match="w: only an array of floats"):
            affine.min_max(x, name="w")
    with pytest.raises(ValueError, match="w: is empty"):
        affine.min_max(to_device(np.empty((0, 3), f32), device), name="w")


def test_arguments_are_named():
    x = np.ones((4, 6), f32)
    with pytest.raises(ValueError, match="scheme must be one of"):
        affine.choose_qparams(0.0, 1.0, INT8, "log")
    with pytest.raises(ValueError, match="symmetric scheme needs a signed range"):
        affine.choose_qparams(0.0, 1.0, UINT8, "symmetric")
    with pytest.raises(ValueError, match=r"must have shape \(4,\), got \(6,\)"):
        affine.quantize(x, np.ones(6, f32), 0, INT8, axis=0)
    with pytest.raises(ValueError, match=r"must have shape \(4, 2\), got \(4, 3\)"):
        affine.quantize(x, np.ones((4, 3), f32), np.zeros((4, 3), np.int8), INT8, axis=0, group=5)
    with pytest.raises(ValueError, match="axis 2 is out of range"):
        affine.min_max(x, axis=2)
    with pytest.raises(ValueError, match="give axis as well"):
        affine.min_max(x, group=2)
    with pytest.raises(ValueError, match="group must be a whole number ≥ 1, got 0"):
        affine.min_max(x, axis=0, group=0)


@pytest.mark.parametrize("bits", [0, 17, -1, 2.0, True, "8"])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="bits must be a whole number from 1 to 16"):
        IntegerRange(bits)


def test_one_bit_has_no_integer_range():
    for signed, narrow in ((True, True), (True, False), (False, False)):
        with pytest.raises(ValueError, match="1-bit weights are sign"):
            IntegerRange(1, signed, narrow)
    with pytest.raises(ValueError, match="only a signed range can be narrow"):
        IntegerRange(8, signed=False, narrow=True)


@pytest.mark.parametrize("bits", range(2, 17))
def test_integer_ranges(bits):
    half = 2 ** (bits - 1)
    for arguments, expected in (
        ((False, False), (0, 2 * half - 1)),
        ((True, False), (-half, half - 1)),
        ((True, True), (1 - half, half - 1)),
    ):
        target = IntegerRange(bits, *arguments)
        assert (target.qmin, target.qmax) == expected
    assert IntegerRange(2, narrow=True).qmin == -1  # ternary
