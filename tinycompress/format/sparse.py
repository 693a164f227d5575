"""Sparse arrays: where the values stand, apart from what they are.

One value is left out, usually the zero of pruned weights. What is written is

    fill     zigzag     the value that is left out: the most frequent one; for floats it is not
                        written, and is +0
    index    ⌈n/8⌉      a bit per value, packed: 1 where another one stands
    codec    1 byte     of the other values
    others              what it wrote

``relative.py`` and ``predicted.py`` write the index in fewer bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinycompress.format.codec import (
    Codec,
    Cost,
    Decoded,
    Encoded,
    Shape,
    count_of,
    decode_with,
    encode_among,
    range_of,
)
from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.dense import BRAIN, HALF, PACKED, RAW, read_packed
from tinycompress.format.huffman import HUFFMAN
from tinycompress.format.inner import INNER

SPARSE = 2
# What is tried for the others. Range coders are left to the codecs with a better index.
QUICK = (RAW, PACKED, HALF, BRAIN, HUFFMAN)


def split(values: np.ndarray) -> tuple[bytes, np.ndarray] | None:
    """(the value that is left out, as bytes; where others stand), or None if that does not suit."""
    if values.dtype.kind not in "iuf" or values.size < 2:
        return None
    if values.dtype.kind == "f":
        return b"", values.view(f"u{values.itemsize}") != 0  # −0.0 stays: it is not +0.0
    distinct, counts = np.unique(values, return_counts=True)
    fill = int(distinct[counts.argmax()])
    if abs(fill) >= 1 << 62 or 2 * counts.max() < values.size:
        return None
    return varint(zigzag(fill)), values != fill


def read_fill(body: Cursor, dtype: np.dtype) -> int:
    """The value that is left out."""
    if dtype.kind not in "iuf":
        raise body.error(f"{dtype} values cannot be sparse")
    if dtype.kind == "f":
        return 0
    fill = unzigzag(body.varint("the value that is left out"))
    low, high = range_of(dtype)
    if not low <= fill <= high:
        raise body.error(f"the value that is left out, {fill}, does not fit {dtype}")
    return fill


def write_others(values: np.ndarray, among: Iterable[int] | None = None) -> Encoded:
    """The values that are not left out, one axis: the shortest codec's number, and its bytes."""
    number, others = encode_among(INNER, values, among)
    return others.after(bytes([number]))


def read_others(body: Cursor, kept: np.ndarray, fill: int, dtype: np.dtype) -> Decoded:
    """The whole array, of the shape of ``kept``; the cost is that of the others."""
    number = body.byte("the codec of the values that are kept")
    others = decode_with(INNER, number, body, dtype, (int(np.count_nonzero(kept)),))
    values = np.full(kept.shape, fill, dtype)
    values[kept] = others.values
    return Decoded(values, others.how, others.cost + Cost(tables=1))


def encode_sparse(values: np.ndarray) -> Encoded | None:
    parts = split(values)
    if parts is None:
        return None
    fill, kept = parts
    return write_others(values[kept], QUICK).after(fill + np.packbits(kept.ravel()).tobytes())


def decode_sparse(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    fill = read_fill(body, dtype)
    head = body.position - start
    kept = read_packed(body, count_of(shape), 1).astype(bool).reshape(shape)
    index = body.position - start - head
    values, how, cost = read_others(body, kept, fill, dtype)
    return Decoded(values, f"sparse ({how})", cost + Cost(index, tables=head))


CODECS: dict[int, Codec] = {SPARSE: Codec(encode_sparse, decode_sparse)}
