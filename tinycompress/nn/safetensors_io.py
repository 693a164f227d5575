"""A model's state in a safetensors file: the way to and from torch and the Hugging Face hub.

The file holds plain arrays under their dotted names and no code. What torch saves of a network with
the same layers (``safetensors.torch.save_file(net.state_dict(), path)``) loads here unchanged, and
the other way round. It does not hold the architecture; ``.tcz`` files do (see ``format/``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from tinycompress.backend import to_numpy
from tinycompress.files import atomic_write
from tinycompress.nn.module import Module
from tinycompress.nn.state import LoadReport


def save_safetensors(
    model: Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``model.state_dict()``, atomically: a crash leaves the old file or the new one.

    Args:
        model: masks are not saved, the zeros that they made are.
        path: usually ``….safetensors``; its folder must exist.
        metadata: texts for the file's header.
    """
    # The writer copies memory as it lies, in whatever order the axes are there.
    arrays = {n: np.asarray(to_numpy(a), order="C") for n, a in model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(safetensors.numpy.save(arrays, dict(metadata or {})))


def load_safetensors(
    model: Module, path: str | os.PathLike[str], strict: bool = True
) -> LoadReport:
    """Load a safetensors file into ``model``, as ``model.load_state_dict`` does.

    Args:
        model: keeps its device and dtype.
        path: a file from here or from torch.
        strict: refuse missing and unexpected names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or does not fit the model; the model is as it was.
    """
    arrays = read_safetensors(path)
    try:
        return model.load_state_dict(arrays, strict)
    except ValueError as error:
        error.add_note(f"in {os.fspath(path)}")
        raise


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds numbers of a kind that NumPy does not have.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: _array(file, name, path) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _array(file: safetensors.safe_open, name: str, path: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except (TypeError, AttributeError, KeyError) as error:  # bfloat16 and the 8-bit floats
        kind = file.get_slice(name).get_dtype()
        raise ValueError(
            f"{path}: {name!r} is stored as {kind}, which NumPy does not have; save it as float32"
        ) from error
