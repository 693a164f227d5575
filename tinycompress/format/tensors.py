"""Writing a model's tensors: one record after the other, in the order of ``state_dict``.

A record is

    head        1 byte    bits 0–4: the codec (``codecs.py``), or 31: "the same as an earlier one"
                          bit 5: a mask follows; bit 6: a dtype is given; bit 7: a shape is given
    dtype       1 byte    if given: its number in ``DTYPES``
    shape       varints   if given: the number of axes, then the axes
    length      varint    of the body, in bytes
    body                  what the codec wrote: the values, axis after axis (C order)
    mask        varint    if it follows: a length, 0 for "where the values are not zero";
                          then that many bytes. If they are ⌈n/8⌉: a bit per value, 1 where it is
                          kept. If they are fewer: the number of a codec, and what it wrote

Names are not written: the architecture has them. Nor are dtype and shape, unless they differ from
those that the architecture gives. For an earlier one, the body is the number of its record.

Where all pruned weights of a parameter (those under a mask that is False) are zero, they are
written as +0, also where training left −0 in their place. ``tensor_reader.py`` reads all this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, to_numpy
from tinycompress.format.codecs import encode
from tinycompress.format.cursor import MAX_STEPS, varint
from tinycompress.format.packing import packed_size

DTYPES: tuple[str, ...] = (
    "float32", "float64", "float16", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32",
    "uint64", "int64",
)  # fmt: skip
SAME = 31
MASK, DTYPE, SHAPE = 0x20, 0x40, 0x80

FREE_MEMORY = 64 << 20
EXPANSION = 256
"""A file of n bytes may hold tensors of ``FREE_MEMORY + EXPANSION · n`` bytes in memory, no more.
Models stay far below; a few hostile bytes that say "a billion times the same number" do not."""


@dataclass(frozen=True)
class Slot:
    """A place for a tensor in a module: ``table`` is "_parameters" or "_buffers"."""

    name: str
    owner: nn.Module
    table: str
    key: str

    def get(self) -> Any:
        """The Parameter or array that stands there."""
        return vars(self.owner)[self.table][self.key]

    def array(self) -> Array:
        held = self.get()
        return held.data if isinstance(held, nn.Parameter) else held

    def put(self, held: Any) -> None:
        vars(self.owner)[self.table][self.key] = held


def slots(module: nn.Module, dot: str = "") -> Iterator[Slot]:
    """Where the model keeps tensors, in the order of ``state_dict``."""
    for table in ("_parameters", "_buffers"):
        for key, held in vars(module)[table].items():
            if held is not None:
                yield Slot(dot + key, module, table, key)
    for name, child in module.named_children():
        yield from slots(child, f"{dot}{name}.")


# ---------------------------------------------------------------------------------------- writing


def write_tensors(model: nn.Module, expected: nn.Module) -> bytes:
    """The records of ``model``.

    Args:
        model: on any device; values are read from a copy on the host.
        expected: of the same structure, with the shapes and dtypes that a reader will expect.

    Raises:
        TypeError: a tensor has a dtype that files do not have, a parameter one that is no float, or
            a mask another shape or dtype than it must have.
    """
    seen: dict[int, int] = {}
    records, writer = [], _Writer()
    for number, (slot, place) in enumerate(zip(slots(model), slots(expected), strict=True)):
        first = seen.setdefault(id(slot.get()), number)
        if first != number:
            index = varint(first)
            records.append(bytes([SAME]) + varint(len(index)) + index)
        else:
            if slot.table == "_parameters" and slot.array().dtype.kind != "f":
                raise TypeError(f"{slot.name} is a parameter and cannot be {slot.array().dtype}")
            mask = getattr(slot.get(), "mask", None)
            records.append(writer.record(slot.name, slot.array(), mask, place.array()))
    return b"".join(records)


class _Writer:
    """Counts the steps that a reader will need for what it has written."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS

    def record(self, name: str, array: Array, mask: Array | None, expected: Array) -> bytes:
        values = np.asarray(to_numpy(array), order="C")
        if values.dtype.name not in DTYPES:
            raise TypeError(f"{name}: a .tcz file has no dtype {values.dtype}; it has {DTYPES}")
        head, written_mask, description = 0, b"", b""
        if mask is not None:
            head |= MASK
            mask = to_numpy(mask)
            if mask.dtype != bool or mask.shape != values.shape:
                raise TypeError(
                    f"the mask of {name} must be booleans of shape {values.shape}, got "
                    f"{mask.dtype} {mask.shape}"
                )
            values = _without_pruned(values, mask)
            written_mask = self._mask(values, mask)
        if values.dtype != expected.dtype:
            head |= DTYPE
            description += bytes([DTYPES.index(values.dtype.name)])
        if array.shape != expected.shape:
            head |= SHAPE
            description += b"".join(varint(n) for n in (array.ndim, *array.shape))
        codec, body = self._encode(values)
        return bytes([head | codec]) + description + varint(len(body)) + body + written_mask

    def _encode(self, values: np.ndarray) -> tuple[int, bytes]:
        codec, (body, steps) = encode(values, steps=self.steps)
        self.steps -= steps
        return codec, body

    def _mask(self, values: np.ndarray, mask: np.ndarray) -> bytes:
        if np.array_equal(values != 0, mask):
            return varint(0)
        before = self.steps
        codec, body = self._encode(np.ascontiguousarray(mask))
        data = bytes([codec]) + body
        if len(data) >= packed_size(mask.size, 1):
            self.steps = before
            data = np.packbits(mask.ravel()).tobytes()
        return varint(len(data)) + data


def _without_pruned(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """+0 for what the mask prunes, if that is zero: training leaves −0 there, too."""
    return values if values[~mask].any() else np.where(mask, values, values.dtype.type(0))
