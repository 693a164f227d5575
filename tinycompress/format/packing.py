"""Bit packing: whole numbers of b bits, written without gaps.

Code i takes the bits ``i·b … i·b + b − 1`` of the stream, its highest bit first, and bit 0 of the
stream is the highest bit of byte 0. So 4-bit codes are the hexadecimal digits of the bytes, in
order: ``[1, 2, 15] → 12 f0``. What is left of the last byte is 0.

Signed codes are written in two's complement: the lowest b bits of the number.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 16  # codes unpacked at once: a multiple of 8 (whole bytes), and small enough to cache
WORD = 16


def pack(codes: np.ndarray, bits: int, signed: bool = False) -> bytes:
    """Codes as a stream of bits.

    Args:
        codes: whole numbers, of any shape and integer dtype; read in row-major order.
        bits: bits per code, 1 to 16.
        signed: whether codes lie in −2^(bits−1) … 2^(bits−1) − 1, rather than 0 … 2^bits − 1.

    Returns:
        ``packed_size(codes.size, bits)`` bytes.

    Raises:
        ValueError: ``bits`` is out of range, or a code does not fit; the message names the code.
    """
    _check_bits(bits)
    flat = np.ravel(codes)
    _check_range(flat, bits, signed)
    words = flat.astype(">u2", casting="unsafe")  # two's complement, high byte first
    blocks = (words[i : i + BLOCK] for i in range(0, words.size, BLOCK))
    return b"".join(_pack_block(block, bits) for block in blocks)


def _pack_block(words: np.ndarray, bits: int) -> bytes:
    matrix = np.unpackbits(words.view(np.uint8)).reshape(-1, WORD)  # (codes, 16)
    return np.packbits(matrix[:, WORD - bits :]).tobytes()


def unpack(data: bytes, count: int, bits: int, signed: bool = False) -> np.ndarray:
    """The codes in a stream of bits: the inverse of :func:`pack`.

    Returns:
        ``count`` codes as uint8, uint16, int8 or int16: the smallest that holds ``bits`` bits.

    Raises:
        ValueError: ``data`` is not exactly as long as ``count`` codes, or its last bits are not 0.
    """
    _check_bits(bits)
    size = packed_size(count, bits)
    if len(data) != size:
        raise ValueError(f"{count} codes of {bits} bits take {size} bytes, got {len(data)}")
    stream = np.frombuffer(data, np.uint8)
    unused = 8 * size - count * bits
    if unused and stream[-1] & ((1 << unused) - 1):
        raise ValueError(f"the last {unused} bits must be 0")
    codes = np.empty(count, np.uint16)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        block = stream[start * bits // 8 : packed_size(stop, bits)]
        codes[start:stop] = _unpack_block(block, stop - start, bits)
    narrow = bits <= 8
    if not signed:
        return codes.astype(np.uint8) if narrow else codes
    raised = (codes << (WORD - bits)).view(np.int16)  # the sign bit on top, for >> to copy it down
    return (raised >> (WORD - bits)).astype(np.int8 if narrow else np.int16)


def _unpack_block(stream: np.ndarray, count: int, bits: int) -> np.ndarray:
    matrix = np.zeros((count, WORD), np.uint8)
    matrix[:, WORD - bits :] = np.unpackbits(stream, count=count * bits).reshape(count, bits)
    return np.packbits(matrix).view(">u2")


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def _check_bits(bits: int) -> None:
    if not isinstance(bits, int) or not 1 <= bits <= WORD:
        raise ValueError(f"bits must be a whole number from 1 to 16, got {bits!r}")


def _check_range(codes: np.ndarray, bits: int, signed: bool) -> None:
    if codes.dtype.kind not in "iub":
        raise ValueError(f"codes must be whole numbers, got dtype {codes.dtype}")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    for code in (codes.min(), codes.max()) if codes.size else ():
        if not low <= int(code) <= high:
            kind = "signed" if signed else "unsigned"
            raise ValueError(f"code {code} does not fit {bits} {kind} bits ({low} to {high})")
