"""Codecs: every one gives back the bits that it got, and the shortest is chosen."""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from tcz_arrays import arrays, shapes, suitable_arrays

from tinycompress.format import FormatError
from tinycompress.format.adaptive import ADAPTIVE
from tinycompress.format.codecs import CODECS, decode, encode
from tinycompress.format.counted import COUNTED
from tinycompress.format.cursor import MAX_STEPS, Cursor
from tinycompress.format.dense import BRAIN, HALF, PACKED, RAW
from tinycompress.format.huffman import HUFFMAN
from tinycompress.format.parts import PARTS
from tinycompress.format.relative import RELATIVE
from tinycompress.format.sparse import SPARSE
from tinycompress.format.tensors import DTYPES
from tinycompress.format.trimmed import TRIMMED


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(arrays)
def test_what_was_encoded_comes_back_to_the_bit(values):
    number, (body, _) = encode(values)
    back = decode(number, Cursor(body), values.dtype, values.shape).values
    assert same_bits(back, values)
    assert back.flags.writeable
    memory = back if back.base is None else back.base
    assert memory.nbytes == values.nbytes  # nothing of the file is held on to


@pytest.mark.parametrize("number", CODECS)
@given(data=st.data())
def test_each_codec_comes_back_to_the_bit(number, data):
    values = data.draw(suitable_arrays(number))
    encoded = CODECS[number].encode(values)
    assume(encoded is not None)
    cursor = Cursor(encoded.data)
    again, _, cost = decode(number, cursor, values.dtype, values.shape)
    assert same_bits(again, values)
    assert cost.total == len(encoded.data)
    assert MAX_STEPS - cursor.steps.left == encoded.steps  # both count the same


@given(arrays)
def test_the_shortest_is_chosen_and_never_longer_than_raw(values):
    _, (body, _) = encode(values)
    sizes = [len(b.data) for c in CODECS.values() if (b := c.encode(values)) is not None]
    assert len(body) == min(sizes) <= values.nbytes


@given(
    number=st.sampled_from([*CODECS, 30]),
    dtype=st.sampled_from(DTYPES).map(np.dtype),
    shape=shapes,
    body=st.binary(max_size=80),
)
def test_any_bytes_are_values_or_a_format_error(number, dtype, shape, body):
    try:
        values = decode(number, Cursor(body), dtype, shape).values
    except FormatError:
        return
    assert (values.dtype, values.shape) == (dtype, shape)


def test_a_dense_float_stays_four_bytes(rng):
    values = rng.normal(size=1000).astype(np.float32)
    number, (body, _) = encode(values)
    assert (number, len(body)) == (RAW, 4000)


@pytest.mark.parametrize("bits", range(1, 17))
def test_codes_take_their_bits_whatever_their_dtype(bits, rng):
    codes = rng.integers(-(1 << bits - 1), 1 << bits - 1, 4000)
    codes[:2] = -(1 << bits - 1), (1 << bits - 1) - 1
    for dtype in ("int32", "int64"):
        number, (body, _) = encode(codes.astype(dtype))
        assert number == PACKED
        assert 500 * bits + 2 <= len(body) <= 500 * bits + 4


def test_ninety_percent_zeros_take_a_bit_each_in_a_plain_mask(rng):
    values = rng.normal(size=8000).astype(np.float32)
    values[rng.permutation(8000)[:7200]] = 0
    number, (body, _) = encode(values, (RAW, PACKED, SPARSE))
    assert (number, len(body)) == (SPARSE, 1000 + 1 + 800 * 4)


def test_any_value_is_left_out_if_it_is_the_most_frequent(rng):
    codes = np.zeros(8000, np.uint8)
    codes[:] = 128  # a zero point that is not 0 is left out just as well
    codes[rng.permutation(8000)[:800]] = rng.integers(120, 128, 800)
    number, (body, _) = encode(codes, (RAW, PACKED, SPARSE))
    assert number == SPARSE
    assert len(body) <= 2 + 1000 + 1 + 3 + 800 * 3 // 8


