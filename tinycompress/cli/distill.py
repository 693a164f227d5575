"""``tinycompress distill``: a small network that learns from a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress import models
from tinycompress.cli import common
from tinycompress.cli.recipe import OptimizerName, ScheduleName, make_optimizer, make_schedule
from tinycompress.compress.distill import distill as distill_model
from tinycompress.format import save


@common.command
def distill(
    teacher: Annotated[
        Path,
        typer.Option(help="The .tcz file of the trained network.", exists=True, dir_okay=False),
    ],
    student: Annotated[
        str, typer.Option(help=f"One of: {', '.join(models.names())}.")
    ] = "tiny-cnn",
    out: common.OutFile = Path("student.tcz"),
    temperature: Annotated[float, typer.Option(help="Softens both networks' outputs, > 0.")] = 4.0,
    alpha: Annotated[
        float, typer.Option(help="Weight of the teacher; 1 − alpha of the labels.", min=0, max=1)
    ] = 0.9,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.", min=1)] = 5,
    lr: Annotated[float, typer.Option(help="Largest learning rate.", min=0.0)] = 0.1,
    batch_size: common.BatchSize = 128,
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    seed: common.Seed = 0,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Train a student on a teacher's softened outputs and on the labels."""
    common.check_writable(out)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    tc.manual_seed(seed)
    pupil = models.create(student)
    rule = make_optimizer(pupil, OptimizerName.sgd, lr, 0.0)
    trained = distill_model(
        common.load_model(teacher),
        pupil,
        train_set,
        temperature=temperature,
        alpha=alpha,
        epochs=epochs,
        optimizer=rule,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        progress=common.show_progress(as_json),
        **make_schedule(ScheduleName.one_cycle, rule, train_set, epochs, batch_size),
    )
    save(trained, out)
    common.show_change(teacher, out, test_set, workers, as_json)
