"""The ``.tcz`` file: a model in as few bytes as its numbers need.

``store.py`` is the whole in a few lines; docs/reading.md has the order from the bits upwards, and
docs/format.md all of it in one piece.
"""

from tinycompress.format.errors import FormatError as FormatError
from tinycompress.format.packing import (
    pack as pack,
    packed_size as packed_size,
    unpack as unpack,
)
from tinycompress.format.registry import register as register
from tinycompress.format.store import (
    FileInfo as FileInfo,
    from_bytes as from_bytes,
    inspect as inspect,
    load as load,
    save as save,
    to_bytes as to_bytes,
)
from tinycompress.format.tensor_reader import TensorInfo as TensorInfo