@pytest.mark.parametrize("number", [SPARSE, RELATIVE])
def test_minus_zero_is_a_value_of_its_own(number):
    values = np.array([0.0, -0.0, 0.0, 1.0] * 100, np.float32)
    body = CODECS[number].encode(values).data
    back = decode(number, Cursor(body), values.dtype, (400,)).values
    assert same_bits(back, values)
    assert len(body) < 400 * 4 / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_that_fit_sixteen_bits_take_sixteen(dtype, rng):
    values = rng.normal(size=100).astype(np.float16).astype(dtype)
    assert len(CODECS[HALF].encode(values).data) == 200
    values[7] = 65_536  # more than a half can be
    assert encode(values)[0] == RAW
    values[7] = values.dtype.type(1) + values.dtype.type(2**-11)  # a bit too many
    assert encode(values)[0] == RAW


def test_exponents_of_floats_that_fit_repeat(rng):
    values = rng.normal(size=400).astype(np.float16).astype(np.float32)
    number, (body, _) = encode(values)
    assert number == PARTS
    assert len(body) < 0.9 * 800


@pytest.mark.parametrize("bits", range(11))
def test_mantissas_that_were_rounded_take_fewer_bits(bits, rng):
    mantissas = rng.integers(1 << bits, 2 << bits, 800)
    values = np.ldexp(mantissas * rng.choice([-1.0, 1.0], 800), -bits).astype(np.float32)
    number, (body, _) = encode(values, (RAW, HALF, PARTS))
    assert number == PARTS
    assert 100 * bits + 100 - 3 <= len(body) <= 100 * bits + 100 + 16  # and a sign each


def test_upper_halves_have_the_range_of_float32(rng):
    values = np.ldexp(rng.integers(128, 256, 100), rng.integers(-130, 100, 100)).astype(np.float32)
    number, (body, _) = encode(values)
    assert (number, len(body)) == (BRAIN, 200)


def test_a_matrix_with_dead_rows_and_columns_is_written_without_them(rng):
    values = np.zeros((40, 50), np.float32)
    values[np.ix_(range(0, 40, 2), range(10, 20))] = rng.normal(size=(20, 10))
    body = CODECS[TRIMMED].encode(values).data
    assert len(body) == 5 + 7 + 1 + 4 * 20 * 10
    assert same_bits(decode(TRIMMED, Cursor(body), values.dtype, values.shape).values, values)
    assert CODECS[TRIMMED].encode(values[::2, 10:20]) is None  # nothing is dead


def test_a_matrix_of_nothing_but_zeros():
    values = np.zeros((40, 50), np.float32)
    body = CODECS[TRIMMED].encode(values).data
    assert len(body) == 5 + 7 + 1
    assert same_bits(decode(TRIMMED, Cursor(body), values.dtype, values.shape).values, values)


def test_one_number_repeated_takes_two_bytes():
    assert encode(np.full(1000, 7, np.int8)) == (PACKED, (bytes([0, 14]), 0))


@pytest.mark.parametrize(
    "values",
    [
        np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max]),
        np.array([np.iinfo(np.uint64).max] * 50 + [0], np.uint64),
        np.array([np.iinfo(np.int64).min] * 50),
        np.array([0] * 50 + [np.iinfo(np.uint64).max], np.uint64),
        np.array([0] * 50 + [-(1 << 61), np.iinfo(np.int64).max]),
        np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45] * 20, np.float32),
    ],
)
def test_extreme_values(values):
    number, (body, _) = encode(values)
    assert same_bits(decode(number, Cursor(body), values.dtype, values.shape).values, values)


