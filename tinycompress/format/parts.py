"""Halves in two parts: sign and exponent, which repeat, and mantissas, which do not.

A float16 is a sign, 5 bits of exponent and 10 of mantissa. Weights of a layer are of similar size,
so their exponents are few, and any codec for whole numbers writes them in less than 6 bits. A
mantissa looks like noise and is packed; but of mantissas that were rounded to fewer bits, the
zeros at their end are left out. So is one bias after the other written in 10 to 13 bits.

    bits     1 byte   m, of a mantissa: 0 to 10
    codec    1 byte   of the upper parts
    length   varint   of its body
    upper             what it wrote: 32 · sign + exponent, as uint8
    lower             the upper m bits of each mantissa, packed

Read ``dense.py`` before.
"""

from __future__ import annotations

import numpy as np

from tinycompress.format import adaptive, counted, dense, huffman
from tinycompress.format.codec import (
    Codec,
    Cost,
    Decoded,
    Encoded,
    Shape,
    count_of,
    decode_with,
    encode_among,
)
from tinycompress.format.cursor import Cursor, varint
from tinycompress.format.packing import pack

PARTS = 11
MANTISSA = 10
UPPER = np.dtype(np.uint8)
FOR_UPPER: dict[int, Codec] = {
    dense.RAW: dense.CODECS[dense.RAW],
    dense.PACKED: dense.CODECS[dense.PACKED],
    **huffman.CODECS,
    **counted.CODECS,
    **adaptive.CODECS,
}


def encode_parts(values: np.ndarray) -> Encoded | None:
    halves = dense.encode_half(values)
    if halves is None or not values.size:
        return None
    numbers = np.frombuffer(halves.data, "<u2")
    mantissas = numbers & (1 << MANTISSA) - 1
    used = int(np.bitwise_or.reduce(mantissas))
    bits = MANTISSA - (used & -used).bit_length() + 1 if used else 0
    codec, (upper, steps) = encode_among(FOR_UPPER, (numbers >> MANTISSA).astype(UPPER))
    lower = pack(mantissas >> MANTISSA - bits, bits) if bits else b""
    return Encoded(bytes([bits, codec]) + varint(len(upper)) + upper + lower, steps)


def decode_parts(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start, count = body.position, count_of(shape)
    bits, codec = body.byte("the bits of a mantissa"), body.byte("the codec of the exponents")
    if dtype.kind != "f" or dtype.itemsize <= 2 or bits > MANTISSA:
        raise body.error(f"{dtype} values cannot be halves with mantissas of {bits} bits")
    window = body.window(body.varint("the length of the exponents"), "the exponents")
    head = window.position - start
    upper, how, cost = decode_with(FOR_UPPER, codec, window, UPPER, (count,))
    lower = dense.read_packed(body, count, bits) if bits else np.zeros(count, np.uint16)
    if (upper & 31 == 31).any() or (upper > 63).any():
        raise body.error("a half is no finite number")
    numbers = upper.astype(np.uint16) << MANTISSA | lower.astype(np.uint16) << MANTISSA - bits
    cost += Cost(values=body.position - start - head - cost.total, tables=head)
    how = f"half, {1 + bits}-bit precision (exponents {how})"
    return Decoded(numbers.view(np.float16).astype(dtype).reshape(shape), how, cost)


CODECS: dict[int, Codec] = {PARTS: Codec(encode_parts, decode_parts)}
