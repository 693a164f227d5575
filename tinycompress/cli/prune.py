"""``tinycompress prune``: weights that are zero, and training that keeps them so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress.cli import common, options, output
from tinycompress.cli.options import (
    ImportanceName,
    OptimizerName,
    ScheduleName,
    ScopeName,
    choices,
)
from tinycompress.cli.recipe import CLIP_NORM, make_optimizer, make_schedule
from tinycompress.compress.prune import prune as prune_model
from tinycompress.compress.prune.one_shot import check_sparsity
from tinycompress.format import load, save


@common.command
def prune(
    file: options.ModelFile,
    out: options.OutFile = Path("pruned.tcz"),
    sparsity: Annotated[
        float,
        typer.Option(metavar="X", help="Share of the weights that become zero, below 1.", min=0.0),
    ] = 0.9,
    importance: Annotated[
        ImportanceName,
        typer.Option(metavar="NAME", help=f"Ranks the weights: {choices(ImportanceName)}."),
    ] = ImportanceName.magnitude,
    scope: Annotated[
        ScopeName,
        typer.Option(
            metavar="NAME", help="Rank over all layers together (global) or in each (local)."
        ),
    ] = ScopeName.in_all,
    epochs: Annotated[
        int, typer.Option(metavar="N", help="Of retraining with the zeros held.", min=0)
    ] = 2,
    lr: Annotated[float, typer.Option(metavar="X", help="Largest learning rate.", min=0.0)] = 0.05,
    batch_size: options.BatchSize = 128,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Prune the weights of a model and retrain what is left."""
    common.check_writable(out, source=file)
    with common.usage("--sparsity"):
        check_sparsity("it", sparsity)
    model = load(file)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    tc.manual_seed(seed)
    model = prune_model(
        model,
        sparsity,
        importance=importance.value,
        scope=scope.value,
        data=train_set.take(min(1024, len(train_set))),
        seed=seed,
    )
    if epochs:
        with common.usage("--lr"):
            rule = make_optimizer(model, OptimizerName.sgd, lr, 0.0)
        tc.fit(
            model,
            train_set,
            epochs,
            rule,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            clip_grad_norm=CLIP_NORM,
            progress=output.show_progress(),
            **make_schedule(ScheduleName.one_cycle, rule, train_set, epochs, batch_size),
        )
    save(model, out)
    common.show_change(file, out, test_set, workers, as_json)
