"""The codecs that stand inside others: they write values in order, and know nothing of places."""

from __future__ import annotations

from tinycompress.format import adaptive, counted, dense, huffman, parts
from tinycompress.format.codec import Codec

INNER: dict[int, Codec] = {
    **dense.CODECS,
    **huffman.CODECS,
    **counted.CODECS,
    **adaptive.CODECS,
    **parts.CODECS,
}
