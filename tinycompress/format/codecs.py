"""How a tensor's values become bytes. ``encode`` tries every codec and keeps the shortest.

    number  name     for                        bytes for n values
    0       raw      anything                   n · itemsize
    1       packed   integers, booleans         ⌈n · b / 8⌉ and a few, b bits from the values' range
    2       sparse   what repeats one value     ⌈n / 8⌉, and the other values, raw or packed

So float weights cost 4 bytes each, zeros among them a bit each; 4-bit codes cost half a byte each,
whatever dtype they have in memory. A further codec is a further line of ``CODECS``: its number
goes into the file, and a reader that does not know it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.packing import WORD, pack, packed_size, unpack


class Decoded(NamedTuple):
    """The values (one axis), and in words how they were written."""

    values: np.ndarray
    how: str


class Codec(NamedTuple):
    """``encode`` gives None where the codec does not suit; ``decode`` reads all of its cursor."""

    encode: Callable[[np.ndarray], bytes | None]
    decode: Callable[[Cursor, np.dtype, int], Decoded]


def encode(values: np.ndarray, among: Iterable[int] | None = None) -> tuple[int, bytes]:
    """(number of the codec that needs the fewest bytes, those bytes).

    Args:
        values: one axis, C order, any dtype of ``tensors.DTYPES``.
        among: codec numbers to try (None: all). Of equals the lowest number wins.
    """
    tried = ((number, CODECS[number].encode(values)) for number in sorted(among or CODECS))
    fitting = ((number, body) for number, body in tried if body is not None)
    return min(fitting, key=lambda pair: len(pair[1]))


def decode(number: int, body: Cursor, dtype: np.dtype, count: int) -> Decoded:
    """The ``count`` values that ``body`` holds, all of it.

    Raises:
        FormatError: the codec is unknown, or ``body`` is not what it writes for ``count`` values.
    """
    if number not in CODECS:
        raise body.error(f"codec {number} is not known here: a newer tinycompress wrote this file")
    decoded = CODECS[number].decode(body, dtype, count)
    body.finish("a tensor")
    return decoded


# ------------------------------------------------------------------------------------------- raw


def _encode_raw(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _decode_raw(body: Cursor, dtype: np.dtype, count: int) -> Decoded:
    data = body.take(count * dtype.itemsize, f"{count:,} values of {dtype}")
    values = np.frombuffer(data, dtype.newbyteorder("<"))
    if dtype.kind == "b" and (values.view(np.uint8) > 1).any():
        raise body.error("a boolean is neither 0 nor 1")
    return Decoded(values.astype(dtype), "raw")


# ---------------------------------------------------------------------------------------- packed
# One byte: b, 0 to 16 bits. The least value, zigzag. Then every value minus the least, packed.
# With b = 0 all values are the least one.


def _encode_packed(values: np.ndarray) -> bytes | None:
    if values.dtype.kind not in "iub" or not values.size:
        return None
    least = int(values.min())
    bits = (int(values.max()) - least).bit_length()
    if bits > WORD or abs(least) >= 1 << 62:
        return None
    if bits == 0:
        return bytes([0]) + varint(zigzag(least))
    above = (values.astype(np.int64) - least).astype(np.uint16)
    return bytes([bits]) + varint(zigzag(least)) + pack(above, bits)


def _decode_packed(body: Cursor, dtype: np.dtype, count: int) -> Decoded:
    bits = body.byte("the number of bits per value")
    least = unzigzag(body.varint("the least value"))
    if dtype.kind not in "iub" or bits > WORD:
        raise body.error(f"{dtype} values cannot be packed in {bits} bits")
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not low <= least <= high:
        raise body.error(f"the least value {least} does not fit {dtype}")
    how = f"packed, {bits}-bit"
    if bits == 0:
        return Decoded(np.full(count, least, dtype), how)
    above = read_packed(body, count, bits)
    if count and least + int(above.max()) > high:
        raise body.error(f"a value does not fit {dtype}")
    return Decoded((above.astype(np.int64) + least).astype(dtype), how)


def read_packed(body: Cursor, count: int, bits: int) -> np.ndarray:
    """The next ``count`` codes, as ``packing.pack`` wrote them."""
    data = body.take(packed_size(count, bits), f"{count:,} values of {bits} bits")
    try:
        return unpack(data, count, bits)
    except ValueError as error:
        raise body.error(str(error)) from error


# ---------------------------------------------------------------------------------------- sparse
# For integers, zigzag: the value that is left out (for floats it is +0). A bit per value: 1 where
# another one stands. Then the number of a codec and, in it, these others.


def _encode_sparse(values: np.ndarray) -> bytes | None:
    if values.dtype.kind not in "iuf" or values.size < 2:
        return None
    if values.dtype.kind == "f":
        head, kept = b"", values.view(f"u{values.itemsize}") != 0  # −0.0 is kept: it is not +0.0
    else:
        fill = _most_frequent(values)
        if abs(fill) >= 1 << 62:
            return None
        head, kept = varint(zigzag(fill)), values != fill
    number, others = encode(values[kept], (RAW, PACKED))
    return head + np.packbits(kept).tobytes() + bytes([number]) + others


def _most_frequent(values: np.ndarray) -> int:
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()])


def _decode_sparse(body: Cursor, dtype: np.dtype, count: int) -> Decoded:
    if dtype.kind not in "iuf":
        raise body.error(f"{dtype} values cannot be sparse")
    fill = 0 if dtype.kind == "f" else unzigzag(body.varint("the value that is left out"))
    if dtype.kind != "f" and not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max:
        raise body.error(f"the value that is left out, {fill}, does not fit {dtype}")
    kept = read_packed(body, count, 1).astype(bool)
    number = body.byte("the codec of the values that are kept")
    if number not in (RAW, PACKED):
        raise body.error(f"codec {number} cannot stand inside a sparse tensor")
    others = decode(number, body, dtype, int(np.count_nonzero(kept)))
    values = np.full(count, fill, dtype)
    values[kept] = others.values
    return Decoded(values, f"sparse ({others.how})")


RAW, PACKED, SPARSE = range(3)
CODECS: dict[int, Codec] = {
    RAW: Codec(_encode_raw, _decode_raw),
    PACKED: Codec(_encode_packed, _decode_packed),
    SPARSE: Codec(_encode_sparse, _decode_sparse),
}
