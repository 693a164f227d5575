"""What ``fit`` lets through its door: every argument is looked at before anything is changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tinycompress import functional as F, optim
from tinycompress.backend import on_device, to_device, to_numpy
from tinycompress.data import Dataset
from tinycompress.files import replaceable
from tinycompress.nn import Module
from tinycompress.optim.checks import choice, count, positive
from tinycompress.train.callbacks import Callback
from tinycompress.train.checkpoint import refuse_other_file
from tinycompress.train.evaluate import has_classes, predict
from tinycompress.train.objective import Supervised

if TYPE_CHECKING:
    from tinycompress.train.run import Run

PathLike = str | os.PathLike[str]


def check_arguments(run: Run) -> None:
    """Raise a ``TypeError`` or ``ValueError`` that names the first argument that does not fit."""
    _check_kind("model", run.model, Module, "an nn.Module")
    _check_kind("train", run.train, Dataset, "a tc.data.Dataset")
    _check_kind("optimizer", run.optimizer, optim.Optimizer, "an optim.Optimizer")
    count("fit: epochs", run.epochs)
    count("fit: batch_size", run.batch_size)
    count("fit: shard_size", run.shard_size)
    count("fit: seed", run.seed, least=0)
    if run.clip_grad_norm is not None:
        positive("fit: clip_grad_norm", run.clip_grad_norm)
    _check_objective(run.objective)
    if run.augment is not None:
        _check_kind("augment", run.augment, None, "a function (images, generator) -> images")
    _check_callbacks(run.callbacks)
    _check_parameters(run.model, run.optimizer)
    _check_schedule(run)
    _check_checkpoint(run.checkpoint, run.checkpoint_every)
    _check_validate(run)


def _check_kind(name: str, value: Any, kind: Any, wanted: str) -> None:
    """``value`` must be of ``kind``; None stands for whatever can be called, except a class."""
    fits = callable(value) if kind is None else isinstance(value, kind)
    if not fits or isinstance(value, type):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"fit: {name} must be {wanted}, got {given}")


def _check_objective(objective: Any) -> None:
    wanted = "a function (model, *batch) -> (loss, outputs)"
    _check_kind("objective", objective, None, wanted)
    name = getattr(objective, "__name__", "")
    if getattr(F, name, None) is objective:
        raise TypeError(
            f"fit: objective must be {wanted}, got the loss {name}; write "
            f"objective=Supervised(F.{name})"
        )


def _check_callbacks(callbacks: list[Callback]) -> None:
    for position, callback in enumerate(callbacks):
        _check_kind(f"callbacks[{position}]", callback, Callback, "a train.Callback")


def _check_parameters(model: Module, optimizer: optim.Optimizer) -> None:
    own = {id(p) for p in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    strangers = sum(id(p) not in own for p in held)
    if strangers:
        whole = "none" if strangers == len(held) else f"{strangers} that are not"
        raise ValueError(
            f"fit: the optimizer holds {whole} of the model's parameters; make it from this "
            "model's .parameters(), after the model was copied, pruned or quantized"
        )
    if not any(p.requires_grad for p in held):
        raise ValueError(
            "fit: every parameter of the optimizer is frozen (requires_grad is False), so there is "
            "nothing to train"
        )


def _check_schedule(run: Run) -> None:
    choice("fit: schedule_every", run.schedule_every, ("auto", "step", "epoch"))
    schedule = run.schedule
    if schedule is None:
        return
    _check_kind(
        "schedule", schedule, (optim.Schedule, optim.ReduceLROnPlateau), "an optim schedule"
    )
    if schedule.optimizer is not run.optimizer:
        raise ValueError(
            "fit: the schedule was made for another optimizer than the one that is given"
        )
    if isinstance(schedule, optim.ReduceLROnPlateau) and run.schedule_every == "step":
        raise ValueError(
            'fit: ReduceLROnPlateau watches the loss of an epoch; use schedule_every="epoch"'
        )


def _check_validate(run: Run) -> None:
    if run.validate is None:
        return
    _check_kind("validate", run.validate, Dataset, "a tc.data.Dataset or None")
    if not has_classes(run.validate) and not isinstance(run.objective, Supervised):
        raise ValueError(
            "fit: validate needs labels that are class numbers, or objective=Supervised(criterion)"
        )
    # One image now, rather than an error after an epoch of training.
    with on_device(next(run.model.parameters()).data):
        image = to_device(run.validate.images[:1], run.model.device)
        classes = predict(run.model, image, workers=1).shape[1]
    largest = int(to_numpy(run.validate.labels).max()) if has_classes(run.validate) else 0
    if largest >= classes:
        raise ValueError(
            f"fit: the labels of validate go up to {largest}, but the model has {classes} outputs, "
            f"for the classes 0 … {classes - 1}"
        )


def _check_checkpoint(checkpoint: PathLike | None, every: int | None) -> None:
    if every is not None:
        count("fit: checkpoint_every", every)
    if checkpoint is None:
        if every is not None:
            raise ValueError("fit: checkpoint_every needs checkpoint=, a file to write")
        return
    target = replaceable(checkpoint)
    if target.exists():
        refuse_other_file(target)
    folder = target.parent
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"fit: the folder {folder} of checkpoint cannot be written to")
