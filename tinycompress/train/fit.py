"""The training loop.

    for each epoch, for each batch:
        value and gradients  (step.py: shards, workers)
        clip, optimizer step, schedule
        callbacks, checkpoint

All that a run is stands in :class:`Run`, so that a checkpoint can put it back: a run that was
killed and resumed ends with the same weights, to the bit, as one that was not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinycompress import optim
from tinycompress.backend import on_device
from tinycompress.data import Dataset, batch_count, batches
from tinycompress.data.batching import Augmentation
from tinycompress.nn import Module
from tinycompress.train.callbacks import Callback
from tinycompress.train.checkpoint import (
    CheckpointError,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from tinycompress.train.diagnose import LossWatch
from tinycompress.train.evaluate import evaluate
from tinycompress.train.history import Epoch, History
from tinycompress.train.interrupt import DeferredInterrupt
from tinycompress.train.objective import Objective, Supervised
from tinycompress.train.progress import ProgressBar
from tinycompress.train.seen import Seen
from tinycompress.train.step import SHARD_SIZE, value_and_grad
from tinycompress.train.workers import Workers

PathLike = str | os.PathLike[str]


def fit(
    model: Module,
    train: Dataset,
    epochs: int,
    optimizer: optim.Optimizer | None = None,
    *,
    validate: Dataset | None = None,
    batch_size: int = 128,
    objective: Objective | None = None,
    schedule: Any = None,
    schedule_every: str = "auto",
    augment: Augmentation | None = None,
    clip_grad_norm: float | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
    checkpoint: PathLike | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    progress: bool = False,
) -> History:
    """Train ``model`` in place.

    Args:
        model: moved to nothing: the data follow it to its device.
        train: images and labels, and whatever else the objective takes.
        epochs: passes over ``train`` in all, those before a resume included.
        optimizer: over the model's own parameters; None for ``optim.Adam`` with its defaults.
        validate: evaluated after each epoch.
        batch_size: samples per update; the last batch of an epoch may be smaller.
        objective: see ``objective.py``; None for cross-entropy.
        schedule: an ``optim`` schedule made for ``optimizer``.
        schedule_every: "step", "epoch", or "auto": OneCycleLR every step, the others every epoch.
        augment: changes each batch of images, see ``data/augment.py``.
        clip_grad_norm: the most that the norm of all gradients together may be.
        callbacks: see ``callbacks.py``.
        seed: of the order of the samples and of the augmentation. Dropout follows ``manual_seed``.
        workers: how many share the work on a CPU; None for one per core. The result is the same.
        shard_size: the most samples in one shard (``step.py``); the result depends on it.
        checkpoint: a file that is replaced after each epoch, and by Ctrl-C.
        checkpoint_every: replace it also every so many steps.
        resume: go on from ``checkpoint`` where that file exists.
        progress: show a bar on standard error.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite; names epoch, batch and operation.
        CheckpointError: ``checkpoint`` is damaged or of another run.
        KeyboardInterrupt: after Ctrl-C, when the step is done and the checkpoint written.
        ValueError: arguments that do not fit, by name.
    """
    optimizer = optim.Adam(model.parameters()) if optimizer is None else optimizer
    extra = [ProgressBar()] if progress else []
    run = Run(
        model, train, epochs, optimizer, validate, batch_size, objective or Supervised(), schedule,
        schedule_every, augment, clip_grad_norm, [*callbacks, *extra], seed, shard_size,
        checkpoint, checkpoint_every,
    )  # fmt: skip
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True needs checkpoint=, the file to go on from")
    if resume and checkpoint is not None and Path(checkpoint).exists():
        run.restore(checkpoint)
    with Workers(workers) as team, DeferredInterrupt() as interrupt:
        run.execute(team, interrupt)
    return run.history


class Run:
    """One training run: what it works on, and where it is.

    Attributes:
        epoch: the epoch that runs, from 0.
        batch: how many batches of this epoch are done.
        step: how many updates were made in all.
        steps_per_epoch: batches in an epoch.
        loss: the loss of the last batch, a 0-d array on the model's device.
        seen: running totals of this epoch.
        history: the epochs that ended.
    """

    def __init__(
        self, model: Module, train: Dataset, epochs: int, optimizer: optim.Optimizer,
        validate: Dataset | None, batch_size: int, objective: Objective, schedule: Any,
        schedule_every: str, augment: Augmentation | None, clip_grad_norm: float | None,
        callbacks: list[Callback], seed: int, shard_size: int,
        checkpoint: PathLike | None, checkpoint_every: int | None,
    ) -> None:  # fmt: skip
        _check_arguments(model, epochs, optimizer, schedule_every, checkpoint, checkpoint_every)
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.validate = train.to(model.device), validate
        self.epochs, self.batch_size, self.objective = epochs, batch_size, objective
        self.augment, self.clip_grad_norm, self.callbacks = augment, clip_grad_norm, callbacks
        self.seed, self.shard_size = seed, shard_size
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        if schedule_every == "auto":
            schedule_every = "step" if isinstance(schedule, optim.OneCycleLR) else "epoch"
        self.schedule_every = schedule_every
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.steps_per_epoch = batch_count(train, batch_size)
        self.epoch = self.batch = self.step = 0
        self.loss: Any = None
        self.seen, self.history, self.stopped = Seen(), History(), False

    def stop(self) -> None:
        """End the run after this epoch (called in ``on_epoch_end``) or after this step."""
        self.stopped = True

    def execute(self, workers: Workers, interrupt: DeferredInterrupt) -> None:
        """Run to the end, or until stopped."""
        self.workers, self.interrupt = workers, interrupt
        self.watch = LossWatch(self)
        try:
            with on_device(self.params[0].data):
                self._call("on_fit_begin")
                while self.epoch < self.epochs and not self.stopped:
                    self._run_epoch()
                self._call("on_fit_end")
        finally:
            self._call("close")
            self.optimizer.zero_grad()

    # -------------------------------------------------------------------------- the loop

    def _run_epoch(self) -> None:
        self.model.train()
        self._call("on_epoch_begin")
        self.seen.start_clock()
        data = batches(self.train, self.batch_size, self.seed, self.epoch, self.batch, self.augment)
        for batch in data:
            self._run_step(batch)
            if self.stopped:
                break
        self._finish_epoch()

    def _run_step(self, batch: tuple[Any, ...]) -> None:
        result = self.watch.value_and_grad(batch)
        self.loss = result.loss
        for p, g in zip(self.params, result.gradients, strict=True):
            p.grad = g
        if self.clip_grad_norm is not None:
            optim.clip_grad_norm_(self.params, self.clip_grad_norm)
        self.optimizer.step()
        if self.schedule is not None and self.schedule_every == "step":
            self.schedule.step()
        self.step += 1
        self.batch += 1
        self.seen.add(result, batch)
        self._call("on_step_end")
        if self.checkpoint_every and self.step % self.checkpoint_every == 0:
            self.save()
        if self.interrupt.requested:
            self.save()
            raise KeyboardInterrupt("training was interrupted")

    def compute(self, batch: tuple[Any, ...], key: int) -> Any:
        """Value and gradients on one batch with the dropout masks of ``key``."""
        return value_and_grad(
            self.objective, self.model, batch, params=self.params,
            shard_size=self.shard_size, workers=self.workers, key=key,
        )  # fmt: skip

    def _finish_epoch(self) -> None:
        self.watch.check()
        self.seen.stop_clock()
        measured = self._measure()
        if self.schedule is not None and self.schedule_every == "epoch":
            if isinstance(self.schedule, optim.ReduceLROnPlateau):
                loss = measured.loss if measured.val_loss is None else measured.val_loss
                self.schedule.step(loss)
            else:
                self.schedule.step()
        self.history.epochs.append(measured)
        self.epoch, self.batch, self.seen = self.epoch + 1, 0, Seen()
        self._call("on_epoch_end")
        self.save()

    def _measure(self) -> Epoch:
        seen, lr = self.seen, self.optimizer.param_groups[0]["lr"]
        rate = seen.images_per_second
        epoch = Epoch(self.epoch, seen.loss, seen.accuracy, lr, seen.seconds, rate)
        if self.validate is None:
            return epoch
        result = evaluate(self.model, self.validate, workers=self.workers)
        return replace(epoch, val_loss=result.loss, val_accuracy=result.accuracy)

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

    # ------------------------------------------------------------------------ checkpoints

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a resumed run to go on as it would have."""
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shard_size": self.shard_size,
            "samples": len(self.train),
            "optimizer": type(self.optimizer).__name__,
            "callbacks": [type(c).__name__ for c in self.callbacks if c.state_dict()],
        }

    def save(self) -> None:
        """Write the checkpoint, where one was asked for."""
        if self.checkpoint is None:
            return
        state = {
            "settings": self._settings(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "seen": self.seen.to_dict(),
            "history": self.history.to_list(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "callbacks": [c.state_dict() for c in self.callbacks if c.state_dict()],
        }
        save_checkpoint(self.checkpoint, self.model, self.optimizer, state)

    def restore(self, path: PathLike) -> None:
        """Go on from a checkpoint."""
        saved = read_checkpoint(path)
        theirs, ours = saved.state["settings"], self._settings()
        differing = [
            f"{k}: {theirs.get(k)!r} there, {v!r} here"
            for k, v in ours.items()
            if theirs.get(k) != v
        ]
        if (saved.state["schedule"] is None) != (self.schedule is None):
            differing.append("a schedule is in one of them only")
        if differing:
            raise CheckpointError(
                f"{path} belongs to another run ({'; '.join(differing)}); use the same settings, "
                "or start anew with resume=False"
            )
        restore_checkpoint(saved, self.model, self.optimizer)
        if self.schedule is not None:
            self.schedule.load_state_dict(saved.state["schedule"])
        self.epoch, self.batch, self.step = (saved.state[k] for k in ("epoch", "batch", "step"))
        self.seen = Seen.from_dict(saved.state["seen"])
        self.history = History.from_list(saved.state["history"])
        keeping = [c for c in self.callbacks if c.state_dict()]
        for callback, state in zip(keeping, saved.state["callbacks"], strict=True):
            callback.load_state_dict(state)


def _check_arguments(
    model: Module, epochs: int, optimizer: optim.Optimizer, schedule_every: str,
    checkpoint: PathLike | None, checkpoint_every: int | None,
) -> None:  # fmt: skip
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"fit: epochs must be a whole number ≥ 1, got {epochs!r}")
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "fit: the optimizer holds none of the model's parameters; make it from this model's "
            ".parameters(), after the model was copied, pruned or quantized"
        )
    if schedule_every not in ("auto", "step", "epoch"):
        raise ValueError(
            f'fit: schedule_every must be "auto", "step" or "epoch", got {schedule_every!r}'
        )
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"fit: the folder of checkpoint {checkpoint} does not exist")
    if checkpoint_every is not None and (checkpoint is None or checkpoint_every < 1):
        raise ValueError("fit: checkpoint_every must be ≥ 1 and needs checkpoint=, a file to write")
