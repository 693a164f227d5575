"""The range coder: a message as one number, in as many bits as its probability says.

Think of all messages as the interval from 0 to 1. Each decision cuts the interval in pieces as long
as the outcomes are probable, and goes on with the piece of what happened. At the end any number in
the last piece tells the whole message; the piece is as long as the product of all probabilities,
so the number has about −log₂ of it in bits. A decision of probability 0.99 costs 0.0145 bits,
where a Huffman code pays one.

The interval is kept as 32 bits of its beginning, ``low``, and its length, ``range``, in whole
numbers. When the length falls below 2²⁴, the first byte of ``low`` is written and both grow by a
factor of 256. An addition to ``low`` may still carry into bytes that were written: then these are
raised as well.

The encoder and the decoder have the same methods, so that a model is written once for both: given
an outcome, the encoder writes it and the decoder ignores it; both return it.

Martin, "Range encoding: an algorithm for removing redundancy from a digitised message", 1979.
Schindler's carry, 1998; Witten, Neal and Cleary, "Arithmetic Coding for Data Compression", 1987.
"""

from __future__ import annotations

from tinycompress.format.cursor import Cursor

BITS = 16  # of a probability
WHOLE = 1 << BITS
TOP, BOTTOM = 1 << 32, 1 << 24


class RangeEncoder:
    """Decisions to bytes."""

    def __init__(self) -> None:
        self.low, self.range = 0, TOP - 1
        self.out = bytearray()

    def bit(self, probability: int, bit: int) -> int:
        """Write a bit that is 1 with ``probability`` / 2¹⁶, 0 < probability < 2¹⁶; returns it."""
        ones = (self.range >> BITS) * probability
        if bit:
            self.range = ones
        else:
            self.low += ones
            self.range -= ones
        if self.range < BOTTOM:
            self._shift()
        return bit

    def interval(self, start: int, size: int) -> None:
        """Write an outcome that has the part from ``start`` of length ``size`` of 2¹⁶."""
        step = self.range >> BITS
        self.low += step * start
        self.range = step * size
        self._shift()

    def _shift(self) -> None:
        while self.range < BOTTOM:
            self._put(self.low >> 24)
            self.low = (self.low & BOTTOM - 1) << 8
            self.range <<= 8

    def _put(self, byte: int) -> None:
        """The next byte; where it is 256 or more, what exceeds a byte is carried."""
        self.out.append(byte & 0xFF)
        if byte > 0xFF:
            place = len(self.out) - 2
            while self.out[place] == 0xFF:
                self.out[place] = 0
                place -= 1
            self.out[place] += 1

    def finish(self) -> bytes:
        """All bytes: the fewest that say a number in the interval, if zeros follow them."""
        for count in range(5):
            unit = TOP >> 8 * count
            number = -(-self.low // unit) * unit
            if number < self.low + self.range:
                break
        for _ in range(max(count, 1)):  # at least one, for what is carried
            self._put(number >> 24)
            number = (number & BOTTOM - 1) << 8
        return bytes(self.out).rstrip(b"\0")


class RangeDecoder:
    """Bytes to decisions: all that are left at a cursor. After the end come zeros."""

    def __init__(self, body: Cursor) -> None:
        self.body = body
        self.data, self.start, self.end = body.data, body.position, body.end
        self.position = self.start
        if self.end > self.position and self.data[self.end - 1] == 0:
            raise body.error("a range coder does not end with a zero")
        self.low, self.range = 0, TOP - 1  # ``low`` counts from the beginning of the interval
        for _ in range(4):
            self.low = self.low << 8 | self._next()

    def bit(self, probability: int, bit: int = 0) -> int:
        ones = (self.range >> BITS) * probability
        if self.low < ones:
            self.range, bit = ones, 1
        else:
            self.low -= ones
            self.range -= ones
            bit = 0
        if self.range < BOTTOM:
            self._shift()
        return bit

    def slot(self) -> int:
        """Which of the 2¹⁶ parts of the interval the number is in, for :meth:`interval`."""
        return min(self.low // (self.range >> BITS), WHOLE - 1)

    def interval(self, start: int, size: int) -> None:
        step = self.range >> BITS
        self.low -= step * start
        self.range = step * size
        self._shift()

    def _shift(self) -> None:
        while self.range < BOTTOM:
            self.low = (self.low << 8 | self._next()) & TOP - 1
            self.range <<= 8

    def _next(self) -> int:
        self.position += 1
        return self.data[self.position - 1] if self.position <= self.end else 0

    def used(self) -> int:
        """How many bytes the outcomes up to here have taken."""
        return max(min(self.position - 4, self.end) - self.start, 0)

    def finish(self) -> None:
        """Insist that everything was read."""
        self.body.position = min(self.position, self.end)
        self.body.finish("a range coder's bytes")
