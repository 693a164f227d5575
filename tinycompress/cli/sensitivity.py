"""``tinycompress sensitivity``: which layers lose most when they are quantized, or pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress.cli import common, options, output, pruning, quantization as given
from tinycompress.cli.options import (
    GranularityName,
    ImportanceName,
    ObserverName,
    SchemeName,
    WeightObserverName,
)
from tinycompress.compress.prune import PruneConfig, choose_sparsities
from tinycompress.data import Dataset
from tinycompress.format import load

TO_PRUNE = ("sparsities", "importance", "structure", "skip", "budget_parameters", "budget_macs")
PRUNING = "Pruning"
TO_QUANTIZE = (
    *("bits", "scheme", "granularity", "group_size", "weight_observer", "override"),
    *("activations", "activation_scheme", "observer", "percentile", "calibrate", "dynamic"),
)


@common.command
def sensitivity(
    context: typer.Context,
    file: options.ModelFile,
    bits: given.Bits = 4,
    scheme: given.Scheme = SchemeName.symmetric,
    granularity: given.Granularity = GranularityName.per_channel,
    group_size: given.GroupSize = None,
    weight_observer: given.WeightObserver = WeightObserverName.minmax,
    override: given.Override = None,
    activations: given.Activations = None,
    activation_scheme: given.ActivationScheme = SchemeName.affine,
    observer: given.Observer = ObserverName.minmax,
    percentile: given.Percentile = 99.99,
    calibrate: given.Calibrate = 512,
    dynamic: given.Dynamic = False,
    sparsities: Annotated[
        str | None,
        typer.Option(
            metavar="X,X,…",
            help="Prune each layer by these shares, such as 0.5,0.9, and do not quantize.",
            show_default="quantize",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    importance: pruning.Importance = ImportanceName.magnitude,
    structure: pruning.Structure = "weight",
    skip: pruning.Skip = None,
    budget_parameters: pruning.BudgetParameters = None,
    budget_macs: pruning.BudgetMacs = None,
    images: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Measure on the last N training images; the test images are for the end.",
            min=1,
            rich_help_panel="Data",
        ),
    ] = 2000,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Quantize or prune one layer at a time, and show what the model's answers lose.

    The last row changes all layers together. Nothing is written.
    Divergence (how far the answers move, in nats) and signal-to-noise ratios
    (SNR) of weights w and outputs y also tell small losses apart: accuracy
    moves in steps of one image. 6 dB are one bit.
    """
    prunes = _check_together(context, sparsities)
    if prunes is not None:
        if None not in (budget_parameters, budget_macs):
            raise typer.BadParameter(
                "and --budget-parameters: one of the two", param_hint="--budget-macs"
            )
        plan = _plan(prunes, importance, structure, skip)
        data = common.last(common.load_data(dataset, data_dir, full)[0], images)
        _prune(file, plan, data, budget_parameters, budget_macs, workers, as_json)
        return
    config = given.config_of(
        bits=bits,
        scheme=scheme,
        granularity=granularity,
        group_size=group_size,
        weight_observer=weight_observer,
        override=override,
        activations=activations,
        activation_scheme=activation_scheme,
        observer=observer,
        percentile=percentile,
        dynamic=dynamic,
    )
    model = load(file)
    given.check_overrides(config, model)
    train_set, _ = common.load_data(dataset, data_dir, full)
    data = common.last(train_set, images)
    with output.busy(f"measuring each layer on {len(data):,} images …"):
        found = tc.sensitivity(
            model, config, data, calibration=common.first(train_set, calibrate), workers=workers
        )
    if as_json:
        output.print_json({"file": str(file), "config": config.to_dict(), **found.to_dict()})
    else:
        output.say(found.table())


def _check_together(context: typer.Context, sparsities: str | None) -> tuple[float, ...] | None:
    """The shares to prune by, or None to quantize; refuses options of the other kind."""
    if sparsities is None:
        common.refuse_if_given(
            context, TO_PRUNE, "is for pruning: give --sparsities too, such as 0.5,0.9"
        )
        return None
    common.refuse_if_given(
        context, TO_QUANTIZE, "is for quantizing: leave it out, or leave out --sparsities"
    )
    return pruning.shares("--sparsities", sparsities)


def _plan(
    shares: tuple[float, ...], importance: ImportanceName, structure: str, skip: list[str] | None
) -> PruneConfig:
    pruning.check_ranking(importance, structure)
    if importance == pruning.MOVEMENT:
        raise typer.BadParameter("movement is only known in training", param_hint="--importance")
    with common.usage("--sparsities, --structure"):
        return PruneConfig(shares, importance.value, structure, tuple(skip or ()))


def _prune(
    file: Path,
    config: PruneConfig,
    data: Dataset,
    budget_parameters: int | None,
    budget_macs: int | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Each layer pruned alone, and what a budget would choose."""
    model = load(file)
    with output.busy(f"measuring each layer on {len(data):,} images …"):
        found = tc.sensitivity(model, config, data, workers=workers)
    chosen = None
    if budget_parameters is not None or budget_macs is not None:
        chosen = choose_sparsities(
            found, budget_parameters=budget_parameters, budget_macs=budget_macs
        )
    if as_json:
        more = {} if chosen is None else {"sparsities": chosen}
        output.print_json({"file": str(file), **found.to_dict(), **more})
        return
    output.say(found.table())
    if chosen is not None:
        output.say(pruning.as_options(chosen))
