"""A model's state by name: what ``state_dict`` and ``load_state_dict`` do.

Names are dotted paths ("conv1.weight"), each module's parameters first and then its buffers, in
order of definition, as in torch. Also as in torch, what two layers share appears under both names,
so that dictionaries go either way; loading is content with one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, device_of, on_device, to_device
from tinycompress.tensor import as_array

if TYPE_CHECKING:
    from tinycompress.nn.module import Module


class LoadReport(NamedTuple):
    """What ``load_state_dict(…, strict=False)`` passed over; torch's names."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def arrays_by_name(module: Module, prefix: str = "") -> Iterator[tuple[str, Array, Array | None]]:
    """(dotted name, the module's own array, its mask), for every name there is."""
    for name, p in module._parameters.items():
        if p is not None:
            yield prefix + name, p.data, p.mask
    for name, b in module._buffers.items():
        if b is not None:
            yield prefix + name, b, None
    for name, child in module.named_children():
        yield from arrays_by_name(child, f"{prefix}{name}.")


def load(module: Module, state: Mapping[str, Any], strict: bool) -> LoadReport:
    """See :meth:`tinycompress.nn.Module.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a mapping of names to arrays, got {type(state).__name__}")
    own = list(arrays_by_name(module))
    arrays = {name: array for name, array, _ in own}
    given = {name: _read(name, value) for name, value in state.items()}
    covered = {id(arrays[name]) for name in given if name in arrays}
    report = LoadReport(
        [name for name, array, _ in own if id(array) not in covered],
        [name for name in given if name not in arrays and not _counts_batches(name, arrays)],
    )
    problems = [p for n, a in arrays.items() if n in given for p in _misfits(n, given[n], a)]
    if strict:
        problems = [
            *(f"missing: {name}" for name in report.missing_keys),
            *(f"unexpected: {name}" for name in report.unexpected_keys),
            *problems,
        ]
    if problems:
        raise ValueError(
            f"this state does not fit {type(module).__name__}:\n  " + "\n  ".join(problems)
        )
    for name, array, mask in own:
        if name in given:
            with on_device(array):
                array[...] = to_device(given[name], device_of(array)).astype(array.dtype)
                if mask is not None:
                    array *= mask  # pruned weights are 0, wherever the state came from
    return report


def _read(name: str, value: Any) -> Array:
    try:
        return as_array(value)
    except Exception as error:
        error.add_note(f"in {name!r}")
        raise


def _counts_batches(name: str, own: Mapping[str, Array]) -> bool:
    """torch's BatchNorm counts its batches, for an averaging that is not offered here."""
    prefix, _, last = name.rpartition("num_batches_tracked")
    return not last and f"{prefix}running_mean" in own


def _misfits(name: str, given: Array, own: Array) -> Iterator[str]:
    if given.shape != own.shape:
        yield f"{name}: shape {given.shape}, expected {own.shape}"
    elif not np.can_cast(given.dtype, own.dtype, "same_kind"):
        yield f"{name}: dtype {given.dtype}, expected {own.dtype}"