@pytest.mark.parametrize(
    ("number", "dtype", "count", "body", "reason"),
    [
        (29, "int8", 1, "00", "codec 29 is not known"),
        (RAW, "float32", 2, "00000000", "truncated"),
        (RAW, "float32", 1, "0000000000", "too many"),
        (RAW, "bool", 1, "02", "neither 0 nor 1"),
        (PACKED, "float32", 1, "0100", "cannot be packed"),
        (PACKED, "int8", 1, "1100", "in 17 bits"),
        (PACKED, "int8", 2, "088002ff00", "least value 128 does not fit"),
        (PACKED, "int8", 2, "08feff", "truncated"),
        (PACKED, "int8", 2, "08fe01ffff", "a value does not fit int8"),
        (PACKED, "uint8", 2, "040012ff", "too many"),
        (PACKED, "uint8", 1, "040011", "last 4 bits"),
        (PACKED, "uint8", 1, "0001", "least value -1 does not fit"),
        (SPARSE, "bool", 8, "0000", "cannot be sparse"),
        (SPARSE, "float32", 100, "00", "truncated"),
        (SPARSE, "float32", 8, "0002", "codec 2 is not known"),
        (SPARSE, "float32", 8, "800000", "truncated"),
        (SPARSE, "int8", 8, "80020000", "does not fit int8"),
        (SPARSE, "float32", 4, "0f00", "last 4 bits"),
        (HALF, "float16", 1, "0000", "cannot be written as halves"),
        (HALF, "float32", 1, "007c", "no finite"),
        (BRAIN, "float64", 1, "0000", "upper halves of float32"),
        (PARTS, "float16", 1, "0000010000", "cannot be halves"),
        (PARTS, "float32", 1, "0b00010000", "mantissas of 11 bits"),
        (PARTS, "float32", 1, "000301", "truncated"),
        (PARTS, "float32", 1, "0003010000", "codec 3 is not known"),
        (PARTS, "float32", 1, "0000011f", "no finite"),
        (PARTS, "float32", 1, "00000140", "no finite"),
        (PARTS, "float32", 1, "0400010041", "last 4 bits"),
        (PARTS, "float32", 1, "040001004000", "too many"),
        (COUNTED, "float32", 1, "0100", "cannot have a table"),
        (COUNTED, "int8", 1, "0000", "cannot have a table of 0"),
        (COUNTED, "int8", 1, "0200808004", "do not add up"),
        (COUNTED, "int8", 1, "020000", "do not add up"),
        (COUNTED, "uint8", 2, "02fe0301ff", "does not fit uint8"),
        (ADAPTIVE, "float32", 1, "0100", "cannot be written adaptively"),
        (ADAPTIVE, "int8", 1, "0d00", "13 bits cannot"),
        (ADAPTIVE, "int8", 1, "010000", "does not end with a zero"),
        (ADAPTIVE, "int8", 1 << 20, "0c00", "steps"),
        (COUNTED, "int8", 1 << 23, "0100", "steps"),
        (TRIMMED, "bool", 8, "00", "cannot be sparse"),
        (TRIMMED, "int8", 8, "00", "no rows and columns"),
        (HUFFMAN, "float32", 1, "0100", "cannot have a code"),
        (HUFFMAN, "int8", 0, "0100", "cannot have a code"),
        (HUFFMAN, "int8", 1, "00", "cannot have a code"),
        (HUFFMAN, "int8", 1, "812000", "cannot have a code for 4,097"),
        (HUFFMAN, "int8", 2, "0200", "truncated"),
        (HUFFMAN, "int8", 2, "02001240", "lengths of the codewords"),
        (HUFFMAN, "int8", 2, "02001041", "lengths of the codewords"),
        (HUFFMAN, "int8", 2, "02001141", "bits after the last"),
        (HUFFMAN, "int8", 2, "0200114000", "too many"),
        (HUFFMAN, "int8", 9, "02001140", "are more than are here"),
        (HUFFMAN, "uint8", 2, "02fe031140", "does not fit uint8"),
        (RELATIVE, "bool", 8, "0001", "cannot be sparse"),
        (RELATIVE, "float32", 8, "0d0000", "13 bits cannot be here"),
        (RELATIVE, "float32", 8, "0209", "index of 9 numbers"),
        (RELATIVE, "float32", 8, "0201010200080000", "a distance does not fit 2 bits"),
        (RELATIVE, "float32", 8, "0201010200060000", "ends with a filler"),
        (RELATIVE, "float32", 4, "03010102000c0000", "place 6 of 4"),
    ],
)
def test_damaged_bodies_are_refused(number, dtype, count, body, reason):
    with pytest.raises(FormatError, match=reason):
        decode(number, Cursor(bytes.fromhex(body)), np.dtype(dtype), (count,))
