"""``tinycompress prune``: weights that are zero, and training that keeps them so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress.cli import common
from tinycompress.cli.recipe import OptimizerName, ScheduleName, make_optimizer, make_schedule
from tinycompress.compress.prune import prune as prune_model
from tinycompress.format import save


@common.command
def prune(
    file: common.ModelFile,
    out: common.OutFile = Path("pruned.tcz"),
    sparsity: Annotated[
        float, typer.Option(help="Share of the weights that become zero.", min=0.0, max=1.0)
    ] = 0.9,
    importance: Annotated[
        str, typer.Option(help="magnitude, gradient, taylor or random.")
    ] = "magnitude",
    scope: Annotated[
        str, typer.Option(help="Rank over all layers together (global) or in each (local).")
    ] = "global",
    epochs: Annotated[int, typer.Option(help="Of retraining with the zeros held.", min=0)] = 2,
    lr: Annotated[float, typer.Option(help="Of retraining.", min=0.0)] = 0.05,
    batch_size: common.BatchSize = 128,
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    seed: common.Seed = 0,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Prune the weights of a model and retrain what is left."""
    common.check_writable(out)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    tc.manual_seed(seed)
    model = prune_model(
        common.load_model(file),
        sparsity,
        importance=importance,
        scope=scope,
        data=train_set.take(min(1024, len(train_set))),
        seed=seed,
    )
    if epochs:
        rule = make_optimizer(model, OptimizerName.sgd, lr, 0.0)
        tc.fit(
            model,
            train_set,
            epochs,
            rule,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            progress=common.show_progress(as_json),
            **make_schedule(ScheduleName.one_cycle, rule, train_set, epochs, batch_size),
        )
    save(model, out)
    common.show_change(file, out, test_set, workers, as_json)
