"""The relative sparse index of Deep Compression: how many zeros stand before each weight.

Instead of a place, the distance from the weight before is written, in b bits. Where b bits are not
enough there stands a *filler*, 2ᵇ − 1: that many zeros, and no weight. So for weights 3, 0, 0, 5
and eight zeros before a 7, with b = 2, the index is 0, 2, 3, 3, 2: two fillers, then the last two
zeros. Few bits make fillers, many bits are wasted on short distances; the best b depends on how
sparse the layer is, and every one is tried. (In the paper a filler is a weight of value zero,
which costs the bits of a value besides.) The paper then writes these numbers in a Huffman code.

Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
Quantization and Huffman Coding", 2015, section 2 and figure 2. Read ``sparse.py`` before.

    fill     zigzag     as in sparse.py
    bits     1 byte     b, 1 to 12
    entries  varint     how many numbers the index has, fillers included
    codec    1 byte     of the index
    length   varint     of the index, in bytes
    index               what the codec wrote for these numbers, as uint16
    codec    1 byte     of the values that are not left out
    others              what it wrote
"""

from __future__ import annotations

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
)
from tinycompress.format.cursor import Cursor, varint
from tinycompress.format.huffman import code_lengths
from tinycompress.format.inner import INNER
from tinycompress.format.sparse import read_fill, read_others, split, write_others

RELATIVE = 8
WIDEST = 12  # bits of a distance
INDEX_DTYPE = np.dtype(np.uint16)


def distances(kept: np.ndarray, bits: int) -> np.ndarray:
    """The index: zeros before each weight, with fillers where ``bits`` are not enough."""
    places = np.flatnonzero(kept)
    zeros = np.diff(places, prepend=-1) - 1
    filler = (1 << bits) - 1
    fillers, rest = np.divmod(zeros, filler)
    index = np.full(len(zeros) + int(fillers.sum()), filler, INDEX_DTYPE)
    index[np.cumsum(fillers + 1) - 1] = rest
    return index


def places(index: np.ndarray, bits: int) -> np.ndarray:
    """Where the weights stand: the inverse of :func:`distances`."""
    filler = (1 << bits) - 1
    step = index.astype(np.int64) + (index != filler)  # past the zeros, and past the weight
    return (np.cumsum(step) - 1)[index != filler]


def encode_relative(values: np.ndarray) -> Encoded | None:
    parts = split(values)
    if parts is None:
        return None
    fill, kept = parts
    bits, index = best_index(kept)
    number, coded = encode_among(INNER, index)
    head = bytes([bits]) + varint(len(index)) + bytes([number]) + varint(len(coded.data))
    others = write_others(values[kept])
    steps = len(index) + coded.steps + others.steps
    return Encoded(fill + head + coded.data + others.data, steps)


def best_index(kept: np.ndarray, huffman: bool = True) -> tuple[int, np.ndarray]:
    """(bits, index): the index that takes the fewest bits, packed or (if allowed) Huffman coded."""
    tries = [(bits, distances(kept, bits)) for bits in range(1, WIDEST + 1)]
    return min(tries, key=lambda pair: _bits_of(pair[1], pair[0], huffman))


def _bits_of(index: np.ndarray, bits: int, huffman: bool) -> int:
    packed = index.size * bits
    if not huffman:
        return packed
    counts = np.bincount(index)
    return min(packed, int(code_lengths(counts) @ counts) + 4 * counts.size)


def decode_relative(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    fill = read_fill(body, dtype)
    bits = body.byte("the width of the index")
    entries = body.varint("the length of the index")
    if not 1 <= bits <= WIDEST or entries > count_of(shape):
        raise body.error(f"an index of {entries:,} numbers of {bits} bits cannot be here")
    number = body.byte("the codec of the index")
    window = body.window(body.varint("the length of the index in bytes"), "the index")
    head = body.position - start - window.left()
    body.spend(entries)
    index = decode_with(INNER, number, window, INDEX_DTYPE, (entries,))
    kept = _mask(body, index.values, bits, shape)
    values, how, cost = read_others(body, kept, fill, dtype)
    cost += Cost(index.cost.index + index.cost.values, tables=head + index.cost.tables)
    return Decoded(values, f"relative {bits}-bit index ({index.how}), values ({how})", cost)


def _mask(body: Cursor, index: np.ndarray, bits: int, shape: Shape) -> np.ndarray:
    """The index as an array of booleans; it must be one that a writer makes."""
    if index.size and (index > (1 << bits) - 1).any():
        raise body.error(f"a distance does not fit {bits} bits")
    if index.size and index[-1] == (1 << bits) - 1:
        raise body.error("the index ends with a filler")
    where = places(index, bits)
    count = count_of(shape)
    if where.size and where[-1] >= count:
        raise body.error(f"the index goes to place {where[-1]:,} of {count:,}")
    kept = np.zeros(count, bool)
    kept[where] = True
    return kept.reshape(shape)


CODECS: dict[int, Codec] = {RELATIVE: Codec(encode_relative, decode_relative)}
