"""``tinycompress train``: a model from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import tinycompress as tc
from tinycompress import models
from tinycompress.cli import common, options, output
from tinycompress.cli.options import ModelName, OptimizerName, ScheduleName, choices
from tinycompress.cli.recipe import CLIP_NORM, make_optimizer, make_schedule
from tinycompress.data import RandomAffine
from tinycompress.format import save
from tinycompress.report import Measurement
from tinycompress.train import History
from tinycompress.train.profile import Profile, StepProfile


@common.command
def train(
    model: Annotated[
        ModelName, typer.Option(metavar="NAME", help=f"{choices(ModelName)}.")
    ] = ModelName.article_cnn,
    epochs: Annotated[
        int, typer.Option(metavar="N", help="Passes over the training images.", min=1)
    ] = 3,
    out: options.OutFile = Path("model.tcz"),
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    optimizer: Annotated[
        OptimizerName, typer.Option(metavar="NAME", help=f"Update rule: {choices(OptimizerName)}.")
    ] = OptimizerName.sgd,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest learning rate.",
            min=0.0,
            show_default="0.1; 0.002 for adam and adamw",
        ),
    ] = None,
    weight_decay: Annotated[
        float, typer.Option(metavar="X", help="Pull of the weights to zero.", min=0.0)
    ] = 0.0,
    schedule: Annotated[
        ScheduleName,
        typer.Option(metavar="NAME", help=f"How the learning rate moves: {choices(ScheduleName)}."),
    ] = ScheduleName.one_cycle,
    clip_norm: Annotated[
        float,
        typer.Option(metavar="X", help="Longest gradient; 0 for any length.", min=0.0),
    ] = CLIP_NORM,
    batch_size: options.BatchSize = 128,
    augment: Annotated[
        bool, typer.Option("--augment", help="Shift, turn and scale images.")
    ] = False,
    validate: Annotated[
        float,
        typer.Option(
            metavar="X", help="Share of the training images held out to validate.", min=0, max=0.5
        ),
    ] = 0.0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .safetensors file, replaced after each epoch."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from --checkpoint, if that file exists.")
    ] = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where a step's time goes; trains on one worker."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a model, write it to a file, and measure that file on the test images."""
    _check_files(out, checkpoint, resume)
    if profile and workers not in (None, 1):
        raise typer.BadParameter("--profile measures one worker, in this process: no --workers")
    steps = StepProfile()
    tc.manual_seed(seed)
    network = models.create(model.value)
    with common.usage("--lr, --weight-decay"):
        rule = make_optimizer(network, optimizer, lr, weight_decay)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    held_out = None
    if validate:
        train_set, held_out = train_set.split(validate, seed=seed)
    with _advice_on_interrupt(checkpoint):
        history = tc.fit(
            network,
            train_set,
            epochs,
            rule,
            validate=held_out,
            batch_size=batch_size,
            augment=RandomAffine() if augment else None,
            callbacks=[steps] if profile else [],
            seed=seed,
            workers=1 if profile else workers,
            clip_grad_norm=clip_norm or None,
            checkpoint=checkpoint,
            resume=resume,
            progress=output.show_progress(),
            **make_schedule(schedule, rule, train_set, epochs, batch_size),
        )
    save(network, out)
    rows = common.measure_files([out], test_set, workers)
    _show(history, out, rows, steps.profile if profile else None, as_json)


def _check_files(out: Path, checkpoint: Path | None, resume: bool) -> None:
    common.check_writable(out)
    if checkpoint is not None:
        common.check_writable(checkpoint, "--checkpoint")
        if checkpoint.resolve() == out.resolve():
            raise typer.BadParameter("--out and --checkpoint are the same file")
    elif resume:
        raise typer.BadParameter("--resume needs --checkpoint, the file to go on from")


@contextmanager
def _advice_on_interrupt(checkpoint: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint is not None and checkpoint.exists():
            advice = f"the same command with --resume goes on from {checkpoint}"
        else:
            advice = "nothing was kept, as --checkpoint FILE would have"
        raise KeyboardInterrupt(f"interrupted; {advice}") from None


def _show(
    history: History, file: Path, rows: list[Measurement], profile: Profile | None, as_json: bool
) -> None:
    times = None if profile is None else _profile_as_json(profile)
    if as_json:
        found = {**output.rows_as_json(rows, [file])[0], "history": history.to_list()}
        output.print_json(found if times is None else {**found, "profile": times})
        return
    output.say(_history_table(history))
    output.say()
    if times is not None:
        output.say(f"{times['steps']} steps were measured, on one worker, in this process")
        output.say(_profile_table(times))
        output.say()
    output.show(rows)
    output.say(f"written to {file}")


def _history_table(history: History) -> Table:
    """A line for each epoch; losses and accuracies in training, then those of the images held out.

    The ones in training are means over an epoch in which the weights still moved.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    validated = any(epoch.val_loss is not None for epoch in history)
    heads = ["epoch", "loss", "accuracy", *(["val loss", "val accuracy"] * validated), "images/s"]
    for head in heads:
        table.add_column(head, justify="right")
    for e in history:
        held_out = [_loss(e.val_loss), _share(e.val_accuracy)] * validated
        speed = f"{e.images_per_second:,.0f}"
        table.add_row(str(e.epoch + 1), _loss(e.loss), _share(e.accuracy), *held_out, speed)
    return table


def _profile_as_json(profile: Profile) -> dict[str, Any]:
    """Times in milliseconds per step; those of the rows add up to the step's."""
    steps, seconds = max(profile.steps, 1), max(profile.seconds, 1e-9)
    rows = [
        {
            "name": row.name,
            "calls_per_step": row.calls / steps,
            "forward_ms": 1000 * row.forward / steps,
            "backward_ms": 1000 * row.backward / steps,
            "ms": 1000 * row.seconds / steps,
            "share": row.seconds / seconds,
        }
        for row in profile.table()
    ]
    step_ms = 1000 * profile.seconds / steps
    return {"workers": 1, "steps": profile.steps, "step_ms": step_ms, "rows": rows}


def _profile_table(found: dict[str, Any]) -> Table:
    """A line for each operation and for what a step does beside them, and their sums."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ms per step")
    for head in ("calls", "forward", "backward", "together", "share"):
        table.add_column(head, justify="right")
    sums = {key: sum(row[key] for row in found["rows"]) for key in ("forward_ms", "backward_ms")}
    whole = {"name": "step", "calls_per_step": 0, **sums, "ms": found["step_ms"], "share": 1.0}
    for row in (*found["rows"], whole):
        calls = f"{row['calls_per_step']:.4g}" if row["calls_per_step"] else ""
        ways = [f"{row[k]:.2f}" if row[k] else "" for k in ("forward_ms", "backward_ms")]
        table.add_row(row["name"], calls, *ways, f"{row['ms']:.2f}", f"{row['share']:.1%}")
    return table


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value < 1000 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
