"""What a codec is: two functions, from an array to bytes and back. ``codecs.py`` lists them all.

A codec never says where its bytes end and how many values they hold: whoever uses it knows both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinycompress.format.cursor import MAX_STEPS, Cursor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What the bytes of a body are for.

    Attributes:
        index: where the values stand that are not left out.
        values: the values themselves.
        tables: what a reader must know before: code tables, widths, the least value.
    """

    index: int = 0
    values: int = 0
    tables: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.index + other.index, self.values + other.values, self.tables + other.tables
        )

    @property
    def total(self) -> int:
        return self.index + self.values + self.tables


class Encoded(NamedTuple):
    """Bytes, and how many steps of a loop a reader takes for them (``cursor.py: MAX_STEPS``)."""

    data: bytes
    steps: int = 0

    def after(self, head: bytes) -> Encoded:
        """The same with ``head`` before it."""
        return Encoded(head + self.data, self.steps)


class Decoded(NamedTuple):
    """The values, how they were written in words, and what the bytes were for."""

    values: np.ndarray
    how: str
    cost: Cost


class Codec(NamedTuple):
    """A way to write an array.

    Attributes:
        encode: gives None where it does not suit the array.
        decode: reads all of its cursor: values of a dtype and a shape. It spends the steps that
            the encoder has counted.
    """

    encode: Callable[[np.ndarray], Encoded | None]
    decode: Callable[[Cursor, np.dtype, Shape], Decoded]


def encode_among(
    codecs: Mapping[int, Codec],
    values: np.ndarray,
    among: Iterable[int] | None = None,
    steps: int = MAX_STEPS,
) -> tuple[int, Encoded]:
    """(number of the codec that needs the fewest bytes, those bytes); of equals the lowest number.

    Args:
        codecs: by number.
        values: C order.
        among: numbers of those to try (None: all). One of them must suit.
        steps: how many steps reading may take. Raw values, which always suit, take none.
    """
    tried = ((n, codecs[n].encode(values)) for n in sorted(codecs if among is None else among))
    fitting = ((n, body) for n, body in tried if body is not None and body.steps <= steps)
    return min(fitting, key=lambda pair: len(pair[1].data))


def decode_with(
    codecs: Mapping[int, Codec], number: int, body: Cursor, dtype: np.dtype, shape: Shape
) -> Decoded:
    """The array that ``body`` holds, all of it.

    Raises:
        FormatError: ``codecs`` has no such number, or ``body`` is not what it writes.
    """
    if number not in codecs:
        raise body.error(f"codec {number} is not known here: a newer tinycompress wrote this file")
    decoded = codecs[number].decode(body, dtype, shape)
    body.finish("a tensor")
    return decoded


def range_of(dtype: np.dtype) -> tuple[int, int]:
    """The least and the greatest whole number of an integer dtype, or of bool."""
    return (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def count_of(shape: Shape) -> int:
    """How many values an array of this shape has."""
    return math.prod(shape)
