"""Canonical Huffman codes: frequent values in few bits, rare ones in more.

A Huffman code gives the value of probability p a codeword of about −log₂ p bits, none of which is
the beginning of another one; no code of whole bits per value is shorter. It is *canonical* if
codewords are numbered by length and then by value: then the lengths say everything, and a file
need not hold the codewords. Here no codeword is longer than 15 bits, so that 4 bits say a length.

The best lengths under such a limit come from a purse of coins (*package-merge*). A value may buy a
coin of face ½ at the price of its count, one of ¼, one of ⅛ …, and a codeword of l bits is l
coins. The cheapest coins whose faces add up to n − 1 are the code; two coins of a face, bundled,
are offered beside those of the next larger one.

Huffman, "A Method for the Construction of Minimum-Redundancy Codes", 1952. Larmore and Hirschberg,
"A Fast Algorithm for Optimal Length-Limited Huffman Codes", 1990. Read ``packing.py`` before.

The body of the codec: how many values there are from the least to the greatest (varint; 0 for an
empty array, 1 if all are the same); the least, zigzag; the length of each one's codeword in 4
bits, 0 for a value that does not occur; then the codewords, one after the other.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tinycompress.format.codec import Codec, Cost, Decoded, Encoded, Shape, count_of
from tinycompress.format.cursor import Cursor, varint, zigzag
from tinycompress.format.dense import raised, read_least, read_packed
from tinycompress.format.packing import pack

HUFFMAN = 5
LONGEST = 15  # bits of a codeword
MAX_SPAN = 1 << 12  # values from the least to the greatest, counted
BLOCK = 1 << 16  # bits that are decoded at once


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of each value's codeword: 0 where the count is 0, and where only one value occurs.

    Ties go to the smaller value, so the lengths are the same everywhere.

    Args:
        counts: how often each value occurs; at most 2¹⁵ of them occur at all.
    """
    lengths = np.zeros(len(counts), np.int64)
    present = np.flatnonzero(counts)
    coins = sorted((int(counts[i]), (int(i),)) for i in present)
    offered: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        pairs = zip(offered[::2], offered[1::2], strict=False)
        bundles = [(a[0] + b[0], a[1] + b[1]) for a, b in pairs]
        offered = sorted(coins + bundles, key=lambda offer: offer[0])
    for _, members in offered[: max(2 * len(coins) - 2, 0)]:
        np.add.at(lengths, list(members), 1)  # a bundle may hold two coins of one value
    return lengths


def codewords(lengths: np.ndarray) -> np.ndarray:
    """The canonical codewords, as numbers of so many bits.

    Counted upwards through all values, the shorter codewords first: each is the one before, plus
    1, with as many zeros added as it is longer.
    """
    codes = np.zeros(len(lengths), np.int64)
    order = _by_length(lengths)
    for before, now in pairwise(order):
        codes[now] = codes[before] + 1 << lengths[now] - lengths[before]
    return codes


