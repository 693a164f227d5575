"""``tinycompress prune``: weights that are zero, or channels that are gone, and training after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import tinycompress as tc
from tinycompress import nn
from tinycompress.cli import common, options, output, pruning as given
from tinycompress.cli.options import ImportanceName, RampName, ScopeName, choices
from tinycompress.cli.recipe import CLIP_NORM, check_rate, optimizer_for, rates_for, train_one_cycle
from tinycompress.compress.prune import PruneConfig, choose_sparsities, prune_iteratively
from tinycompress.compress.prune.amounts import check_sparsity
from tinycompress.data import Dataset
from tinycompress.format import load, save

RANKED_ON, JUDGES = 1024, 2000
"""How many training images derivatives are taken on, and how many of the last ones judge layers."""
SHARES = {False: (0.5, 0.7, 0.8, 0.9, 0.95, 0.98), True: (0.1, 0.25, 0.5, 0.75, 0.9)}
"""What a budget chooses from, for weights and for channels."""


@common.command
def prune(
    file: options.ModelFile,
    out: options.OutFile = Path("pruned.tcz"),
    sparsity: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Share of the weights (kernels, rows, channels) that become zero, below 1.",
            min=0.0,
            show_default="0.9; of n:m its own",
            rich_help_panel=given.AMOUNTS,
        ),
    ] = None,
    channels: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Remove this share of each layer's channels: a smaller and faster network.",
            min=0.0,
            rich_help_panel=given.AMOUNTS,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=X",
            help="Another share for a layer, or for all that fit a pattern (conv*). The others "
            "get --sparsity or --channels, or stay as they are without it. May be repeated.",
            rich_help_panel=given.AMOUNTS,
        ),
    ] = None,
    budget_parameters: given.BudgetParameters = None,
    budget_macs: given.BudgetMacs = None,
    importance: given.Importance = ImportanceName.magnitude,
    structure: given.Structure = "weight",
    scope: given.Scope = ScopeName.in_all,
    skip: given.Skip = None,
    epochs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Of training with the zeros held; with --rounds, in each.",
            min=0,
            rich_help_panel=given.WHEN,
        ),
    ] = 2,
    schedule: Annotated[
        RampName | None,
        typer.Option(
            metavar="NAME",
            help=f"Prune little by little in training: {choices(RampName)}.",
            show_default="all at once, before it",
            rich_help_panel=given.WHEN,
        ),
    ] = None,
    regrow: Annotated[
        bool,
        typer.Option(
            "--regrow",
            help="Let pruned weights come back in training (dynamic surgery).",
            rich_help_panel=given.WHEN,
        ),
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Prune and train in N rounds.",
            min=1,
            show_default="one",
            rich_help_panel=given.WHEN,
        ),
    ] = None,
    lr: Annotated[
        float,
        typer.Option(
            metavar="X", help="Largest learning rate.", min=0.0, rich_help_panel=given.WHEN
        ),
    ] = 0.05,
    batch_size: options.BatchSize = 128,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also say what was gained, and what was not.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Prune a model and train what is left.

    Zeros make the file smaller and the model no faster: NumPy multiplies by
    zeros too. Time is saved by --channels, which makes the layers smaller.
    """
    common.check_writable(out, source=file)
    budgets = (budget_parameters, budget_macs)
    for option, share in (("--sparsity", sparsity), ("--channels", channels)):
        if share is not None:
            with common.usage(option):
                check_sparsity("it", share)
    given.check_together(
        structure=structure,
        importance=importance,
        sparsity=sparsity,
        layer=layer,
        channels=channels,
        budgets=budgets,
        schedule=schedule,
        regrow=regrow,
        rounds=rounds,
        epochs=epochs,
    )
    if epochs:
        check_rate(lr)
    amount = sparsity if channels is None else channels
    layers = given.by_layer(layer, None, [])
    model = load(file)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    few = common.first(train_set, RANKED_ON)
    units = "channel" if channels is not None else structure
    how: dict[str, Any] = {"skip": tuple(skip or ()), "seed": seed, "data": few}
    more: dict[str, Any] = {}
    if any(budgets):
        config = PruneConfig(
            None if ":" in units else SHARES[units == "channel"],
            _ranking(importance),
            units,
            how["skip"],
            seed=seed,
        )
        judges = common.last(train_set, JUDGES)
        with output.busy(f"measuring each layer on {len(judges):,} images …"):
            found = tc.sensitivity(model, config, judges, gradients=few, workers=workers)
        layers = choose_sparsities(
            found, budget_parameters=budget_parameters, budget_macs=budget_macs
        )
        more["sparsities"] = layers
        if not as_json:
            output.say(found.table())
            output.say(given.as_options(layers))
    elif layers and amount is not None:
        names = given.prunable(model, units, few, skip or [])
        layers = given.by_layer(layer, amount, names)
    elif amount is None and ":" not in units:
        amount = 0.9
    how |= {"structure": units, "scope": scope.value}
    if channels is not None and layers == {}:
        how["scope"] = "local"
    job = _Job(layers or amount, importance, schedule, regrow, rounds, channels is not None, how)
    tc.manual_seed(seed)
    options_of_fit = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "workers": workers,
    }
    result = job.run(model, train_set, options_of_fit)
    save(result, out)
    if report or as_json:
        with output.busy("measuring what was gained …"):
            gained = tc.pruning_report(file, out, test_set, workers=workers)
        more["pruning"] = gained.to_dict()
        if not as_json:
            output.say(str(gained.layers))
            output.say()
            output.say(gained.table())
            output.say()
            output.say(gained.says())
            output.say()
    common.show_change(file, out, test_set, workers, as_json, more)


