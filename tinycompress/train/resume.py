"""What of a run a checkpoint keeps beside the arrays, and how a run is put back.

A resumed run must go on as it would have: the settings that its steps follow from are kept, too,
and others are refused by name. Read ``checkpoint.py`` first.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tinycompress import optim
from tinycompress.backend import is_array
from tinycompress.nn import Module
from tinycompress.train.callbacks import Callback
from tinycompress.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from tinycompress.train.history import History
from tinycompress.train.seen import Seen

if TYPE_CHECKING:
    from tinycompress.train.arguments import PathLike
    from tinycompress.train.run import Run

MOVING = ("lr", "initial_lr", "momentum", "betas")  # options that a schedule sets


def settings(run: Run) -> dict[str, Any]:
    """What must be the same for a resumed run to go on as it would have, as JSON values."""
    moving = () if run.schedule is None else MOVING
    options = {
        f"{name} of parameter group {number}": value
        for number, group in enumerate(run.optimizer.param_groups)
        for name, value in group.items()
        if name not in ("params", *moving)
    }
    chosen = {
        "seed": run.seed,
        "batch_size": run.batch_size,
        "shard_size": run.shard_size,
        "samples": len(run.train),
        "objective": _named(run.objective),
        "augment": None if run.augment is None else _named(run.augment),
        "clip_grad_norm": run.clip_grad_norm,
        "optimizer": type(run.optimizer).__name__,
        **options,
        "schedule": None if run.schedule is None else type(run.schedule).__name__,
        "schedule_every": None if run.schedule is None else run.schedule_every,
        "callbacks": [_told(c) for c in _keeping(run.callbacks)],
    }
    # As it will be when read: tuples are lists then, and NumPy's numbers are numbers.
    return json.loads(json.dumps(chosen, default=lambda number: number.item()))


def save(run: Run, path: PathLike) -> None:
    """Write the run's checkpoint."""
    kept = [c.state_dict() for c in _keeping(run.callbacks)]
    arrays = {
        f"callback.{position}.{name}": value
        for position, state in enumerate(kept)
        for name, value in state.items()
        if is_array(value)
    }
    state = {
        "settings": run.settings,
        "epoch": run.epoch,
        "batch": run.batch,
        "step": run.step,
        "seen": run.seen.to_dict(),
        "history": run.history.to_list(),
        "schedule": None if run.schedule is None else run.schedule.state_dict(),
        "callbacks": [{k: v for k, v in s.items() if not is_array(v)} for s in kept],
    }
    save_checkpoint(path, run.model, run.optimizer, state, arrays)


def restore(run: Run, path: PathLike) -> None:
    """Put a run back where its checkpoint was written.

    Raises:
        CheckpointError: it is damaged or of another run; then nothing was changed.
    """
    saved = read_checkpoint(path)
    _refuse_other_settings(path, saved.state["settings"], run.settings)
    _refuse_lost_masks(path, saved, run.model)
    before = None if run.schedule is None else run.schedule.state_dict()
    try:
        _put_back(run.schedule, saved.state["schedule"])
        restore_checkpoint(saved, run.model, run.optimizer)
    except ValueError as error:
        _put_back(run.schedule, before)
        raise CheckpointError(f"{path} cannot be resumed: {error}") from error
    _put_back(run.schedule, saved.state["schedule"])  # its rates, rather than those in the file
    run.epoch, run.batch, run.step = (saved.state[k] for k in ("epoch", "batch", "step"))
    run.seen = Seen.from_dict(saved.state["seen"])
    run.history = History.from_list(saved.state["history"])
    states = saved.state["callbacks"]
    for position, (callback, state) in enumerate(zip(_keeping(run.callbacks), states, strict=True)):
        prefix = f"callback.{position}."
        arrays = {k[len(prefix) :]: a for k, a in saved.arrays.items() if k.startswith(prefix)}
        callback.load_state_dict(state | arrays)


def _refuse_other_settings(path: PathLike, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    differing = [
        f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to another run ({'; '.join(differing)}); use the same settings, "
            "or start anew with resume=False"
        )


def _refuse_lost_masks(path: PathLike, saved: Checkpoint, model: Module) -> None:
    """The file's masks are put on; one that it lacks would be taken off, and its zeros with it."""
    for name, p in model.named_parameters():
        if p.mask is not None and f"mask.{name}" not in saved.arrays:
            raise CheckpointError(
                f"{path} belongs to another run ({name} is pruned here and was not there); give "
                "the model that was not pruned, or start anew with resume=False"
            )


def _put_back(schedule: optim.Schedule | optim.ReduceLROnPlateau | None, state: Any) -> None:
    if schedule is not None:
        schedule.load_state_dict(state)


def _keeping(callbacks: list[Callback]) -> list[Callback]:
    """The callbacks that have something to remember."""
    return [c for c in callbacks if type(c).state_dict is not Callback.state_dict]


def _told(callback: Callback) -> str:
    """The callback's repr, where it has one that tells its settings; else the name of its class."""
    tells = type(callback).__repr__ is not object.__repr__
    return _named(callback) if tells else type(callback).__name__


def _named(value: Any) -> str:
    """A name that the same object has in another process: its repr, without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
