"""Reading a model's tensors, which ``tensors.py`` describes. Nothing in them is trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinycompress import nn
from tinycompress.compress.share.report import entropy
from tinycompress.format.codec import Cost
from tinycompress.format.codecs import decode
from tinycompress.format.cursor import Cursor
from tinycompress.format.dense import read_packed
from tinycompress.format.packing import packed_size
from tinycompress.format.tensors import (
    DTYPE,
    DTYPES,
    EXPANSION,
    FREE_MEMORY,
    MASK,
    SAME,
    SHAPE,
    Slot,
    slots,
)

LARGEST = 1 << 48  # values that an array has, were its axes of length 0 not there


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about one tensor.

    Attributes:
        name: as in ``state_dict``.
        shape, dtype: in memory.
        how: how its values are written, in words.
        offset: where its record starts in the file.
        bytes: of the record, head and mask included.
        index_bytes: of these, for where values stand that are not left out, and for a mask.
        value_bytes: for the values.
        table_bytes: for what a reader must know before: code tables, weights of a neuron, lengths,
            the head. These three add up to ``bytes``.
        entropy: of the values, in bits for each: −log₂ of its share, on average. No codec that
            takes each value by itself can do with less; one that looks at its neighbours can.
        nonzero: how many values are not zero.
        masked: whether it has a pruning mask.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    how: str
    offset: int
    bytes: int
    index_bytes: int
    value_bytes: int
    table_bytes: int
    entropy: float
    nonzero: int
    masked: bool

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file for each value; 0 where there is none."""
        return 8 * self.bytes / self.size if self.size else 0.0


def entropy_of(array: np.ndarray) -> float:
    """Bits for each value, if only the share of each is known."""
    _, counts = np.unique(array, return_counts=True)
    return entropy(counts) / max(array.size, 1)


def read_tensors(cursor: Cursor, model: nn.Module, measure: bool = False) -> list[TensorInfo]:
    """Fill ``model``, as ``build`` made it, from the records at ``cursor``.

    Args:
        measure: whether to count entropies, too, which takes time.

    Raises:
        FormatError: they are damaged, or not for this model.
    """
    reader = _Reader(cursor, measure)
    infos = [reader.read(slot) for slot in slots(model)]
    cursor.finish("the tensors")
    return infos


class _Reader:
    def __init__(self, cursor: Cursor, measure: bool) -> None:
        self.cursor, self.measure = cursor, measure
        self.memory = FREE_MEMORY + EXPANSION * len(cursor.data)
        self.filled: list[Slot] = []

    def read(self, slot: Slot) -> TensorInfo:
        start = self.cursor.position
        head = self.cursor.byte(f"the tensor {slot.name}")
        how, cost = (self._share if head & 0x1F == SAME else self._fill)(slot, head)
        self.filled.append(slot)
        array, used = slot.array(), self.cursor.position - start
        return TensorInfo(
            name=slot.name,
            shape=array.shape,
            dtype=array.dtype.name,
            how=how,
            offset=start,
            bytes=used,
            index_bytes=cost.index,
            value_bytes=cost.values,
            table_bytes=used - cost.index - cost.values,
            entropy=entropy_of(array) if self.measure else 0.0,
            nonzero=int(np.count_nonzero(array)),
            masked=bool(head & MASK),
        )

    def _share(self, slot: Slot, head: int) -> tuple[str, Cost]:
        body = self._body(slot)
        number = body.varint("the number of a tensor")
        body.finish("a tensor")
        if head != SAME or number >= len(self.filled):
            raise body.error(f"{slot.name} cannot be the same as tensor {number}")
        first = self.filled[number]
        if first.table != slot.table:
            raise body.error(f"{slot.name} and {first.name} cannot be the same")
        slot.put(first.get())
        return f"the same as {first.name}", Cost()

    def _fill(self, slot: Slot, head: int) -> tuple[str, Cost]:
        dtype, shape = self._dtype(slot, head), self._shape(slot, head)
        count = math.prod(shape)
        self._claim(slot, count * dtype.itemsize)
        self._check_axes(slot, shape)
        values, how, cost = decode(head & 0x1F, self._body(slot), dtype, shape)
        if slot.table == "_parameters":
            parameter = nn.Parameter(values)
            if head & MASK:
                self._claim(slot, count)
                before = self.cursor.position
                parameter.mask = self._mask(slot, values)
                cost += Cost(index=self.cursor.position - before)
            slot.put(parameter)
        elif head & MASK:
            raise self.cursor.error(f"{slot.name} is no parameter and cannot have a mask")
        else:
            slot.put(values)
        return how, cost

    def _body(self, slot: Slot) -> Cursor:
        length = self.cursor.varint(f"the length of {slot.name}")
        return self.cursor.window(length, slot.name)

    def _dtype(self, slot: Slot, head: int) -> np.dtype:
        dtype = slot.array().dtype
        if head & DTYPE:
            number = self.cursor.byte(f"the dtype of {slot.name}")
            if number >= len(DTYPES):
                raise self.cursor.error(f"there is no dtype {number}")
            dtype = np.dtype(DTYPES[number])
        if slot.table == "_parameters" and dtype.kind != "f":
            raise self.cursor.error(f"{slot.name} is a parameter and cannot have dtype {dtype}")
        return dtype

    def _shape(self, slot: Slot, head: int) -> tuple[int, ...]:
        if not head & SHAPE:
            return slot.array().shape
        axes = self.cursor.varint(f"the number of axes of {slot.name}")
        if axes > min(32, self.cursor.left()):
            raise self.cursor.error(f"{slot.name} cannot have {axes:,} axes")
        return tuple(self.cursor.varint(f"an axis of {slot.name}") for _ in range(axes))

    def _check_axes(self, slot: Slot, shape: tuple[int, ...]) -> None:
        """An empty tensor may have gigantic other axes, which NumPy does not take."""
        if math.prod(axis or 1 for axis in shape) >= LARGEST:
            raise self.cursor.error(f"{slot.name} cannot have shape {shape}")

    def _mask(self, slot: Slot, values: np.ndarray) -> np.ndarray:
        length = self.cursor.varint(f"the length of the mask of {slot.name}")
        if length == 0:
            return values != 0
        body = self.cursor.window(length, f"the mask of {slot.name}")
        if length < packed_size(values.size, 1):
            codec = body.byte("the codec of a mask")
            return decode(codec, body, np.dtype(bool), values.shape).values
        mask = read_packed(body, values.size, 1).astype(bool)
        body.finish(f"the mask of {slot.name}")
        return mask.reshape(values.shape)

    def _claim(self, slot: Slot, size: int) -> None:
        """Refuse what would take far more memory than the file can have words for."""
        self.memory -= size
        if self.memory < 0:
            raise self.cursor.error(
                f"{slot.name} would take {size:,} bytes of memory, too many for a file of "
                f"{len(self.cursor.data):,} bytes"
            )
