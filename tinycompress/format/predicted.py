"""Sparse arrays whose places and values are foretold by neighbours: the fewest bytes of all.

``neuron.py`` writes the places, ``sides.py`` the values of whole numbers, one after the other in
one range coder; ``neuron_fit.py`` finds their weights. An array is taken as a matrix: the first
axis is its rows, the others together are its columns.

    fill        zigzag    whole numbers only: the value that is left out (``sparse.py``)
    neuron      bytes     bias, column and row, signed; the number of lags; then for each one
                          its distance (varint) and its weight (signed byte)
    sides       …         whole numbers only: the least of the other values (zigzag), the span
                          and the pivot (varints), then bytes: bias, and a weight for each lag
    length      varint    floats only: of the range coder's bytes
    coded       bytes     the range coder: flags of rows and of columns, the mask, the values
    codec       1 byte    floats only: of the values that are not left out
    others                floats only: what it wrote

For whole numbers, a value is written as its distance from the least one, minus 1 if the value that
is left out lies between the two: so numbers count up without a hole.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinycompress.format.adaptive import WIDEST, Coder
from tinycompress.format.codec import Codec, Cost, Decoded, Encoded, Shape, count_of
from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.dense import raised, read_least
from tinycompress.format.neuron import Neuron, code_flags, code_mask
from tinycompress.format.neuron_fit import fit_neuron, fit_sides
from tinycompress.format.range_coder import RangeDecoder, RangeEncoder
from tinycompress.format.sides import Sides, code_values
from tinycompress.format.sparse import read_fill, read_others, split, write_others

PREDICTED = 10
MOST_LAGS = 16
MOST_VALUES, MOST_KEPT = 1 << 20, 1 << 16  # it is not tried for more


def encode_predicted(values: np.ndarray) -> Encoded | None:
    if values.size > MOST_VALUES:
        return None
    parts = (b"", values) if values.dtype.kind == "b" else split(values)
    if parts is None or not 1 <= np.count_nonzero(parts[1]) <= MOST_KEPT:
        return None
    fill, kept = parts[0], parts[1].reshape(_matrix(values.shape))
    neuron, coder = fit_neuron(kept), RangeEncoder()
    head, steps = fill + _neuron_bytes(neuron), sum(kept.shape)
    rows, columns = _live(coder, kept)
    steps += _mask_steps(rows, columns)
    code_mask(coder, neuron, rows, columns, kept)
    if values.dtype.kind == "b":
        return Encoded(head + coder.finish(), steps)
    others = values.reshape(kept.shape)[kept]
    if values.dtype.kind == "f":
        coded, (data, more) = coder.finish(), write_others(others)
        return Encoded(head + varint(len(coded)) + coded + data, steps + more)
    least = int(others.min())
    if int(others.max()) - least > 1 << WIDEST or abs(least) >= 1 << 62:
        return None
    numbers = _without_hole(others, least, unzigzag(Cursor(fill).varint("the fill")))
    span = int(numbers.max()) + 1
    if span > 1 << WIDEST:
        return None
    sides = fit_sides(kept, numbers, span, [lag for lag, _ in neuron.lags])
    code_values(coder, sides, kept, numbers.tolist())
    head += varint(zigzag(least)) + _sides_bytes(sides)
    return Encoded(head + coder.finish(), steps + _value_steps(len(numbers), span))


def decode_predicted(body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    start, matrix = body.position, _matrix(shape)
    fill = 0 if dtype.kind == "b" else read_fill(body, dtype)
    neuron = _read_neuron(body, matrix[1])
    if dtype.kind in "iu":
        least = read_least(body, dtype)
        sides = _read_sides(body, [lag for lag, _ in neuron.lags])
    window = body
    if dtype.kind == "f":
        window = body.window(body.varint("the length of the places"), "the places")
    tables = window.position - start
    coder = RangeDecoder(window)
    kept = _read_mask(body, coder, neuron, matrix).reshape(shape)
    if dtype.kind in "fb":
        coder.finish()
        cost = Cost(window.position - start - tables, tables=tables)
        if dtype.kind == "b":
            return Decoded(kept, "predicted", cost)
        values, how, others = read_others(body, kept, fill, dtype)
        return Decoded(values, f"predicted places, values ({how})", cost + others)
    index = coder.used()
    count = int(np.count_nonzero(kept))
    body.spend(_value_steps(count, sides.span))
    numbers = np.array(code_values(coder, sides, kept.reshape(matrix), [0] * count), np.int64)
    coder.finish()
    values = np.full(shape, fill, dtype)
    values[kept] = _with_hole(body, numbers, least, fill, dtype)
    cost = Cost(index, body.position - start - tables - index, tables)
    return Decoded(values, "predicted", cost)


def _matrix(shape: Shape) -> tuple[int, int]:
    """(rows, columns) of an array of this shape."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, count_of(shape[1:]) if len(shape) > 1 else count_of(shape)


