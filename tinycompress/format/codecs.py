"""How a tensor's values become bytes. ``encode`` tries every codec and keeps the shortest.

    number  name      for                        bytes for n values, of which k are not left out
    0       raw       anything                   n · itemsize
    1       packed    integers, booleans         n · b / 8, b bits from the values' range
    2       sparse    what repeats one value     n / 8, and the other values in another codec
    3, 4    half      floats that fit            2 n
    5       Huffman   integers, booleans         n · H / 8 or a little more, at least n / 8, and a
                                                 table; H is the entropy in bits
    6       counted   integers, booleans         n · H / 8, and a table
    7       adaptive  integers, booleans         n · H / 8 and a little
    8       relative  what repeats one value     k · (bits of a distance) / 8, and the other values
    9       trimmed   matrices with dead units   those of a smaller matrix
    10      predicted what repeats one value     places, and integers, below their entropy
    11      parts     floats that fit            n · (4 + bits of a mantissa) / 8 or so

``dense.py``, ``sparse.py``, ``huffman.py`` … have them. A further codec is a further line of
``CODECS``: its number goes into the file, and a reader that does not know it says so.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinycompress.format import predicted, relative, sparse, trimmed
from tinycompress.format.codec import Codec, Decoded, Encoded, Shape, decode_with, encode_among
from tinycompress.format.cursor import MAX_STEPS, Cursor
from tinycompress.format.inner import INNER

CODECS: dict[int, Codec] = {
    **INNER,
    **sparse.CODECS,
    **relative.CODECS,
    **trimmed.CODECS,
    **predicted.CODECS,
}


def encode(
    values: np.ndarray, among: Iterable[int] | None = None, steps: int = MAX_STEPS
) -> tuple[int, Encoded]:
    """(number of the codec that needs the fewest bytes, those bytes).

    Args:
        values: any shape, C order, any dtype of ``tensors.DTYPES``.
        among: codec numbers to try (None: all). Of equals the lowest number wins.
        steps: how many steps reading may take.
    """
    return encode_among(CODECS, values, among, steps)


def decode(number: int, body: Cursor, dtype: np.dtype, shape: Shape) -> Decoded:
    """The values that ``body`` holds, all of it.

    Raises:
        FormatError: the codec is unknown, or ``body`` is not what it writes for this shape.
    """
    return decode_with(CODECS, number, body, dtype, shape)
