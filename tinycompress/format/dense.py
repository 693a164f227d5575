"""Codecs that write every value in the same number of bits.

**Raw**: the values as they are in memory, little-endian.

**Packed**: whole numbers in b bits each. One byte: b, 0 to 16. The least value, zigzag. Then every
value minus the least, packed. With b = 0 all values are the least one.

**Half** and **brain**: floats of which none needs all its bits, in 16 bits each. Half is float16 of
IEEE 754: 11 bits of precision, numbers up to 65,504. Brain (bfloat16) is the upper half of a
float32: 8 bits of precision, and the whole range. Nothing is rounded here: an array that would
change is not written so. (``compress/share/half.py`` rounds a model beforehand.)
"""

from __future__ import annotations

import numpy as np

from tinycompress.format.codec import Codec, Cost, Decoded, Encoded, Shape, count_of, range_of
from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.packing import WORD, pack, packed_size, unpack

RAW, PACKED, HALF, BRAIN = 0, 1, 3, 4  # 2 was given to sparse.py


def encode_raw(values: np.ndarray) -> Encoded:
    return Encoded(values.astype(values.dtype.newbyteorder("<")).tobytes())


def decode_raw(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    size = count_of(shape) * dtype.itemsize
    data = body.take(size, f"{count_of(shape):,} values of {dtype}")
    values = np.frombuffer(data, dtype.newbyteorder("<"))
    if dtype.kind == "b" and (values.view(np.uint8) > 1).any():
        raise body.error("a boolean is neither 0 nor 1")
    return Decoded(values.astype(dtype).reshape(shape), "raw", Cost(values=size))


# ---------------------------------------------------------------------------------------- packed


def encode_packed(values: np.ndarray) -> Encoded | None:
    if values.dtype.kind not in "iub" or not values.size:
        return None
    least = int(values.min())
    bits = (int(values.max()) - least).bit_length()
    if bits > WORD or abs(least) >= 1 << 62:
        return None
    above = (values.astype(np.int64) - least).astype(np.uint16)
    codes = pack(above, bits) if bits else b""
    return Encoded(bytes([bits]) + varint(zigzag(least)) + codes)


def decode_packed(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    bits = body.byte("the number of bits per value")
    if dtype.kind not in "iub" or bits > WORD:
        raise body.error(f"{dtype} values cannot be packed in {bits} bits")
    least = read_least(body, dtype)
    head, how = body.position - start, f"packed, {bits}-bit"
    if bits == 0:
        return Decoded(np.full(shape, least, dtype), how, Cost(tables=head))
    above = read_packed(body, count_of(shape), bits)
    cost = Cost(values=body.position - start - head, tables=head)
    return Decoded(raised(body, above, least, dtype).reshape(shape), how, cost)


def read_least(body: Cursor, dtype: np.dtype) -> int:
    """The least of the values that follow, which has to fit ``dtype``."""
    least = unzigzag(body.varint("the least value"))
    low, high = range_of(dtype)
    if not low <= least <= high:
        raise body.error(f"the least value {least} does not fit {dtype}")
    return least


def read_packed(body: Cursor, count: int, bits: int) -> np.ndarray:
    """The next ``count`` codes, as ``packing.pack`` wrote them."""
    data = body.take(packed_size(count, bits), f"{count:,} values of {bits} bits")
    try:
        return unpack(data, count, bits)
    except ValueError as error:
        raise body.error(str(error)) from error


def raised(body: Cursor, above: np.ndarray, least: int, dtype: np.dtype) -> np.ndarray:
    """``least + above``, which has to fit ``dtype``."""
    if above.size and least + int(above.max()) > range_of(dtype)[1]:
        raise body.error(f"a value does not fit {dtype}")
    return (above.astype(np.int64) + least).astype(dtype)


# --------------------------------------------------------------------------------- half and brain


def encode_half(values: np.ndarray) -> Encoded | None:
    if values.dtype.kind != "f" or values.itemsize <= 2 or not np.isfinite(values).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        halves = values.astype("<f2")
    fitting = np.array_equal(halves.astype(values.dtype), values)
    return Encoded(halves.tobytes()) if fitting else None


def decode_half(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    if dtype.kind != "f" or dtype.itemsize <= 2:
        raise body.error(f"{dtype} values cannot be written as halves")
    data = body.take(2 * count_of(shape), f"{count_of(shape):,} halves")
    halves = np.frombuffer(data, "<f2")
    if not np.isfinite(halves).all():
        raise body.error("a half is no finite number")
    return Decoded(halves.astype(dtype).reshape(shape), "half", Cost(values=len(data)))


def encode_brain(values: np.ndarray) -> Encoded | None:
    if values.dtype != np.float32:
        return None
    bits = values.view(np.uint32)
    fitting = not (bits & 0xFFFF).any()
    return Encoded((bits >> 16).astype("<u2").tobytes()) if fitting else None


def decode_brain(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    if dtype != np.float32:
        raise body.error(f"{dtype} values cannot be written as upper halves of float32")
    data = body.take(2 * count_of(shape), f"{count_of(shape):,} upper halves")
    bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return Decoded(bits.view(np.float32).reshape(shape), "half (bfloat16)", Cost(values=len(data)))


CODECS: dict[int, Codec] = {
    RAW: Codec(encode_raw, decode_raw),
    PACKED: Codec(encode_packed, decode_packed),
    HALF: Codec(encode_half, decode_half),
    BRAIN: Codec(encode_brain, decode_brain),
}
