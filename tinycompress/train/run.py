"""The training loop.

    for each epoch, for each batch:
        value and gradients  (step.py: shards, workers; diagnose.py: NaN)
        clip, optimizer step, schedule
        callbacks, checkpoint

All that a run is stands in :class:`Run`, so that a checkpoint can put it back (``resume.py``): a
run that was killed and resumed ends with the same weights, to the bit, as one that was not.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinycompress import functional as F, optim
from tinycompress.backend import Array, on_device, to_device
from tinycompress.data import Dataset, batch_count
from tinycompress.data.batching import Augmentation, epoch_order
from tinycompress.nn import Module, Parameter
from tinycompress.train import resume
from tinycompress.train.arguments import PathLike, check_arguments
from tinycompress.train.callbacks import Callback
from tinycompress.train.diagnose import LossWatch
from tinycompress.train.evaluate import evaluate, has_classes, mean_loss
from tinycompress.train.history import Epoch, History
from tinycompress.train.interrupt import DeferredInterrupt
from tinycompress.train.objective import Objective, Supervised
from tinycompress.train.profile import section
from tinycompress.train.seen import Seen
from tinycompress.train.shards import Shard
from tinycompress.train.shared_memory import shared_empty
from tinycompress.train.step import Stepper, StepResult
from tinycompress.train.workers import Workers


@dataclass(eq=False, repr=False, kw_only=True)
class Run:
    """One training run: what it works on (the arguments of ``fit``), and where it is.

    Attributes:
        epoch: the epoch that runs, from 0.
        batch: how many batches of this epoch are done.
        step: how many updates were made in all.
        loss: the loss of the last batch, a 0-d array on the model's device.
        seen: running totals of this epoch.
        history: the epochs that ended.
        stopped: whether somebody called :meth:`stop`.
        steps_per_epoch: batches in an epoch.
        params, names: the parameters that are trained in this epoch.
        flat: all parameters side by side (``optim/flat.py``), or None where they cannot lie so.
        watch: computes the steps, and looks for NaN in their losses (``diagnose.py``).
        settings: what must be the same where a run is resumed (``resume.py``).
    """

    model: Module
    train: Dataset
    epochs: int
    optimizer: optim.Optimizer
    validate: Dataset | None
    batch_size: int
    objective: Objective
    schedule: Any
    schedule_every: str
    augment: Augmentation | None
    clip_grad_norm: float | None
    callbacks: list[Callback]
    seed: int
    shard_size: int
    checkpoint: PathLike | None
    checkpoint_every: int | None

    epoch: int = field(default=0, init=False)
    batch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    loss: Any = field(default=None, init=False)
    seen: Seen = field(default_factory=Seen, init=False)
    history: History = field(default_factory=History, init=False)
    stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.schedule_every == "auto":
            each_step = isinstance(self.schedule, optim.OneCycleLR)
            self.schedule_every = "step" if each_step else "epoch"
        self.steps_per_epoch = batch_count(self.train, self.batch_size)
        self.settings = resume.settings(self)
        device = self.model.device
        self.train = self.train.to(device)
        self.validate = None if self.validate is None else self.validate.to(device)
        self.watch = LossWatch(self)
        self.flat: optim.FlatBuffer | None = None
        self._stepper_for: tuple[Any, ...] = ()
        self._first_batch = 0
        self.find_parameters()

    def find_parameters(self) -> None:
        """See which parameters are trained: the optimizer has them and they are not frozen."""
        has = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        named = [
            (n, p) for n, p in self.model.named_parameters() if p.requires_grad and id(p) in has
        ]
        self.names: list[str] = [name for name, _ in named]
        self.params: list[Parameter] = [p for _, p in named]
        if not named:
            raise ValueError(
                "fit: no parameters that require gradients are left; did a callback freeze the "
                "whole model? run.stop() is what ends a training"
            )

    def stop(self) -> None:
        """End the run: in ``on_epoch_end`` after this epoch, elsewhere after this step.

        An epoch that is cut short is measured and stands in the history, but does not count as
        done: no ``on_epoch_end``, and a resumed run goes on inside it.
        """
        self.stopped = True

    # -------------------------------------------------------------------------- the loop

    def execute(self, workers: Workers, interrupt: DeferredInterrupt) -> None:
        """Run to the end, or until stopped."""
        self.workers, self.interrupt = workers, interrupt
        with ExitStack() as closing, on_device(self.params[0].data):
            for callback in reversed(self.callbacks):
                closing.callback(callback.close, self)
            closing.callback(self.model.zero_grad)
            closing.callback(self._release)
            self._lay_flat()
            self._call("on_fit_begin")
            while self.epoch < self.epochs and not self.stopped:
                self._run_epoch()
            self._call("on_fit_end")

    def _run_epoch(self) -> None:
        self.model.train()
        self._call("on_epoch_begin")
        self.find_parameters()  # a callback may have frozen layers, or freed some
        self._ready_steps()
        self.model.zero_grad()  # an old gradient would move a frozen weight
        self.seen.start_clock()
        self._first_batch = self.batch
        # The order goes to the device once an epoch; a batch then is a gather that waits for
        # nothing.
        order = epoch_order(len(self.train), self.seed, self.epoch)
        order = to_device(order, self.train.device)
        while self.batch < self.steps_per_epoch and not self.stopped:
            start = self.batch * self.batch_size
            self._run_step(order[start : start + self.batch_size])
        if self.batch < self.steps_per_epoch:
            self._cut_epoch_short()
        else:
            self._finish_epoch()

    def _lay_flat(self) -> None:
        """Put the parameters side by side, in memory that workers share (``optim/flat.py``)."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        if optim.FlatBuffer.fits(held):
            self.flat = optim.FlatBuffer(held, shared_empty)
            self.optimizer.use(self.flat)

    def _ready_steps(self) -> None:
        """A stepper for the parameters of this epoch; the same one while they stay the same."""
        made_for = (self.flat, *self.params)
        if [*map(id, made_for)] != [*map(id, self._stepper_for)]:
            self._stepper_for = made_for
            self.stepper = Stepper(
                self.objective, self.model, self.params, self.batch_size, self.shard_size,
                self.train.arrays, self.augment, self.flat,
            )  # fmt: skip

    def _release(self) -> None:
        self.optimizer.use(None)
        if self.flat is not None:
            self.flat.release()
            self.flat = None

    def _run_step(self, rows: Array) -> None:
        if self.flat is not None and not self.flat.intact():
            self.flat.restore()  # a callback put other arrays in the place of the weights
        if not self._nobody_meddles():
            self._see_what_is_frozen()
        result = self.watch.value_and_grad(rows)
        self.loss = result.loss
        self._update(result)
        if self.schedule is not None and self.schedule_every == "step":
            self.schedule.step()
        self.step += 1
        self.batch += 1
        with section("count the correct"):
            self.seen.add(result, self._labels(rows))
        with section("callbacks"):
            self._call("on_step_end")
        if self.checkpoint_every and self.step % self.checkpoint_every == 0:
            self.save()
        self._heed_interrupt()

    def _see_what_is_frozen(self) -> None:
        """A callback may have frozen layers, or freed some, in the middle of the epoch."""
        before = self.params
        self.find_parameters()
        if [*map(id, before)] != [*map(id, self.params)]:
            self._ready_steps()
            self.model.zero_grad()

    def _update(self, result: StepResult) -> None:
        for p, g in zip(self.params, result.gradients, strict=True):
            p.grad = g
        with np.errstate(all="ignore"):  # the watch is how an infinity is reported
            if self.clip_grad_norm is not None:
                with section("clip the gradients"):
                    optim.clip_grad_norm_(self.params, self.clip_grad_norm)
            with section("optimizer"):
                self.optimizer.step()

    def shards(self, rows: Array, key: int) -> list[Shard]:
        """The batch of these rows, cut, with the dropout masks of ``key``."""
        return self.stepper.shards(rows, key, (self.seed, self.epoch, self.batch))

    def compute(self, shards: list[Shard]) -> StepResult:
        """Value and gradients on one batch."""
        return self.stepper.compute(shards, self.workers, unchanged=self._nobody_meddles())

    def _nobody_meddles(self) -> bool:
        """Whether nothing but numbers can have changed since the step before."""
        if self.batch == self._first_batch:
            return False  # on_epoch_begin may have
        return all(c.only_looks or not _acts_on_steps(c) for c in self.callbacks)

    def _labels(self, rows: Array) -> Array | None:
        arrays = self.train.arrays
        return arrays[1][rows] if len(arrays) > 1 else None

    # ------------------------------------------------------------------ the end of an epoch

    def _finish_epoch(self) -> None:
        self.watch.check()
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
        self._heed_interrupt(saved=True)

    def _cut_epoch_short(self) -> None:
        self.save()
        if self.batch:
            self.history.epochs.append(self._measure())

    def _measure(self) -> Epoch:
        self.seen.stop_clock()
        seen, lr = self.seen, self.optimizer.param_groups[0]["lr"]
        rate = seen.images_per_second
        epoch = Epoch(self.epoch, seen.loss, seen.accuracy, lr, seen.seconds, rate)
        if self.validate is None:
            return epoch
        objective = self.objective
        criterion = objective.criterion if isinstance(objective, Supervised) else F.cross_entropy
        if not has_classes(self.validate):
            loss = mean_loss(self.model, self.validate, criterion, workers=self.workers)
            return replace(epoch, val_loss=loss)
        result = evaluate(self.model, self.validate, criterion=criterion, workers=self.workers)
        return replace(epoch, val_loss=result.loss, val_accuracy=result.accuracy)

    # -------------------------------------------------------------- callbacks, checkpoints

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

    def save(self) -> None:
        """Write the checkpoint, where one was asked for; never weights that are NaN."""
        if self.checkpoint is not None:
            self.watch.check()
            resume.save(self, self.checkpoint)

    def _heed_interrupt(self, saved: bool = False) -> None:
        if self.interrupt.requested:
            if not saved:
                self.save()
            raise KeyboardInterrupt("training was interrupted")


def _acts_on_steps(callback: Callback) -> bool:
    """Whether its ``on_step_end`` is not the empty one; it may be an attribute of the object."""
    return getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end
