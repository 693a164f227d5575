"""``fit``: the one call that trains a model. The loop itself is in ``run.py``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tinycompress import optim
from tinycompress.data import Dataset
from tinycompress.data.batching import Augmentation
from tinycompress.nn import Module
from tinycompress.train import resume as resuming
from tinycompress.train.arguments import PathLike
from tinycompress.train.callbacks import Callback
from tinycompress.train.history import History
from tinycompress.train.interrupt import DeferredInterrupt
from tinycompress.train.objective import Objective, Supervised
from tinycompress.train.progress import ProgressBar
from tinycompress.train.run import Run
from tinycompress.train.step import SHARD_SIZE
from tinycompress.train.workers import Workers


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
    workers: Workers | int | str | None = "auto",
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
        optimizer: over the model's own parameters, or some of them (only these are trained); None
            for ``optim.Adam`` with its defaults.
        validate: evaluated after each epoch, with the criterion of ``Supervised``, else with
            cross-entropy.
        batch_size: samples per update; the last batch of an epoch may be smaller.
        objective: see ``objective.py``; None for cross-entropy.
        schedule: an ``optim`` schedule made for ``optimizer``.
        schedule_every: "step", "epoch", or "auto": OneCycleLR every step, the others every epoch.
        augment: changes the images of each shard, see ``data/augment.py``; whoever computes the
            shard does it, with random numbers that follow from seed, epoch, batch and shard.
        clip_grad_norm: the most that the norm of all gradients together may be.
        callbacks: see ``callbacks.py``.
        seed: of the order of the samples and of the augmentation. Dropout follows ``manual_seed``.
        workers: how many share the work on a CPU, "auto" or None for one per core, or a running
            :class:`~tinycompress.train.workers.Workers`. The result is the same, to the bit.
        shard_size: the most samples in one shard (``step.py``); the result depends on it.
        checkpoint: a file that is replaced after each epoch, and by Ctrl-C.
        checkpoint_every: replace it also every so many steps.
        resume: go on from ``checkpoint`` where that file exists.
        progress: show a bar on standard error.

    Raises:
        WorkerError: a worker process was killed or hung.
        NonFiniteLossError: NaN or infinity came up; names epoch, batch and operation.
        CheckpointError: ``checkpoint`` is damaged or of another run; nothing was changed.
        KeyboardInterrupt: after Ctrl-C, when the step is done and the checkpoint written.
        TypeError, ValueError: arguments that do not fit, by name.
    """
    if optimizer is None and isinstance(model, Module):
        optimizer = optim.Adam(model.parameters())
    run = Run(
        model=model,
        train=train,
        epochs=epochs,
        optimizer=optimizer,
        validate=validate,
        batch_size=batch_size,
        objective=Supervised() if objective is None else objective,
        schedule=schedule,
        schedule_every=schedule_every,
        augment=augment,
        clip_grad_norm=clip_grad_norm,
        callbacks=[*callbacks, ProgressBar()] if progress else list(callbacks),
        seed=seed,
        shard_size=shard_size,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True needs checkpoint=, the file to go on from")
    if resume and checkpoint is not None and Path(checkpoint).exists():
        resuming.restore(run, checkpoint)
    team = nullcontext(workers) if isinstance(workers, Workers) else Workers(workers)
    with team as running, DeferredInterrupt() as interrupt:
        run.execute(running, interrupt)
    return run.history
