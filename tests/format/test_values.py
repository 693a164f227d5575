"""JSON values in few bytes: exact inverses, and a strict reader."""

import json

import pytest
from hypothesis import given, strategies as st

from tinycompress.format import FormatError
from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.values import MAX_DEPTH, read_value, write_value
from tinycompress.format.words import WORDS

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 61), 1 << 61)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
)
keys = st.text(max_size=20) | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(keys, inner, max_size=20),
    max_leaves=30,
)


def read(data: bytes):
    cursor = Cursor(data)
    value = read_value(cursor)
    cursor.finish("the value")
    return value


@given(values)
def test_reading_is_the_inverse_of_writing(value):
    assert json.dumps(read(write_value(value))) == json.dumps(value)  # 1, 1.0 and True differ


@given(st.integers(0, (1 << 63) - 1))
def test_whole_numbers_come_back(number):
    cursor = Cursor(varint(number))
    assert cursor.varint("a number") == number
    assert cursor.left() == 0


@given(st.integers(-(1 << 62), 1 << 62))
def test_zigzag_keeps_small_numbers_small(number):
    assert unzigzag(zigzag(number)) == number
    assert 0 <= zigzag(number) <= 2 * abs(number)


def test_numbers_as_the_documentation_shows_them():
    assert varint(5).hex() == "05"
    assert varint(300).hex() == "ac02"
    assert [zigzag(n) for n in (0, -1, 1, -2)] == [0, 1, 2, 3]


def test_the_example_of_the_documentation():
    value = ["lenet-5", {}, {"fc1": "Identity"}]
    assert write_value(value).hex(" ") == "c3 02 d0 d1 43 0d"


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_numbers_that_a_file_does_not_have(number):
    with pytest.raises(ValueError, match="whole numbers from 0"):
        varint(number)


@pytest.mark.parametrize("value", [object(), {1: 2}, [b"bytes"], 1j])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(TypeError):
        write_value(value)


def nested(depth: int):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_limited_in_both_directions():
    assert read(write_value(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        write_value(nested(MAX_DEPTH + 1))
    with pytest.raises(FormatError, match="deeper"):
        read(b"\xc1" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "truncated"),
        ("7f", "newer tinycompress"),
        ("f8", "no value starts"),
        ("ff", "no value starts"),
        ("f3", "truncated"),
        ("f38000", "fewest bytes"),
        ("f3" + "ff" * 9 + "01", "larger than"),
        ("f4000000", "truncated"),
        ("e2c328", "UTF-8"),
        ("e5616263", "truncated"),
        ("f5ffffffffff7f00", "truncated"),
        ("c5808080", "cannot be in"),
        ("f6ffffffffffffffff7f80", "cannot be in"),
        ("f7ffffffffffffffff7f80", "cannot be in"),
        ("d18080", "not a key"),
        ("d202800281", "comes twice"),
        ("8000", "too many"),
    ],
)
def test_damaged_values_are_refused(data, reason):
    with pytest.raises(FormatError, match=reason):
        read(bytes.fromhex(data))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_a_format_error(data):
    try:
        value = read(data)
    except FormatError as error:
        assert 0 <= error.offset <= len(data)  # noqa: PT017
    else:
        assert json.dumps(read(write_value(value))) == json.dumps(value)