def _by_length(lengths: np.ndarray) -> np.ndarray:
    """The values that have codewords, in the order of these."""
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def encode_symbols(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """The codewords of ``symbols``, one after the other; the last byte is filled up with zeros."""
    size, code = lengths[symbols], codewords(lengths)[symbols]
    start = np.cumsum(size) - size
    bits = np.zeros(int(size.sum()), np.uint8)
    for i in range(int(lengths.max(initial=0))):  # bit i of all codewords that have one
        long = size > i
        bits[start[long] + i] = code[long] >> size[long] - 1 - i & 1
    return np.packbits(bits).tobytes()


def decode_symbols(body: Cursor, count: int, lengths: np.ndarray) -> np.ndarray:
    """The ``count`` symbols at ``body``: the inverse of :func:`encode_symbols`.

    Which codeword starts at a bit, if one does, is looked up for all bits of a block at once; then
    the decoder jumps from codeword to codeword.
    """
    order = _by_length(lengths)
    table = np.repeat(order, 1 << LONGEST - lengths[order])  # by the next 15 bits
    longest = int(lengths.max())
    data = np.frombuffer(body.data, np.uint8)[body.position : body.end]
    symbols: list[np.ndarray] = []
    position, found = 0, 0
    while found < count:
        windows = _windows(data, position, longest)
        here = table[windows]
        places = _jump(lengths[here].tolist(), count - found)
        symbols.append(here[places])
        position += places[-1] + int(lengths[here[places[-1]]])
        found += len(places)
        if position > 8 * len(data):
            raise body.error(f"{count:,} values are more than are here")
    used = body.take(-(-position // 8), f"{count:,} codewords")
    if position % 8 and used[-1] & (1 << 8 - position % 8) - 1:
        raise body.error("the bits after the last codeword must be 0")
    return np.concatenate(symbols)


def _windows(data: np.ndarray, position: int, longest: int) -> np.ndarray:
    """The 15 bits that follow each bit from ``position`` to the end of a block, as numbers."""
    first = position // 8
    size = min(BLOCK // 8, len(data) - first + 1)
    block = np.zeros(size + 4, np.uint8)  # zeros after the end
    there = data[first : first + len(block)]
    block[: len(there)] = there
    bits = np.unpackbits(block).astype(np.uint16)[position % 8 :]
    width = len(bits) - LONGEST
    windows = np.zeros(width, np.uint16)
    for i in range(longest):
        windows |= bits[i : i + width] << LONGEST - 1 - i
    return windows


def _jump(lengths: list[int], most: int) -> list[int]:
    """Where codewords start, if the first starts at 0: at most ``most`` of them, in this block."""
    places: list[int] = []
    place, end = 0, len(lengths)
    while place < end and len(places) < most:
        places.append(place)
        place += lengths[place]
    return places


# ------------------------------------------------------------------------------------- the codec


def encode_huffman(values: np.ndarray) -> Encoded | None:
    if values.dtype.kind not in "iub":
        return None
    if not values.size:
        return Encoded(varint(0))
    least = int(values.min())
    span = int(values.max()) - least + 1
    if span > MAX_SPAN or abs(least) >= 1 << 62:
        return None
    symbols = values.ravel().astype(np.int64) - least
    head = varint(span) + varint(zigzag(least))
    if span == 1:
        return Encoded(head)
    lengths = code_lengths(np.bincount(symbols, minlength=span))
    coded = encode_symbols(symbols, lengths)
    return Encoded(head + pack(lengths, 4) + coded, steps_for(values.size))


def steps_for(count: int) -> int:
    return 256 + count // 4  # its loop is a quick one


def decode_huffman(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start, count = body.position, count_of(shape)
    span = body.varint("the number of values that a code is for")
    if dtype.kind not in "iub" or span > MAX_SPAN or (span == 0) != (count == 0):
        raise body.error(f"{count:,} values of {dtype} cannot have a code for {span:,}")
    if span == 0:
        return Decoded(np.zeros(shape, dtype), "Huffman", Cost(tables=1))
    least = read_least(body, dtype)
    if span == 1:
        return Decoded(np.full(shape, least, dtype), "Huffman", Cost(tables=body.position - start))
    lengths = _read_lengths(body, span)
    head = body.position - start
    body.spend(steps_for(count))
    above = decode_symbols(body, count, lengths)
    values = raised(body, above, least, dtype).reshape(shape)
    return Decoded(values, "Huffman", Cost(values=body.position - start - head, tables=head))


def _read_lengths(body: Cursor, span: int) -> np.ndarray:
    """The lengths of a code that has a value for every stream of bits."""
    lengths = read_packed(body, span, 4).astype(np.int64)
    used = lengths[lengths > 0]
    if int((1 << LONGEST - used).sum()) != 1 << LONGEST:  # Kraft: the sum of 2^−l is 1
        raise body.error("the lengths of the codewords are those of no code")
    return lengths


CODECS: dict[int, Codec] = {HUFFMAN: Codec(encode_huffman, decode_huffman)}
