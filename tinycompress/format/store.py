"""``save``, ``load`` and ``inspect``: a model as a ``.tcz`` file, and back.

Read ``container.py`` for the file as a whole, ``describe.py`` for the architecture, ``tensors.py``
and ``codecs.py`` for the numbers. docs/format.md has it all in one piece.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tinycompress import nn
from tinycompress.compress.checks import check_model
from tinycompress.files import atomic_write
from tinycompress.format.construct import build
from tinycompress.format.container import (
    ARCHITECTURE,
    MAGIC,
    TENSORS,
    VERSION,
    Section,
    read_container,
    write_container,
)
from tinycompress.format.describe import describe
from tinycompress.format.errors import FormatError
from tinycompress.format.tensor_reader import TensorInfo, read_tensors
from tinycompress.format.tensors import EXPANSION, FREE_MEMORY, slots, write_tensors
from tinycompress.format.values import read_value, write_value

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class FileInfo:
    """What is in a file.

    Attributes:
        path: the file.
        bytes: its size.
        version: of the format.
        architecture: what ``describe`` made of the model: a JSON value.
        architecture_bytes: of its section, checksum included.
        tensors: one by one, in the order of ``state_dict``.
    """

    path: str
    bytes: int
    version: int
    architecture: Any
    architecture_bytes: int
    tensors: tuple[TensorInfo, ...]

    @property
    def model(self) -> str:
        """The name of the model, or of its outermost class."""
        return self.architecture if isinstance(self.architecture, str) else self.architecture[0]

    @property
    def overhead_bytes(self) -> int:
        """What is neither architecture nor tensor: header, lengths, checksums."""
        return self.bytes - self.architecture_bytes - sum(t.bytes for t in self.tensors)


def to_bytes(model: nn.Module) -> bytes:
    """The file that :func:`save` writes."""
    check_model("save", model)
    description = describe(model)
    tensors = write_tensors(model, build(description))
    data = write_container([(ARCHITECTURE, write_value(description)), (TENSORS, tensors)])
    memory = sum(slot.array().nbytes for slot in slots(model))
    if memory > FREE_MEMORY + EXPANSION * len(data):
        raise ValueError(
            f"this model takes {memory:,} bytes of memory and {len(data):,} in a file: no reader "
            f"believes more than {EXPANSION} to 1. Nearly all its tensors repeat a single number"
        )
    return data


def save(model: nn.Module, path: StrPath) -> int:
    """Write ``model`` to a ``.tcz`` file; a crash leaves the old file or the new one.

    Values and dtypes are kept to the bit, and pruning masks. A layer that stands in two places
    comes back as two layers that share their parameters. Not kept: whether parameters are
    frozen, training mode, hooks. Each tensor is written by the codec that makes it smallest
    (``codecs.py``): float weights take 4 bytes each, zeros among them a bit or less, quantized
    weights their number of bits or less. The same model gives the same bytes.

    Args:
        model: any of ``tinycompress.models``, any network of ``nn`` layers, quantized layers
            included, and of classes that were registered (:func:`tinycompress.register`).
            On any device.
        path: usually ``….tcz``; its folder must exist.

    Returns:
        The size of the file in bytes.

    Raises:
        TypeError: a class is not registered or its ``config()`` leaves something out, or a tensor
            has a dtype that files do not have; the message says which and what to do.
        ValueError: a model that no reader would accept: too many layers, or far larger in memory
            than in the file.
        FileNotFoundError: the folder does not exist.
    """
    data = to_bytes(model)
    with atomic_write(path) as file:
        file.write(data)
    return len(data)


def load(path: StrPath) -> nn.Module:
    """The model in a ``.tcz`` file: on the CPU, in evaluation mode. Runs no code from the file.

    Raises:
        FormatError: the file is damaged, truncated, newer than this version, or names a class that
            is not known here; with the byte where it shows, and the reason.
        OSError: it cannot be read at all.
    """
    with _named_errors(path):
        sections = read_container(_read_file(path))
        _, model, _ = _read_sections(sections)
    return model.eval()


def inspect(path: StrPath) -> FileInfo:
    """What is in a ``.tcz`` file, tensor by tensor. It is decoded and checked as by :func:`load`.

    Raises:
        FormatError: as in :func:`load`.
    """
    with _named_errors(path):
        data = _read_file(path)
        sections = read_container(data)
        architecture, _, tensors = _read_sections(sections, measure=True)
    return FileInfo(
        os.fspath(path), len(data), VERSION, architecture, sections[0].bytes, tuple(tensors)
    )


def from_bytes(data: bytes) -> nn.Module:
    """The model in the bytes of a ``.tcz`` file; see :func:`load`."""
    return _read_sections(read_container(data))[1].eval()


def _read_sections(
    sections: list[Section], measure: bool = False
) -> tuple[Any, nn.Module, list[TensorInfo]]:
    """(architecture, model, what is known of its tensors)."""
    first, second = sections
    cursor = first.content
    start = cursor.position
    architecture = read_value(cursor)
    cursor.finish("the architecture")
    try:
        model = build(architecture)
    except ValueError as error:
        raise FormatError(start, str(error)) from error
    tensors = read_tensors(second.content, model, measure)
    _check_states(model, tensors)
    return architecture, model, tensors


def _check_states(model: nn.Module, tensors: list[TensorInfo]) -> None:
    """Each module's arrays must fit each other, as far as the module can tell."""
    for name, module in model.named_modules():
        try:
            module.check_state()
        except ValueError as error:
            dot = f"{name}." if name else ""
            own = [f"{dot}{key}" for key in (*module._parameters, *module._buffers)]
            offset = next((t.offset for t in tensors if t.name in own), 0)
            label = f"{name or 'the model'} ({type(module).__name__})"
            raise FormatError(offset, f"{label}: {error}") from error


def _read_file(path: StrPath) -> bytes:
    """The bytes of the file, or just its first ones if these are not those of a ``.tcz``."""
    with open(path, "rb") as file:
        head = file.read(len(MAGIC))
        return head + file.read() if head == MAGIC else head


@contextmanager
def _named_errors(path: StrPath) -> Iterator[None]:
    """Errors inside name the file."""
    try:
        yield
    except FormatError as error:
        raise FormatError(error.offset, error.reason, os.fspath(path)) from error.__cause__
