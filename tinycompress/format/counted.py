"""A range coder with a table: each value costs −log₂ of its share, and the shares are in the file.

Shares are whole numbers that add up to 2¹⁶, at least 1 for every value that occurs.
Read ``range_coder.py`` before; ``adaptive.py`` does without the table, and is slower.

The codec: how many values there are from the least to the greatest (varint); the least, zigzag;
the share of each of them but the last, varints; then the values, in a range coder.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from tinycompress.format.codec import Codec, Cost, Decoded, Encoded, Shape, count_of
from tinycompress.format.cursor import Cursor, varint, zigzag
from tinycompress.format.dense import raised, read_least
from tinycompress.format.range_coder import WHOLE, RangeDecoder, RangeEncoder

COUNTED = 6
MAX_SPAN = 1 << 12  # values from the least to the greatest, counted
MOST_VALUES = 1 << 20  # it is not tried for more


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to ``counts`` that add up to 2¹⁶; 0 only where the count is 0."""
    present = counts > 0
    shares = present + counts * (WHOLE - np.count_nonzero(present)) // counts.sum()
    shares[shares.argmax()] += WHOLE - shares.sum()
    return shares


def encode_counted(values: np.ndarray) -> Encoded | None:
    if values.dtype.kind not in "iub" or not 0 < values.size <= MOST_VALUES:
        return None
    least = int(values.min())
    span = int(values.max()) - least + 1
    if span > MAX_SPAN or abs(least) >= 1 << 62:
        return None
    symbols = values.ravel().astype(np.int64) - least
    counts = np.bincount(symbols)
    if len(symbols) > 1 << 16 and 2 * counts.max() > len(symbols):
        return None  # it would be slow, and a sparse codec is better
    shares = shares_of(counts)
    starts = np.cumsum(shares) - shares
    coder = RangeEncoder()
    pieces = list(zip(starts.tolist(), shares.tolist(), strict=True))
    for symbol in symbols.tolist():
        coder.interval(*pieces[symbol])
    table = b"".join(map(varint, shares[:-1].tolist()))
    head = varint(span) + varint(zigzag(least)) + table
    return Encoded(head + coder.finish(), span + values.size)


def decode_counted(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    span = body.varint("the number of values that have a share")
    if dtype.kind not in "iub" or not 1 <= span <= MAX_SPAN:
        raise body.error(f"{dtype} values cannot have a table of {span:,}")
    least = read_least(body, dtype)
    body.spend(span + count_of(shape))
    shares = [body.varint("a share") for _ in range(span - 1)]
    shares.append(WHOLE - sum(shares))
    if min(shares[0], shares[-1]) < 1:
        raise body.error("the shares of the values do not add up to the whole")
    cost = Cost(values=body.end - body.position, tables=body.position - start)
    above = _symbols(RangeDecoder(body), shares, count_of(shape))
    return Decoded(raised(body, above, least, dtype).reshape(shape), "range coded", cost)


def _symbols(coder: RangeDecoder, shares: list[int], count: int) -> np.ndarray:
    starts = np.cumsum(shares) - shares
    pieces = list(zip(starts.tolist(), shares, strict=True))
    ends, symbols = np.cumsum(shares).tolist(), []
    for _ in range(count):
        symbol = bisect_right(ends, coder.slot())
        coder.interval(*pieces[symbol])
        symbols.append(symbol)
    coder.finish()
    return np.array(symbols, np.int64)


CODECS: dict[int, Codec] = {COUNTED: Codec(encode_counted, decode_counted)}
