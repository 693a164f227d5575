"""IDX files: what is written is read, and nothing else is."""

import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.data import IdxError, read_idx, write_idx
from tinycompress.data.idx import pack_idx

DTYPES = ["u1", "i1", "i2", "i4", "f4", "f8"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0))
)


@given(arrays, st.sampled_from(["a.idx", "a.gz"]))
def test_what_is_written_is_read(tmp_path_factory, array, name):
    path = tmp_path_factory.getbasetemp() / name
    write_idx(path, array)
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.shape == array.shape
    assert read.tobytes() == array.tobytes()  # NaN payloads and the sign of zero included


def test_a_known_file_byte_by_byte(tmp_path):
    path = tmp_path / "known"
    path.write_bytes(bytes.fromhex("00000b02 00000002 00000001 0102 fffe"))
    np.testing.assert_array_equal(read_idx(path), np.array([[258], [-2]], np.int16))
    assert pack_idx(np.array([[258], [-2]], np.int16)) == path.read_bytes()


def test_a_big_endian_array_is_written_by_value(tmp_path):
    write_idx(tmp_path / "a", np.array([1, 258], ">i2"))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), [1, 258])


@pytest.fixture
def small():
    return np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)])
def test_every_truncation_is_refused_and_named(tmp_path, small, pack):
    whole = pack(pack_idx(small))
    path = tmp_path / "cut-file"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IdxError, match=r"cut-file: .*truncated"):
            read_idx(path)


@pytest.mark.parametrize("extra", [b"\0", b"x" * 5000])
def test_bytes_after_the_end_are_refused(tmp_path, small, extra):
    for name, data in {
        "plain": pack_idx(small) + extra,
        "packed": gzip.compress(pack_idx(small) + extra),
        "two-members": gzip.compress(pack_idx(small)) + gzip.compress(extra),
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(IdxError, match=f"{name}: more bytes follow the 48"):
            read_idx(tmp_path / name)


def test_no_flipped_bit_of_a_gzip_file_gives_another_array(tmp_path, small):
    whole = gzip.compress(pack_idx(small), mtime=0)
    refused = 0
    for position in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << position % 8
        (tmp_path / "flipped").write_bytes(broken)
        try:  # some bits are only notes or padding: then the array must be the same
            np.testing.assert_array_equal(read_idx(tmp_path / "flipped"), small)
        except IdxError:
            refused += 1
    assert refused > 6 * len(whole)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("01000803", "not an IDX file: its magic number is 0x01000803"),
        ("50 4b0304", "not an IDX file: its magic number is 0x504b0304"),
        ("00000703", "unknown type code 0x07, expected one of 0x08"),
        ("00000a01", "unknown type code 0x0a"),
        ("00000800", "0 dimensions, expected 1 to 32"),
        ("00000821", "33 dimensions, expected 1 to 32"),
        ("000008ff", "255 dimensions"),
    ],
)
def test_a_wrong_magic_number_is_refused(tmp_path, head, message):
    (tmp_path / "f").write_bytes(bytes.fromhex(head) + bytes(2000))
    with pytest.raises(IdxError, match=message):
        read_idx(tmp_path / "f")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("dims", [(0xFFFFFFFF,), (0x7FFFFFFF, 1), (60000, 2800, 2800)])
def test_a_hostile_size_costs_no_memory(tmp_path, dims, pack):
    data = bytes((0, 0, 8, len(dims))) + b"".join(d.to_bytes(4, "big") for d in dims) + bytes(100)
    (tmp_path / "bomb").write_bytes(pack(data))
    tracemalloc.start()
    with pytest.raises(IdxError, match=r"bomb: truncated: .* 100 came"):
        read_idx(tmp_path / "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("first", [0xFFFFFFFF, 0])
def test_a_shape_that_overflows_is_refused(tmp_path, first):
    dims = (first, *(0xFFFFFFFF,) * 31)
    data = bytes((0, 0, 14, 32)) + b"".join(d.to_bytes(4, "big") for d in dims)
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(IdxError, match="impossible shape"):
        read_idx(tmp_path / "f")


def test_an_expected_shape_is_held_to(tmp_path, small):
    write_idx(tmp_path / "f", small)
    assert read_idx(tmp_path / "f", shape=(2, 3, 4)).shape == (2, 3, 4)
    with pytest.raises(IdxError, match=r"f: holds .* shape \(2, 3, 4\), expected \(2, 3, 5\)"):
        read_idx(tmp_path / "f", shape=(2, 3, 5))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros(3, bool), np.zeros(3, "U1")])
def test_a_dtype_that_idx_lacks_is_refused(tmp_path, array):
    with pytest.raises(TypeError, match="IDX holds uint8, int8"):
        write_idx(tmp_path / "f", array)
    with pytest.raises(ValueError, match="1 to 32 dimensions"):
        write_idx(tmp_path / "f", np.uint8(3).reshape(()))
