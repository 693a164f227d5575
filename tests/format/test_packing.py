"""Bit packing: ``unpack(pack(q, bits)) == q`` for 1 to 16 bits, and nothing else is accepted."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.format import pack, packed_size, unpack


@st.composite
def codes_of_some_width(draw):
    bits, signed = draw(st.integers(1, 16)), draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    codes = draw(hnp.arrays(np.int32, st.integers(0, 67), elements=st.integers(low, high)))
    return codes, bits, signed


@given(codes_of_some_width())
def test_unpacking_is_the_inverse_of_packing(drawn):
    codes, bits, signed = drawn
    data = pack(codes, bits, signed)
    back = unpack(data, codes.size, bits, signed)
    np.testing.assert_array_equal(back, codes)
    assert len(data) == packed_size(codes.size, bits) == -(-codes.size * bits // 8)
    assert back.dtype == np.dtype(f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16}")


@given(codes_of_some_width())
def test_the_stream_is_each_code_in_binary_highest_bit_first(drawn):
    codes, bits, signed = drawn
    text = "".join(format(int(c) % (1 << bits), f"0{bits}b") for c in codes)
    padded = text + "0" * (-len(text) % 8)
    expected = bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
    assert pack(codes, bits, signed) == expected


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("signed", [False, True])
def test_every_code_survives_beyond_the_block_size(bits, signed, rng):
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    codes = np.concatenate([np.arange(low, high), rng.integers(low, high, 70_003)])
    np.testing.assert_array_equal(
        unpack(pack(codes, bits, signed), codes.size, bits, signed), codes
    )


def test_four_bit_codes_are_the_hexadecimal_digits():
    assert pack(np.array([1, 2, 15]), 4).hex() == "12f0"
    assert pack(np.array([[1, -1], [-8, 7]]), 4, signed=True).hex() == "1f87"


def test_no_codes_take_no_bytes():
    assert pack(np.array([], int), 5) == b""
    assert unpack(b"", 0, 5).shape == (0,)


def test_booleans_are_packed_as_bits():
    assert pack(np.array([True, False, True]), 1).hex() == "a0"


@pytest.mark.parametrize(
    ("codes", "bits", "signed", "named"),
    [([16], 4, False, "16"), ([-1], 4, False, "-1"), ([8], 4, True, "8"), ([-9], 4, True, "-9")],
)
def test_a_code_that_does_not_fit_is_named(codes, bits, signed, named):
    with pytest.raises(ValueError, match=f"code {named} does not fit 4"):
        pack(np.array(codes), bits, signed)


@pytest.mark.parametrize("bits", [0, 17, -1, 2.0])
def test_widths_other_than_1_to_16_are_refused(bits):
    with pytest.raises(ValueError, match="from 1 to 16"):
        pack(np.array([0]), bits)
    with pytest.raises(ValueError, match="from 1 to 16"):
        unpack(b"\0", 1, bits)


def test_fractions_are_refused():
    with pytest.raises(ValueError, match="float64"):
        pack(np.array([1.0]), 4)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0"])
def test_a_stream_of_another_length_is_refused(data):
    with pytest.raises(ValueError, match="take 2 bytes"):
        unpack(data, 3, 4)


def test_bits_after_the_last_code_must_be_zero():
    with pytest.raises(ValueError, match="last 4 bits"):
        unpack(bytes.fromhex("12f1"), 3, 4)


def test_a_million_codes_come_back(rng):
    codes = rng.integers(0, 32, 1_000_000)
    packed = pack(codes, 5)
    assert len(packed) == 625_000
    np.testing.assert_array_equal(unpack(packed, codes.size, 5), codes)