def _ranking(importance: ImportanceName) -> str:
    """What ranks layers before training, where movement is not yet known."""
    return "magnitude" if importance == given.MOVEMENT else importance.value


class _Job:
    """What is to be done to a model.

    Args:
        amount: a share, or a share by layer.
        importance, schedule, regrow, rounds: as on the command line.
        removes: whether channels are taken out.
        how: structure, scope, skip, seed and data of ``tc.prune``.
    """

    def __init__(
        self,
        amount: Any,
        importance: ImportanceName,
        schedule: RampName | None,
        regrow: bool,
        rounds: int | None,
        removes: bool,
        how: dict[str, Any],
    ) -> None:
        self.amount, self.importance, self.how = amount, importance, how
        self.schedule = None if schedule is None else schedule.value
        self.regrow, self.rounds, self.removes = regrow, rounds, removes

    def run(self, model: nn.Module, train_set: Dataset, fit: dict[str, Any]) -> nn.Module:
        """Pruned and trained."""
        if self.rounds is not None:
            return self._in_rounds(model, train_set, **fit)
        if self.schedule or self.regrow or self.importance == given.MOVEMENT:
            ramp = given.callback(
                self.amount, self.importance, self.schedule, self.regrow, self.how
            )
            train_one_cycle(model, train_set, **fit, callbacks=[ramp])
            return tc.remove_channels(model, sample=self.how["data"]) if self.removes else model
        if self.removes:
            how = {k: v for k, v in self.how.items() if k != "structure"}
            thin = tc.remove_channels(model, self.amount, self.importance.value, **how)
        else:
            thin = tc.prune(model, self.amount, self.importance.value, **self.how)
        if fit["epochs"]:
            train_one_cycle(thin, train_set, **fit)
        return thin

    def _in_rounds(
        self, model: nn.Module, train_set: Dataset, epochs: int, lr: float, **fit: Any
    ) -> nn.Module:
        return prune_iteratively(
            model,
            self.amount,
            self.rounds,
            train_set,
            epochs,
            optimizer=optimizer_for(lr),
            rates=rates_for(train_set, epochs, fit["batch_size"]),
            schedule=self.schedule or "exponential",
            importance=self.importance.value,
            clip_grad_norm=CLIP_NORM,
            progress=output.show_progress(),
            **self.how | fit,
        )
