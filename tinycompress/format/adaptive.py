"""Models that learn while they code: they begin without an idea, and no table is in the file.

A bit that was 1 in k of n cases is 1 the next time with probability (k + ½) / (n + 1): the
estimate of Krichevsky and Trofimov, which costs at most ½ log₂ n + 1 bits more than knowing the
share before. A whole number of b bits is b such bits, the highest first; each has an estimate of
its own for every beginning, so they make a binary tree of 2ᵇ − 1 estimates.

Krichevsky and Trofimov, "The Performance of Universal Encoding", 1981. Read ``range_coder.py``
before; ``counted.py`` is the other way, with a table.

The codec: one byte b, 0 to 12; the least value, zigzag; then every value minus the least, in
a range coder.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tinycompress.format.codec import Codec, Cost, Decoded, Encoded, Shape, count_of
from tinycompress.format.cursor import Cursor, varint, zigzag
from tinycompress.format.dense import raised, read_least
from tinycompress.format.range_coder import WHOLE, RangeDecoder, RangeEncoder

ADAPTIVE = 7
WIDEST = 12  # bits of a value
MOST_STEPS = 1 << 18  # it is not tried where it would take longer
FORGET = 1 << 12  # cases; then all counts are halved

Coder = RangeEncoder | RangeDecoder


class AdaptiveBit:
    """A bit whose probability is that of the cases before."""

    __slots__ = ("cases", "ones", "probability")

    def __init__(self) -> None:
        self.ones = self.cases = 0
        self.probability = WHOLE >> 1

    def code(self, coder: Coder, bit: int = 0) -> int:
        bit = coder.bit(self.probability, bit)
        self.ones += bit
        self.cases += 1
        if self.cases == FORGET:
            self.ones, self.cases = self.ones >> 1, self.cases >> 1
        self.probability = WHOLE * (2 * self.ones + 1) // (2 * self.cases + 2)
        return bit


class AdaptiveNumber:
    """A whole number below 2ᵇ, as a tree of adaptive bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.tree: defaultdict[int, AdaptiveBit] = defaultdict(AdaptiveBit)  # 1: no bit is known

    def code(self, coder: Coder, number: int = 0) -> int:
        node = 1
        for place in range(self.bits - 1, -1, -1):
            node = 2 * node + self.tree[node].code(coder, number >> place & 1)
        return node - (1 << self.bits)


def encode_adaptive(values: np.ndarray) -> Encoded | None:
    if values.dtype.kind not in "iub" or not values.size:
        return None
    least = int(values.min())
    bits = (int(values.max()) - least).bit_length()
    steps = values.size * bits
    if bits > WIDEST or abs(least) >= 1 << 62 or steps > MOST_STEPS:
        return None
    coder, model = RangeEncoder(), AdaptiveNumber(bits)
    for number in (values.ravel().astype(np.int64) - least).tolist():
        model.code(coder, number)
    return Encoded(bytes([bits]) + varint(zigzag(least)) + coder.finish(), steps)


def decode_adaptive(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    bits = body.byte("the number of bits per value")
    if dtype.kind not in "iub" or bits > WIDEST:
        raise body.error(f"{dtype} values of {bits} bits cannot be written adaptively")
    least = read_least(body, dtype)
    cost = Cost(values=body.end - body.position, tables=body.position - start)
    body.spend(count_of(shape) * bits)
    if not bits:
        return Decoded(np.full(shape, least, dtype), "adaptive", cost)
    coder, model = RangeDecoder(body), AdaptiveNumber(bits)
    above = np.array([model.code(coder) for _ in range(count_of(shape))], np.int64)
    coder.finish()
    return Decoded(raised(body, above, least, dtype).reshape(shape), "adaptive", cost)


CODECS: dict[int, Codec] = {ADAPTIVE: Codec(encode_adaptive, decode_adaptive)}
