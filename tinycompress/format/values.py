"""JSON values in few bytes: how a file writes down its architecture.

A value starts with one byte, its tag:

    00–7f  the word of that number (``words.py``)      f0  null
    80–bf  the whole number tag − 80                   f1  false
    c0–cf  a list of tag − c0 values, which follow     f2  true
    d0–df  a mapping of tag − d0 pairs: key, value …   f3  a whole number: zigzag varint
    e0–ef  a string of tag − e0 bytes of UTF-8         f4  a float64, little-endian
                                                       f5  a string: varint bytes, UTF-8
                                                       f6  a list: varint items, then these
                                                       f7  a mapping: varint pairs, then these

``["lenet-5", {}, {"fc1": "Identity"}]`` becomes ``c3 02 d0 d1 43 0d``: 6 bytes, and 33 in JSON.
"""

from __future__ import annotations

import struct
from typing import Any

from tinycompress.format.cursor import Cursor, unzigzag, varint, zigzag
from tinycompress.format.words import NUMBERS, WORDS

MAX_DEPTH = 64  # of values within values

SMALL_INTEGER, LIST, MAPPING, STRING = 0x80, 0xC0, 0xD0, 0xE0
NULL, FALSE, TRUE, INTEGER, FLOAT, LONG_STRING, LONG_LIST, LONG_MAPPING = range(0xF0, 0xF8)
CONSTANTS: dict[int, Any] = {NULL: None, FALSE: False, TRUE: True}


def write_value(value: Any, depth: int = 0) -> bytes:
    """``value`` as bytes.

    Args:
        value: None, a bool, int, float or string, or a list or mapping (with string keys) of them.

    Raises:
        TypeError: another type is in it; the message names it.
        ValueError: it is nested deeper than 64 levels, or an integer needs more than 62 bits.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return bytes([{None: NULL, False: FALSE, True: TRUE}[value]])
    if isinstance(value, int):
        if 0 <= value < LIST - SMALL_INTEGER:
            return bytes([SMALL_INTEGER + value])
        return bytes([INTEGER]) + varint(zigzag(value))
    if isinstance(value, float):
        return struct.pack("<Bd", FLOAT, value)
    if isinstance(value, str):
        return _write_string(value)
    if isinstance(value, list | tuple):
        items = b"".join(write_value(item, depth + 1) for item in value)
        return _head(LIST, LONG_LIST, len(value)) + items
    if isinstance(value, dict):
        return _head(MAPPING, LONG_MAPPING, len(value)) + _write_pairs(value, depth + 1)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which is no JSON value")


def _write_string(value: str) -> bytes:
    if value in NUMBERS:
        return bytes([NUMBERS[value]])
    text = value.encode()
    return _head(STRING, LONG_STRING, len(text)) + text


def _write_pairs(mapping: dict[Any, Any], depth: int) -> bytes:
    for key in mapping:
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} is a {type(key).__name__}, and must be a string")
    return b"".join(_write_string(k) + write_value(v, depth) for k, v in mapping.items())


def _head(short: int, long: int, count: int) -> bytes:
    """The tag of something that has a length, with the length."""
    return bytes([short + count]) if count < 16 else bytes([long]) + varint(count)


def read_value(cursor: Cursor, depth: int = 0) -> Any:
    """The value that starts at ``cursor``.

    Raises:
        FormatError: it is damaged, too deep, or uses a word that this version does not know.
    """
    if depth > MAX_DEPTH:
        raise cursor.error(f"values are nested deeper than {MAX_DEPTH} levels")
    tag = cursor.byte("a value")
    if tag < SMALL_INTEGER:
        return _word(cursor, tag)
    if tag < LIST:
        return tag - SMALL_INTEGER
    if tag in CONSTANTS:
        return CONSTANTS[tag]
    if tag == INTEGER:
        return unzigzag(cursor.varint("a whole number"))
    if tag == FLOAT:
        return struct.unpack("<d", cursor.take(8, "a float"))[0]
    if tag > LONG_MAPPING:
        raise cursor.error(f"no value starts with the byte {tag:02x}")
    kind, count = (tag & 0xF0, tag & 0x0F) if tag < NULL else (tag, cursor.varint("a count"))
    if kind in (STRING, LONG_STRING):
        return _read_string(cursor, count)
    return _read_items(cursor, kind in (MAPPING, LONG_MAPPING), count, depth + 1)


def _word(cursor: Cursor, number: int) -> str:
    if number < len(WORDS):
        return WORDS[number]
    raise cursor.error(
        f"word {number} is not known here ({len(WORDS)} are): a newer tinycompress wrote this file"
    )


def _read_string(cursor: Cursor, count: int) -> str:
    text = cursor.take(count, "a string")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise cursor.error(f"a string is not UTF-8: {error.reason}") from error


def _read_items(cursor: Cursor, is_mapping: bool, count: int, depth: int) -> Any:
    least = count * (2 if is_mapping else 1)  # every value takes at least a byte
    if least > cursor.left():
        raise cursor.error(f"{least:,} values cannot be in the {cursor.left():,} bytes left")
    if not is_mapping:
        return [read_value(cursor, depth) for _ in range(count)]
    mapping: dict[str, Any] = {}
    for _ in range(count):
        key = read_value(cursor, depth)
        if not isinstance(key, str) or key in mapping:
            raise cursor.error(f"{key!r} is not a key, or comes twice")
        mapping[key] = read_value(cursor, depth)
    return mapping
