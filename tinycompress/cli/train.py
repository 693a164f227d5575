"""``tinycompress train``: a model from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress import models
from tinycompress.cli import common
from tinycompress.cli.recipe import (
    OptimizerName,
    ScheduleName,
    make_optimizer,
    make_schedule,
)
from tinycompress.data import RandomAffine
from tinycompress.format import save
from tinycompress.report import measure


@common.command
def train(
    model: Annotated[
        str, typer.Option(help=f"One of: {', '.join(models.names())}.")
    ] = "article-cnn",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.", min=1)] = 3,
    out: common.OutFile = Path("model.tcz"),
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    optimizer: Annotated[OptimizerName, typer.Option(help="Update rule.")] = OptimizerName.sgd,
    lr: Annotated[float, typer.Option(help="Largest learning rate.", min=0.0)] = 0.1,
    weight_decay: Annotated[
        float, typer.Option(help="Pull of the weights to zero.", min=0.0)
    ] = 0.0,
    schedule: Annotated[
        ScheduleName, typer.Option(help="How the learning rate moves.")
    ] = ScheduleName.one_cycle,
    batch_size: common.BatchSize = 128,
    augment: Annotated[
        bool, typer.Option("--augment", help="Shift, turn and scale images.")
    ] = False,
    validate: Annotated[
        float,
        typer.Option(help="Share of the training images held out to validate.", min=0, max=0.5),
    ] = 0.0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A .safetensors file, replaced after each epoch.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint.")] = False,
    seed: common.Seed = 0,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Train a model, write it to a file, and measure that file on the test images."""
    common.check_writable(out)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    held_out = None
    if validate:
        train_set, held_out = train_set.split(validate, seed=seed)
    tc.manual_seed(seed)
    network = models.create(model)
    rule = make_optimizer(network, optimizer, lr, weight_decay)
    history = tc.fit(
        network,
        train_set,
        epochs,
        rule,
        validate=held_out,
        batch_size=batch_size,
        augment=RandomAffine() if augment else None,
        seed=seed,
        workers=workers,
        checkpoint=checkpoint,
        resume=resume,
        progress=common.show_progress(as_json),
        **make_schedule(schedule, rule, train_set, epochs, batch_size),
    )
    save(network, out)
    row = measure(out, test_set, workers=workers)
    common.show([row], as_json, extra={"file": str(out), "history": history.to_list()})
