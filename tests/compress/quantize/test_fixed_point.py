"""Fixed point: one rounding, exact for every int32, in floats and in integers alike."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import targets

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import IntegerRange
from tinycompress.compress.quantize.fixed_point import (
    EXACT_BITS,
    Requantization,
    common_multipliers,
    multiplier,
    requantize,
    rounded_sum,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
REALS = st.floats(2.0**-40, 2.0**34) | st.floats(2.0**-14, 8.0) | st.floats(5e-324, 1e300)
hard_int32 = st.sampled_from([0, 1, -1, 2**24, -(2**24) - 1, 2**31 - 1, -(2**31)]) | INT32


def floor_half_up(number: Fraction) -> int:
    return (number + Fraction(1, 2)).__floor__()


def expected_code(acc, m, shift, zero_point, target, low=None):
    """In exact fractions."""
    code = floor_half_up(Fraction(acc * m, 2**shift)) + zero_point
    return min(max(code, target.qmin if low is None else low), target.qmax)


@given(st.floats(2.0**-32, 2.0**29))
def test_a_multiplier_has_31_bits_and_is_off_by_half_of_the_last(real):
    m, shift = multiplier(real)
    assert 2**30 <= m < 2**31
    assert 1 <= shift <= 63
    assert abs(Fraction(m, 2**shift) - Fraction(real)) <= Fraction(1, 2 ** (shift + 1))


@given(st.lists(REALS, min_size=1, max_size=5))
def test_many_multipliers_are_each_as_if_alone(reals):
    m, shift = multiplier(np.array(reals))
    assert m.dtype == shift.dtype == np.int64
    assert list(zip(m.tolist(), shift.tolist(), strict=True)) == [multiplier(r) for r in reals]


@pytest.mark.parametrize("real", [1.0, 0.5, 2.0, 2.0**-20, 3 / 1024])
def test_numbers_of_few_bits_are_exact(real):
    m, shift = multiplier(real)
    assert Fraction(m, 2**shift) == Fraction(real)


def test_the_mantissa_carries():
    m, shift = multiplier(1 - 2.0**-40)
    assert (m, shift) == (2**30, 30)


@pytest.mark.parametrize("real", [0.0, -1.0, np.inf, np.nan, np.array([1.0, 0.0])])
def test_what_is_no_multiplier_is_refused(real):
    with pytest.raises(ValueError, match="above 0 and finite"):
        multiplier(real)


@given(st.data(), targets(), REALS)
def test_one_rounding_for_every_int32(data, target, real):
    """Also where the exact code is decided by the multiplier itself, far out of 31 bits."""
    zero_point = data.draw(st.integers(target.qmin, target.qmax))
    acc = data.draw(st.lists(hard_int32, min_size=1, max_size=8))
    m, shift = multiplier(real)
    codes = requantize(np.array(acc, np.int32), m, shift, zero_point, target)
    assert codes.dtype == target.dtype
    assert codes.tolist() == [expected_code(a, m, shift, zero_point, target) for a in acc]
    for a, code in zip(acc, codes.tolist(), strict=True):  # beyond 31 bits nothing changes
        if not 2.0**-33 <= real <= 2.0**30:
            exact = floor_half_up(a * Fraction(real)) + zero_point
            assert code == min(max(exact, target.qmin), target.qmax)


@given(st.integers(2, 16), st.integers(1, 63), st.integers(2**30, 2**31 - 1), st.integers(-3, 3))
def test_ties_round_up_in_floats_and_in_integers(bits, shift, m, off):
    """The accumulators next to a half, for shifts on both sides of the limit of float64."""
    target = IntegerRange(bits)
    half = Fraction(2 ** (shift - 1), m)  # m·half·2⁻ˢʰⁱᶠᵗ = ½
    acc = half.__floor__() + off
    if abs(acc) < 2**31:
        got = requantize(np.array([acc, -acc]), m, shift, 0, target)
        assert got.tolist() == [expected_code(a, m, shift, 0, target) for a in (acc, -acc)]


def test_a_tie_goes_up_and_not_to_even():
    m, shift = multiplier(0.5)
    assert requantize(np.array([1, 3, -1, -3]), m, shift, 0, IntegerRange(8)).tolist() == [
        1, 2, 0, -1,
    ]  # fmt: skip


def test_two_roundings_would_give_other_codes():
    """gemmlowp: first the high 32 bits of 2·acc·m, then the shift; both to the nearest."""
    rng = np.random.default_rng(0)
    acc = rng.integers(-(2**15), 2**15, 100_000)
    m, shift = multiplier(0.0037)
    high = (acc * m * 2 + (1 << 31)) >> 32
    rest = shift - 31
    twice = (high + (1 << (rest - 1))) >> rest
    once = requantize(acc, m, shift, 0, IntegerRange(16))
    assert 0 < (twice != once).sum() < len(acc) // 100
    exact = [expected_code(int(a), m, shift, 0, IntegerRange(16)) for a in acc[:1000]]
    assert once[:1000].tolist() == exact


@given(st.data(), targets())
def test_floats_that_hold_whole_numbers_give_the_same(data, target):
    acc = np.array(data.draw(st.lists(st.integers(-(2**24), 2**24), min_size=1)), np.float32)
    m, shift = multiplier(np.array(data.draw(st.lists(REALS, min_size=len(acc),
                                                      max_size=len(acc)))))  # fmt: skip
    zero_point = data.draw(st.integers(target.qmin, target.qmax))
    codes = requantize(acc, m, shift, zero_point, target)
    assert codes.dtype == np.float32
    whole = requantize(acc.astype(np.int32), m, shift, zero_point, target)
    np.testing.assert_array_equal(codes, whole)


@given(st.data(), targets())
def test_a_relu_is_the_lower_end(data, target):
    acc = np.array(data.draw(st.lists(INT32, min_size=1)), np.int32)
    zero_point = data.draw(st.integers(target.qmin, target.qmax))
    m, shift = multiplier(data.draw(REALS))
    plain = requantize(acc, m, shift, zero_point, target)
    clipped = requantize(acc, m, shift, zero_point, target, low=zero_point)
    np.testing.assert_array_equal(clipped, np.maximum(plain, zero_point))


@given(st.lists(INT32, min_size=2), REALS)
def test_it_never_decreases(acc, real):
    codes = requantize(np.array(sorted(acc)), *multiplier(real), 0, IntegerRange(16)).tolist()
    assert codes == sorted(codes)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
@pytest.mark.parametrize("shift", [30, EXACT_BITS - 8, EXACT_BITS - 7, 63])
def test_every_device_and_channels_of_their_own(device, dtype, shift):
    rng = np.random.default_rng(1)
    acc = rng.integers(-(2**22), 2**22, (3, 4, 5)).astype(dtype)
    m = rng.integers(2**30, 2**31, 5)
    shifts = np.array([shift, 31, 40, 35, shift])
    put = lambda a: to_device(a, device)  # noqa: E731
    codes = requantize(put(acc), put(m), put(shifts), 7, IntegerRange(8, signed=False))
    alone = requantize(acc, m, shifts, 7, IntegerRange(8, signed=False))
    np.testing.assert_array_equal(to_numpy(codes), alone)
    for index in np.ndindex(acc.shape):
        o = index[-1]
        target = IntegerRange(8, signed=False)
        assert alone[index] == expected_code(int(acc[index]), int(m[o]), int(shifts[o]), 7, target)


@given(st.data(), st.integers(1, 4))
def test_a_sum_on_another_grid_is_rounded_once(data, count):
    steps = [
        data.draw(st.lists(st.integers(-65535, 65535), min_size=3, max_size=3))
        for _ in range(count)
    ]
    reals = data.draw(st.lists(st.floats(2.0**-18, 2.0**12), min_size=count, max_size=count))
    mantissas, shift = common_multipliers(reals)
    y = rounded_sum([np.array(s, np.float32) for s in steps], reals)
    for k in range(3):
        exactly = sum(m * s[k] for m, s in zip(mantissas, steps, strict=True))
        assert int(y[k]) == floor_half_up(Fraction(exactly, 2**shift))
    for m, real in zip(mantissas, reals, strict=True):
        assert abs(Fraction(m, 2**shift) - Fraction(real)) <= Fraction(1, 2 ** (shift + 1))
    assert max(mantissas) >= 2**30


@pytest.mark.parametrize("real", [2.0**-40, 2.0**-24, 2.0**-22, 2.0**25, 2.0**31, 1e300])
def test_a_sum_of_extreme_scales_is_exact_too(real):
    steps = np.array([0, 1, -1, 65535, -65535])
    mantissas, shift = common_multipliers([real, real / 3])
    y = rounded_sum([steps, steps[::-1]], [real, real / 3])
    for a, b, got in zip(steps.tolist(), steps[::-1].tolist(), y.tolist(), strict=True):
        exactly = Fraction(mantissas[0] * a + mantissas[1] * b, 2**shift)
        assert got == floor_half_up(exactly)


@given(REALS, st.lists(st.integers(-65535, 65535), min_size=1))
def test_one_summand_alone_is_requantized(real, steps):
    target = IntegerRange(16)
    y = np.clip(rounded_sum([np.array(steps)], [real]), target.qmin, target.qmax)
    codes = requantize(np.array(steps), *multiplier(real), 0, target)
    np.testing.assert_array_equal(y, codes)


def test_a_sum_needs_summands():
    with pytest.raises(ValueError, match="1 to 16 arrays, got 0"):
        rounded_sum([], [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("slow", [[], [1], [0, 1, 2]], ids=["fast", "one slow", "all slow"])
def test_a_prepared_requantization_computes_the_same(device, dtype, slow):
    """In pieces, in place, and with channels for which float64 is not exact."""
    rng = np.random.default_rng(2)
    real = np.array([0.01, 0.3, 0.37])
    real[slow] *= 2.0**-20
    acc = rng.integers(-(2**23), 2**23, (2, 30_000, 3)).astype(dtype)
    expected = requantize(acc, *multiplier(real), 5, IntegerRange(8)).astype(np.int64) - 5
    prepared = Requantization.of(real, -133, 122, device)
    assert to_numpy(prepared.slow).tolist() == slow
    for there in (to_device(acc.copy(), device), to_device(acc.swapaxes(0, 1).copy(), device)):
        steps = prepared(there if there.shape == acc.shape else there.swapaxes(0, 1))
        assert steps.dtype == np.float32
        np.testing.assert_array_equal(to_numpy(steps), expected)
