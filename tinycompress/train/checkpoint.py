"""Checkpoints: everything a run needs to go on to the bit, in one safetensors file.

The arrays (model, masks, optimizer) are tensors of the file, and the rest (where the run is,
the schedule, the state of the random numbers, the history) is JSON in its header, with a checksum
of everything. One file, so that it can be replaced in one step: a run killed at any moment leaves
the last whole checkpoint.

    model.conv1.weight      the parameters and buffers
    mask.conv1.weight       which weights pruning left, for parameters that have a mask
    optimizer.0.momentum…   what the optimizer keeps for parameter 0
    callback.0.scores…      what the first callback that keeps something keeps in arrays
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinycompress import random
from tinycompress.backend import Array, device_of, to_device, to_numpy
from tinycompress.files import atomic_write
from tinycompress.nn import Module
from tinycompress.optim import Optimizer

VERSION = 1
START_ANEW = "delete it, or start anew with resume=False"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: arrays by dotted name, and JSON values."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    model: Module,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    arrays: Mapping[str, Array] | None = None,
) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: usually ``….safetensors``; its folder must exist.
        model: parameters, buffers and masks are kept.
        optimizer: its options and arrays are kept.
        state: whatever else the run needs, as JSON values. That of the random numbers is added.
        arrays: more arrays, under names of other kinds than those of the model, masks and
            optimizer.
    """
    kept = optimizer.state_dict()
    steps = {str(i): entry.get("step", 0) for i, entry in kept["state"].items()}
    document = {
        **state,
        "version": VERSION,
        "random": random.get_state(),
        "optimizer": {"groups": kept["groups"], "steps": steps},
    }
    text, held = json.dumps(document), _arrays(model, kept["state"]) | _on_host(arrays or {})
    metadata = {"tinycompress_checkpoint": text, "checksum": str(checksum_of(text, held))}
    with atomic_write(path) as file:
        file.write(safetensors.numpy.save(held, metadata))


def _arrays(model: Module, optimizer_state: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    arrays = {f"model.{name}": array for name, array in model.state_dict().items()}
    for name, p in model.named_parameters():
        if p.mask is not None:
            arrays[f"mask.{name}"] = p.mask
    for position, entries in optimizer_state.items():
        for name, value in entries.items():
            if name != "step":
                arrays[f"optimizer.{position}.{name}"] = value
    return _on_host(arrays)


def _on_host(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(to_numpy(a), order="C") for name, a in arrays.items()}


def checksum_of(text: str, arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of a text and of every array with its name, dtype and shape."""
    crc = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return crc


def refuse_other_file(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is there and is no checkpoint: a run must not replace a model with one.

    A damaged checkpoint passes, as far as it can be told from other files: a safetensors file has
    its header's ``{`` at byte 8.

    Raises:
        CheckpointError: it is another kind of file.
    """
    with open(path, "rb") as file:
        head = file.read(9)
    other = len(head) == 9 and head[8:] != b"{"
    if not other:
        try:
            with safetensors.safe_open(os.fspath(path), framework="numpy") as opened:
                other = "tinycompress_checkpoint" not in (opened.metadata() or {})
        except Exception:  # safetensors raises its own kinds for damage
            return
    if other:
        raise CheckpointError(
            f"{path} is there and is not a checkpoint of tinycompress, but another kind of file; "
            "give checkpoint= another name"
        )


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint without applying it.

    Raises:
        CheckpointError: not a checkpoint, a newer version's, or damaged; says what to do.
        OSError: the file cannot be read.
    """
    refuse_other_file(path)
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own kinds for damage
        raise CheckpointError(f"{path} is damaged ({error}); {START_ANEW}") from error
    text = metadata["tinycompress_checkpoint"]
    if metadata.get("checksum") != str(checksum_of(text, arrays)):
        raise CheckpointError(f"{path} is damaged (its checksum does not match); {START_ANEW}")
    document = json.loads(text)
    if document["version"] != VERSION:
        raise CheckpointError(
            f"{path} is a checkpoint of version {document['version']}, and this tinycompress reads "
            f"version {VERSION}; install the tinycompress that wrote it, or {START_ANEW}"
        )
    return Checkpoint(arrays, document)


def restore_checkpoint(checkpoint: Checkpoint, model: Module, optimizer: Optimizer) -> None:
    """Put a checkpoint's arrays and random numbers back.

    Raises:
        CheckpointError: the model or the optimizer is not the one that was saved; nothing was
            changed.
    """
    model_state, masks, kept = _sorted_out(checkpoint.arrays)
    saved = checkpoint.state["optimizer"]
    for position, step in saved["steps"].items():
        kept.setdefault(int(position), {})["step"] = step
    before = model.state_dict(), [p.mask for p in model.parameters()]
    try:
        _check_dtypes(model_state, model)
        for name, p in model.named_parameters():  # first: loading keeps to the masks
            p.mask = to_device(masks[name], device_of(p.data)) if name in masks else None
        model.load_state_dict(model_state)
        optimizer.load_state_dict({"state": kept, "groups": saved["groups"]})
    except ValueError as error:
        for p, mask in zip(model.parameters(), before[1], strict=True):
            p.mask = mask
        model.load_state_dict(before[0])
        raise CheckpointError(f"the checkpoint belongs to another run: {error}") from error
    random.set_state(checkpoint.state["random"])


def _check_dtypes(saved: Mapping[str, np.ndarray], model: Module) -> None:
    """Loading would convert, and the run would not go on to the bit."""
    for name, array in model.state_dict().items():
        if name in saved and saved[name].dtype != array.dtype:
            raise ValueError(
                f"{name} is {saved[name].dtype} there and {array.dtype} here; convert the model "
                "with .to(dtype) first"
            )


def _sorted_out(
    arrays: Mapping[str, Array],
) -> tuple[dict[str, Array], dict[str, Array], dict[int, dict[str, Any]]]:
    """The file's arrays as (model, masks, optimizer state by position)."""
    model: dict[str, Array] = {}
    masks: dict[str, Array] = {}
    kept: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            position, _, entry = rest.partition(".")
            kept.setdefault(int(position), {})[entry] = array
        elif kind in ("model", "mask"):
            (model if kind == "model" else masks)[rest] = array
    return model, masks, kept
