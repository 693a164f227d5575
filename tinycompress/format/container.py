"""The container: magic, version, and sections that carry their length and a checksum.

    magic      4 bytes   89 54 43 5a: a byte that is no text, and "TCZ"
    version    1 byte    1
    sections, one after the other to the end of the file:
      kind     1 byte    1 architecture, 2 tensors
      length   varint    of the content, in bytes
      content
      CRC-32   4 bytes   little-endian

The checksum (zlib's CRC-32) is of everything in the file up to there, except the checksums of
earlier sections. So it covers the header, too, and a section cannot come from another file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from tinycompress.format.cursor import Cursor, varint
from tinycompress.format.errors import FormatError

MAGIC = b"\x89TCZ"
VERSION = 1
ARCHITECTURE, TENSORS = 1, 2
KINDS = {ARCHITECTURE: "architecture", TENSORS: "tensors"}
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Section:
    """A section that was read: its kind, where it starts, its bytes in all, and its content."""

    kind: int
    offset: int
    bytes: int
    content: Cursor


def write_container(sections: Iterable[tuple[int, bytes]]) -> bytes:
    """A whole file of (kind, content) pairs."""
    out = MAGIC + bytes([VERSION])
    checksum = zlib.crc32(out)
    for kind, content in sections:
        section = bytes([kind]) + varint(len(content)) + content
        checksum = zlib.crc32(section, checksum)
        out += section + checksum.to_bytes(CHECKSUM_BYTES, "little")
    return out


def read_container(data: bytes) -> list[Section]:
    """The sections of a whole file, whose checksums are right.

    Raises:
        FormatError: it is no such file, a newer one, or damaged.
    """
    cursor = Cursor(data)
    head = _read_header(cursor)
    sections, checksum = [], zlib.crc32(head)
    while cursor.left():
        section, checksum = _read_section(cursor, checksum)
        sections.append(section)
    if [section.kind for section in sections] != list(KINDS):
        names = ", ".join(KINDS.get(s.kind, f"kind {s.kind}") for s in sections) or "none"
        raise cursor.error(
            f"the sections are {names}; expected {', '.join(KINDS.values())} (truncated?)"
        )
    return sections


def _read_header(cursor: Cursor) -> bytes:
    magic = cursor.take(min(len(MAGIC), cursor.left()), "the magic")
    if magic != MAGIC:
        found = f"starts with {magic.hex(' ')}" if magic else "is empty"
        raise FormatError(0, f"it {found}, and a .tcz file starts with {MAGIC.hex(' ')}")
    version = cursor.byte("the version")
    if version > VERSION:
        raise FormatError(
            len(MAGIC),
            f"it has version {version} of the format, and this tinycompress reads up to {VERSION}; "
            "update tinycompress",
        )
    if version < 1:
        raise FormatError(len(MAGIC), "version 0 of the format does not exist")
    return magic + bytes([version])


def _read_section(cursor: Cursor, checksum: int) -> tuple[Section, int]:
    start = cursor.position
    kind = cursor.byte("the kind of a section")
    name = f"the section {KINDS.get(kind, kind)}"
    content = cursor.window(cursor.varint(f"the length of {name}"), name)
    checksum = zlib.crc32(memoryview(cursor.data)[start : content.end], checksum)
    stored = int.from_bytes(cursor.take(CHECKSUM_BYTES, f"the checksum of {name}"), "little")
    if stored != checksum:
        raise FormatError(
            start,
            f"{name} is damaged: its CRC-32 is {checksum:08x}, and the file says {stored:08x}",
        )
    return Section(kind, start, cursor.position - start, content), checksum
