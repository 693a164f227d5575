"""Matrices without their dead rows and columns: outputs and inputs of which no weight is left.

Where whole units were pruned, it would be a waste to write their zeros one by one.

    fill     zigzag   the value that is left out, as in ``sparse.py``
    rows     ⌈r/8⌉    a bit for each of r rows, packed: 1 where any other value stands in it
    columns  ⌈c/8⌉    likewise; the first axis is the rows, all others together are the columns
    codec    1 byte   of the matrix that is left
    matrix            what it wrote: live rows times live columns
"""

from __future__ import annotations

import numpy as np

from tinycompress.format import sparse
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
from tinycompress.format.cursor import Cursor
from tinycompress.format.dense import read_packed
from tinycompress.format.inner import INNER

TRIMMED = 9
FOR_MATRIX = {**INNER, **sparse.CODECS}


def encode_trimmed(values: np.ndarray) -> Encoded | None:
    parts = sparse.split(values) if values.ndim > 1 else None
    if parts is None:
        return None
    kept = parts[1].reshape(len(values), -1)
    rows, columns = kept.any(1), kept.any(0)
    if rows.all() and columns.all():
        return None
    matrix = values.reshape(kept.shape)[np.ix_(rows, columns)]
    number, data = encode_among(FOR_MATRIX, matrix, (*sparse.QUICK, sparse.SPARSE))
    flags = np.packbits(rows).tobytes() + np.packbits(columns).tobytes()
    return data.after(parts[0] + flags + bytes([number]))


def decode_trimmed(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start = body.position
    fill = sparse.read_fill(body, dtype)
    if len(shape) < 2 or not shape[0]:
        raise body.error(f"shape {shape} has no rows and columns")
    head = body.position - start
    rows = read_packed(body, shape[0], 1).astype(bool)
    columns = read_packed(body, count_of(shape[1:]), 1).astype(bool)
    flags = body.position - start - head
    number = body.byte("the codec of the matrix")
    size = int(np.count_nonzero(rows)), int(np.count_nonzero(columns))
    matrix, how, cost = decode_with(FOR_MATRIX, number, body, dtype, size)
    values = np.full((len(rows), len(columns)), fill, dtype)
    values[np.ix_(rows, columns)] = matrix
    cost += Cost(flags, tables=head + 1)
    return Decoded(values.reshape(shape), f"trimmed to {size[0]}×{size[1]}: {how}", cost)


CODECS: dict[int, Codec] = {TRIMMED: Codec(encode_trimmed, decode_trimmed)}
