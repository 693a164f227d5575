"""The IDX file format of MNIST: read strictly, write plainly.

A file is a header and the raw numbers, big-endian, in row-major order::

    0 0 type ndim | size_0 … size_{ndim-1} (4 bytes each, big-endian) | numbers

``type`` is 8 (uint8), 9 (int8), 11 (int16), 12 (int32), 13 (float32) or 14 (float64). A file may be
packed with gzip; that is seen from its first bytes, not from its name.

The header says how long the rest must be, so every damaged file can be told from a whole one:
the reader never trusts a size before that many bytes have really arrived.

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

DTYPES: dict[int, np.dtype] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_DIMENSIONS = 32
MAX_BYTES = 2**62  # more than any file; keeps what NumPy multiplies below 2^63
CHUNK = 1 << 20


class IdxError(ValueError):
    """A file that is not a whole and well-formed IDX file."""


def read_idx(path: str | os.PathLike[str], shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The array that an IDX file holds, in the machine's own byte order.

    Args:
        path: the file, plain or packed with gzip.
        shape: what the array's shape must be, where the caller knows.

    Raises:
        IdxError: wrong magic number, unknown type, sizes that do not match the bytes that follow,
            a truncated or damaged file, or bytes after the end. Names the file, what came and
            what was expected.
        OSError: the file cannot be opened.
    """
    name = os.fspath(path)
    with open_unpacked(path) as stream:
        try:
            array = read_array(stream, name, shape)
            if stream.read(1):
                raise IdxError(
                    f"{name}: more bytes follow the {array.nbytes:,} that its header announces "
                    f"for shape {array.shape}; it is not the file that was written"
                )
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise IdxError(f"{name}: damaged or truncated gzip file ({error})") from error
    return array


def open_unpacked(path: str | os.PathLike[str]) -> IO[bytes]:
    """``path`` opened for reading, through gzip where its first two bytes say so."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb") if packed else open(path, "rb"))


def read_array(stream: IO[bytes], name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The next IDX array of an open stream, which is left just behind it.

    Arrays written one after the other into one file are read back by calling this again.
    """
    dtype, dims = _read_header(stream, name)
    if shape is not None and dims != shape:
        raise IdxError(f"{name}: holds an array of shape {dims}, expected {shape}")
    size = math.prod(dims) * dtype.itemsize
    data = _read_exactly(stream, size)
    if len(data) < size:
        raise IdxError(
            f"{name}: truncated: shape {dims} of {dtype.name} needs {size:,} bytes after the "
            f"header, {len(data):,} came"
        )
    array = np.frombuffer(data, dtype).reshape(dims)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: IO[bytes], name: str) -> tuple[np.dtype, tuple[int, ...]]:
    magic = _read_exactly(stream, 4)
    if len(magic) < 4:
        raise IdxError(f"{name}: truncated: {len(magic)} bytes where a 4-byte magic number begins")
    if magic[:2] != b"\0\0":
        raise IdxError(
            f"{name}: not an IDX file: its magic number is 0x{magic.hex()}, expected 0x0000 "
            "followed by a type and a number of dimensions (MNIST: 0x00000803, 0x00000801)"
        )
    code, ndim = magic[2], magic[3]
    if code not in DTYPES:
        known = ", ".join(f"0x{key:02x} ({value.name})" for key, value in DTYPES.items())
        raise IdxError(f"{name}: unknown type code 0x{code:02x}, expected one of {known}")
    if not 1 <= ndim <= MAX_DIMENSIONS:
        raise IdxError(f"{name}: {ndim} dimensions, expected 1 to {MAX_DIMENSIONS}")
    sizes = _read_exactly(stream, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise IdxError(f"{name}: truncated: {ndim} sizes need {4 * ndim} bytes, {len(sizes)} came")
    dims = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * ndim, 4))
    if math.prod(max(d, 1) for d in dims) * DTYPES[code].itemsize > MAX_BYTES:
        raise IdxError(f"{name}: impossible shape {dims}: no file holds that many bytes")
    return DTYPES[code], dims


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """``size`` bytes, or fewer at the end. Memory grows with what comes, not with ``size``."""
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(CHUNK, size - len(data)))
        if not piece:
            break
        data += piece
    return data


# -------------------------------------------------------------------------------------- writing


def pack_idx(array: np.ndarray) -> bytes:
    """``array`` as the bytes of an IDX file.

    Raises:
        TypeError: a dtype that IDX does not have.
        ValueError: no dimension or more than 32, or one of 2^32 or longer.
    """
    codes = {dtype.newbyteorder("="): code for code, dtype in DTYPES.items()}
    native = array.dtype.newbyteorder("=")
    if native not in codes:
        names = ", ".join(dtype.name for dtype in DTYPES.values())
        raise TypeError(f"IDX holds {names}; got {array.dtype.name}")
    if not 1 <= array.ndim <= MAX_DIMENSIONS or any(d >= 2**32 for d in array.shape):
        raise ValueError(
            f"IDX holds 1 to {MAX_DIMENSIONS} dimensions below 2^32, got shape {array.shape}"
        )
    header = bytes((0, 0, codes[native], array.ndim))
    sizes = b"".join(d.to_bytes(4, "big") for d in array.shape)
    return header + sizes + array.astype(DTYPES[codes[native]]).tobytes()


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write ``array`` as an IDX file, packed with gzip where the name ends in ``.gz``."""
    data = pack_idx(array)
    if os.fspath(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # no time inside: the same array, the same file
    Path(path).write_bytes(data)
