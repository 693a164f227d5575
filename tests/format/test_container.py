"""The container: what is damaged is refused, with the place and the reason."""

import zlib

import pytest
from hypothesis import given, strategies as st

from tinycompress.format import FormatError
from tinycompress.format.container import (
    ARCHITECTURE,
    MAGIC,
    TENSORS,
    VERSION,
    read_container,
    write_container,
)

contents = st.binary(max_size=300)


@given(contents, contents)
def test_sections_come_back(first, second):
    data = write_container([(ARCHITECTURE, first), (TENSORS, second)])
    sections = read_container(data)
    assert [s.kind for s in sections] == [ARCHITECTURE, TENSORS]
    assert [s.content.rest() for s in sections] == [first, second]
    assert sum(s.bytes for s in sections) == len(data) - 5
    assert sections[1].offset == sections[0].offset + sections[0].bytes


def test_a_file_as_the_documentation_shows_it():
    data = write_container([(ARCHITECTURE, b"\x0e"), (TENSORS, b"")])
    checks = [zlib.crc32(b"\x89TCZ\x01\x01\x01\x0e")]
    checks.append(zlib.crc32(b"\x02\x00", checks[0]))
    first, second = (c.to_bytes(4, "little") for c in checks)
    assert data == b"\x89TCZ\x01" + b"\x01\x01\x0e" + first + b"\x02\x00" + second


def test_a_newer_version_is_refused_with_its_number():
    data = MAGIC + bytes([VERSION + 6]) + b"whatever a later format has"
    with pytest.raises(FormatError, match=f"version {VERSION + 6} .*update tinycompress") as caught:
        read_container(data)
    assert caught.value.offset == 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\x89TC", "starts with 89 54 43"),
        (b"PK\x03\x04 some archive", "starts with 50 4b"),
        (b"\x89TCZ", "truncated"),
        (b"\x89TCZ\x00", "version 0"),
        (b"\x89TCZ\x01", "sections are none"),
    ],
)
def test_what_is_no_such_file_is_refused(data, reason):
    with pytest.raises(FormatError, match=reason):
        read_container(data)


@pytest.mark.parametrize(
    "kinds", [[1], [2], [2, 1], [1, 1], [1, 2, 2], [1, 2, 3], [1, 2, 1], [0, 1, 2]]
)
def test_other_sections_than_expected_are_refused(kinds):
    data = write_container([(kind, b"x") for kind in kinds])
    with pytest.raises(FormatError, match="expected architecture, tensors"):
        read_container(data)


def test_a_section_of_another_file_is_noticed():
    one = write_container([(ARCHITECTURE, b"one"), (TENSORS, b"1")])
    two = write_container([(ARCHITECTURE, b"two"), (TENSORS, b"2")])
    with pytest.raises(FormatError, match="tensors is damaged"):
        read_container(one[:-7] + two[-7:])


def test_a_length_beyond_the_file_is_refused_before_anything_is_read():
    data = MAGIC + bytes([VERSION, ARCHITECTURE]) + b"\xff" * 8 + b"\x7f"
    with pytest.raises(FormatError, match=r"takes 9,223,372,036,854,775,807 bytes, but 0 are left"):
        read_container(data)


def test_an_error_says_where_and_why():
    error = FormatError(17, "the reason", "folder/m.tcz")
    assert (error.offset, error.reason, error.path) == (17, "the reason", "folder/m.tcz")
    assert str(error) == "folder/m.tcz: not a readable .tcz file (byte 17): the reason"
    assert isinstance(error, ValueError)
