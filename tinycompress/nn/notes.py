"""What a forward pass changes, written down instead of done.

Batch norm updates its running statistics while it computes. In a sharded training step several
shards run at once and on other workers, so a layer does not write: it *notes* what it saw
(:meth:`tinycompress.nn.Module.note`). Outside of a step the note is merged at once. Inside, under
:func:`record_notes`, notes travel back with the gradients and are merged once per step, in the
order of the shards, so the result does not depend on the number of workers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Note = tuple[Any, Any]  # (module, what it noted)

_local = threading.local()


@contextmanager
def record_notes() -> Iterator[list[Note]]:
    """Collect the notes of this thread in a list instead of merging them."""
    outer = getattr(_local, "notes", None)
    _local.notes = []
    try:
        yield _local.notes
    finally:
        _local.notes = outer


def current_notes() -> list[Note] | None:
    """The list that is being collected on this thread, or None."""
    return getattr(_local, "notes", None)


def merge_notes(shards: list[list[Note]]) -> None:
    """Give every module what it noted, over all shards in order, in one call.

    Inside :func:`record_notes` (a training step within a training step) they travel on instead.
    """
    outer = current_notes()
    if outer is not None:
        outer.extend(note for notes in shards for note in notes)
        return
    by_module: dict[int, tuple[Any, list[Any]]] = {}
    for notes in shards:
        for module, what in notes:
            by_module.setdefault(id(module), (module, []))[1].append(what)
    for module, whats in by_module.values():
        module.merge(whats)