def _without_hole(values: np.ndarray, least: int, fill: int) -> np.ndarray:
    """Values counted from the least one, as if there were no value ``fill``."""
    numbers = values.astype(np.int64) - least
    return numbers - ((least < fill) & (numbers > fill - least))


def _with_hole(
    body: Cursor, numbers: np.ndarray, least: int, fill: int, dtype: np.dtype
) -> np.ndarray:
    return raised(body, numbers + ((least < fill) & (numbers >= fill - least)), least, dtype)


def _read_mask(
    body: Cursor, coder: RangeDecoder, neuron: Neuron, matrix: tuple[int, int]
) -> np.ndarray:
    """The mask of (rows, columns). What it takes is known once the dead ones are."""
    body.spend(sum(matrix))
    blank = np.zeros(matrix, bool)
    rows, columns = _live(coder, blank)
    body.spend(_mask_steps(rows, columns))
    return code_mask(coder, neuron, rows, columns, blank)


def _live(coder: Coder, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns in which anything is kept, written or read."""
    flags = (np.asarray(mask.any(axis)) for axis in (1, 0))
    rows, columns = (code_flags(coder, each) for each in flags)
    return rows, columns


def _mask_steps(rows: np.ndarray, columns: np.ndarray) -> int:
    """One for each weight that is not in a dead row or column, and some for each row."""
    return len(rows) * (len(columns) + 256)


def _value_steps(count: int, span: int) -> int:
    return count * (4 + span.bit_length())


# ------------------------------------------------------------------------------- neuron and sides


def _signed(numbers: Iterable[int]) -> bytes:
    return b"".join(n.to_bytes(1, signed=True) for n in numbers)


def _read_signed(body: Cursor, count: int) -> list[int]:
    return np.frombuffer(body.take(count, "weights"), np.int8).tolist()


def _neuron_bytes(neuron: Neuron) -> bytes:
    lags = b"".join(varint(lag) + _signed([weight]) for lag, weight in neuron.lags)
    return _signed([neuron.bias, neuron.column, neuron.row]) + bytes([len(neuron.lags)]) + lags


def _read_neuron(body: Cursor, columns: int) -> Neuron:
    bias, column, row = _read_signed(body, 3)
    lags = []
    for _ in range(body.byte("the number of neighbours")):
        lags.append((body.varint("a distance"), _read_signed(body, 1)[0]))
    if len(lags) > MOST_LAGS or not all(0 < lag < columns for lag, _ in lags):
        raise body.error(f"{len(lags)} such neighbours cannot be in a row of {columns:,}")
    return Neuron(bias, column, row, tuple(lags))


def _sides_bytes(sides: Sides) -> bytes:
    weights = [sides.bias, *(weight for _, weight in sides.lags)]
    return varint(sides.span) + varint(sides.pivot) + _signed(weights)


def _read_sides(body: Cursor, lags: list[int]) -> Sides:
    span, pivot = body.varint("the span"), body.varint("the pivot")
    if not 0 < span <= 1 << WIDEST or pivot > span:
        raise body.error(f"there are no sides of {pivot:,} in a span of {span:,}")
    bias, *weights = _read_signed(body, 1 + len(lags))
    return Sides(span, pivot, bias, tuple(zip(lags, weights, strict=True)))


CODECS: dict[int, Codec] = {PREDICTED: Codec(encode_predicted, decode_predicted)}
