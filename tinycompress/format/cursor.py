"""Bytes in order: a reader that never reads past the end, and the numbers that it meets.

Whole numbers ≥ 0 are written in groups of seven bits, the lowest group first; all bytes but the
last have their top bit set ("LEB128", as in DWARF and WebAssembly): 5 → ``05``, 300 → ``ac 02``.
A number that may be negative is first folded onto those ≥ 0, "zigzag": 0, −1, 1, −2 → 0, 1, 2, 3.
"""

from __future__ import annotations

from tinycompress.format.errors import FormatError

MAX_BITS = 63  # of a whole number in a file
MAX_STEPS = 1 << 23
"""Steps that reading a file may take, of a microsecond or so. A few bytes can say "a million
values, one by one"; so many and no more are believed, and no writer asks for more."""


def varint(number: int) -> bytes:
    """``number`` (0 ≤ number < 2⁶³) in groups of seven bits."""
    if not 0 <= number < 1 << MAX_BITS:
        raise ValueError(f"a .tcz file holds whole numbers from 0 to 2⁶³ − 1, not {number}")
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def zigzag(number: int) -> int:
    """Whole numbers onto those ≥ 0, small ones onto small ones."""
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(number: int) -> int:
    return number >> 1 if number % 2 == 0 else -(number >> 1) - 1


class Steps:
    """The steps that are left to the readers of a file."""

    def __init__(self) -> None:
        self.left = MAX_STEPS


class Cursor:
    """A place in ``data``, where what is read here ends, and how much work may be done for it.

    Every method that reads says ``what`` it expected, so that an error can name it.
    """

    def __init__(
        self, data: bytes, position: int = 0, end: int | None = None, steps: Steps | None = None
    ) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end
        self.steps = steps or Steps()

    def left(self) -> int:
        """How many bytes are still there."""
        return self.end - self.position

    def error(self, reason: str) -> FormatError:
        """An error at this place, to be raised."""
        return FormatError(self.position, reason)

    def window(self, length: int, what: str) -> Cursor:
        """The next ``length`` bytes as a cursor of their own; nothing is copied."""
        if length > self.left():
            raise self.error(
                f"{what} takes {length:,} bytes, but {self.left():,} are left: the file is "
                "truncated or damaged"
            )
        start, self.position = self.position, self.position + length
        return Cursor(self.data, start, self.position, self.steps)

    def spend(self, steps: int) -> None:
        """Take the steps that reading what follows needs from those that are left."""
        self.steps.left -= steps
        if self.steps.left < 0:
            raise self.error(f"reading this file would take more than {MAX_STEPS:,} steps")

    def take(self, length: int, what: str) -> bytes:
        """The next ``length`` bytes."""
        window = self.window(length, what)
        return self.data[window.position : window.end]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self.left(), "the rest")

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        start, number = self.position, 0
        for shift in range(0, MAX_BITS, 7):
            group = self.byte(what)
            number |= (group & 0x7F) << shift
            if group < 0x80:
                if group == 0 and shift:
                    raise FormatError(start, f"{what} is not written in the fewest bytes")
                return number
        raise FormatError(start, f"{what} is larger than 2⁶³ − 1")

    def finish(self, what: str) -> None:
        """Insist that everything was read."""
        if self.left():
            raise self.error(f"{self.left():,} bytes too many at the end of {what}")
