"""``tinycompress distill``: a small network that learns from a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress import models
from tinycompress.cli import common, options, output
from tinycompress.cli.options import ModelName, OptimizerName, ScheduleName, choices
from tinycompress.cli.recipe import CLIP_NORM, make_optimizer, make_schedule
from tinycompress.compress.distill import distill as distill_model
from tinycompress.compress.distill.losses import check_weights
from tinycompress.format import load, save


@common.command
def distill(
    teacher: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The .tcz file of the trained network.",
            exists=True,
            dir_okay=False,
        ),
    ],
    student: Annotated[
        ModelName, typer.Option(metavar="NAME", help=f"{choices(ModelName)}.")
    ] = ModelName.tiny_cnn,
    out: options.OutFile = Path("student.tcz"),
    temperature: Annotated[
        float, typer.Option(metavar="X", help="Above 0; softens what both networks answer.")
    ] = 4.0,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="X", help="Weight of the teacher; 1 − alpha of the labels.", min=0, max=1
        ),
    ] = 0.9,
    epochs: Annotated[
        int, typer.Option(metavar="N", help="Passes over the training images.", min=1)
    ] = 5,
    lr: Annotated[float, typer.Option(metavar="X", help="Largest learning rate.", min=0.0)] = 0.1,
    batch_size: options.BatchSize = 128,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Train a student on a teacher's softened outputs and on the labels."""
    common.check_writable(out, source=teacher)
    with common.usage("--temperature, --alpha"):
        check_weights(temperature, alpha)
    tc.manual_seed(seed)
    pupil = models.create(student.value)
    with common.usage("--lr"):
        rule = make_optimizer(pupil, OptimizerName.sgd, lr, 0.0)
    master = load(teacher)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    trained = distill_model(
        master,
        pupil,
        train_set,
        temperature=temperature,
        alpha=alpha,
        epochs=epochs,
        optimizer=rule,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        clip_grad_norm=CLIP_NORM,
        progress=output.show_progress(),
        **make_schedule(ScheduleName.one_cycle, rule, train_set, epochs, batch_size),
    )
    save(trained, out)
    common.show_change(teacher, out, test_set, workers, as_json)
