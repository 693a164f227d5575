"""The one error that reading a file can end in, besides the operating system's own."""

from __future__ import annotations


class FormatError(ValueError):
    """A ``.tcz`` file that is damaged, truncated, hostile, newer, or of classes unknown here.

    Attributes:
        offset: where in the file it shows, in bytes from the start.
        reason: what is wrong there, and what to do if something can be done.
        path: the file, where it is known.
    """

    def __init__(self, offset: int, reason: str, path: str | None = None) -> None:
        super().__init__(offset, reason, path)
        self.offset, self.reason, self.path = offset, reason, path

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        return f"{where}not a readable .tcz file (byte {self.offset}): {self.reason}"
