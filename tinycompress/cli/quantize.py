"""``tinycompress quantize``: few-bit integers in the place of float weights, and of activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress import nn
from tinycompress.cli import common, options, output, quantization as given
from tinycompress.cli.options import (
    GranularityName,
    ObserverName,
    OptimizerName,
    SchemeName,
    WeightObserverName,
)
from tinycompress.cli.recipe import train_one_cycle
from tinycompress.compress.quantize import (
    QuantConfig,
    convert,
    equalize as equalize_channels,
    fold_batch_norm,
    prepare_qat,
    quantization_report,
    quantize as quantize_model,
)
from tinycompress.compress.quantize.mixed import MixedPrecision
from tinycompress.data import Dataset
from tinycompress.format import load, save

JUDGES = 2000
"""On how many of the last training images bits are chosen."""
LESS_LOSS, TRAINING, SIZE = "Losing less", "Training", "Size"


@common.command
def quantize(
    context: typer.Context,
    file: options.ModelFile,
    out: options.OutFile = Path("quantized.tcz"),
    bits: given.Bits = 8,
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
    equalize: Annotated[
        bool,
        typer.Option(
            "--equalize",
            help="First make the channels of neighbouring layers alike in size.",
            rich_help_panel=LESS_LOSS,
        ),
    ] = False,
    bias_correction: Annotated[
        bool,
        typer.Option(
            "--bias-correction",
            help="Take back what rounding shifts on average.",
            rich_help_panel=LESS_LOSS,
        ),
    ] = False,
    adaround: Annotated[
        bool,
        typer.Option(
            "--adaround",
            help="Round each weight up or down by what comes out. Takes seconds.",
            rich_help_panel=LESS_LOSS,
        ),
    ] = False,
    mixed: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="Choose each layer's bits so that the file has at most so many bytes.",
            min=1,
            show_default="the same --bits in each layer",
            rich_help_panel=SIZE,
        ),
    ] = None,
    candidates: Annotated[
        str,
        typer.Option(
            metavar="N,N,…", help="The bits that --mixed chooses from.", rich_help_panel=SIZE
        ),
    ] = "2,3,4,6,8",
    qat: Annotated[
        int,
        typer.Option(
            metavar="EPOCHS",
            help="Train for the codes, this many passes over the training images.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = 0,
    learn_step: Annotated[
        bool,
        typer.Option(
            "--learn-step",
            help="Let --qat learn the scales too. Best below 4 bits.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    lr: Annotated[
        float,
        typer.Option(
            metavar="X", help="Largest learning rate, Adam.", min=0.0, rich_help_panel=TRAINING
        ),
    ] = 1e-3,
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", help="Images per update.", min=1, rich_help_panel=TRAINING),
    ] = 128,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also say of each layer how it is quantized.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Quantize a model; the integers are what the new file stores.

    Without --activations only weights become integers: the file is small.
    With them the model also computes in integers, from first layer to last.
    Where few bits lose too much, try --weight-observer mse, --adaround or
    --bias-correction, and then --qat, which trains for the codes.
    """
    common.check_writable(out, source=file)
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
        learn_step=learn_step,
    )
    _check_together(config, qat, {"--adaround": adaround, "--bias-correction": bias_correction})
    if not qat:
        common.refuse_if_given(
            context, ("lr", "batch_size"), "is for training: give --qat EPOCHS too"
        )
    if mixed is None:
        common.refuse_if_given(
            context, ("candidates",), "is what --mixed chooses from: give --mixed BYTES too"
        )
    widths = _widths(candidates)
    model = load(file)
    given.check_overrides(config, model)
    train_set, test_set = common.load_data(dataset, data_dir, full)
    some = common.first(train_set, calibrate)
    fold = config.activations is not None or equalize or adaround or bias_correction or bool(qat)

    def make(config: QuantConfig) -> nn.Module:
        """Without training."""
        return quantize_model(
            model,
            config,
            some if _sees_data(config) or adaround or bias_correction or equalize else None,
            fold=fold,
            equalize=equalize,
            adaround=adaround,
            bias_correction=bias_correction,
            weights_only=config.activations is None,
        )

    choice = None
    if mixed is not None:
        judges = common.last(train_set, JUDGES)
        choice = _choose(model, judges, mixed, widths, config, some, make, bool(qat), workers)
        config = choice.config
    if qat:
        tc.manual_seed(seed)
        result = _trained(
            fold_batch_norm(model, some, strict=False),
            config,
            train_set,
            some,
            equalize=equalize,
            epochs=qat,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
        )
    else:
        with output.busy("quantizing …"):
            result = make(config)
    save(result, out)
    original = fold_batch_norm(model, some, strict=False) if fold else model
    original = equalize_channels(original, some) if equalize else original
    layers = quantization_report(original, result, config, some)
    more = {"config": config.to_dict(), "layers": layers.to_list()}
    if choice is not None:
        more["mixed"] = choice.to_dict()
        if not as_json:
            output.say(choice.table())
    if report and not as_json:
        output.say(layers.table())
    common.show_change(file, out, test_set, workers, as_json, more)


def _check_together(config: QuantConfig, qat: int, after_training: dict[str, bool]) -> None:
    """Refuse options that say nothing, or contradict each other, together."""
    if config.learn_step and not qat:
        raise typer.BadParameter(
            "is for training: give --qat EPOCHS too", param_hint="--learn-step"
        )
    if not qat:
        return
    if config.dynamic:
        raise typer.BadParameter(
            "with --dynamic there are no ranges to train with; use one of the two",
            param_hint="--qat",
        )
    for option, on in after_training.items():
        if on:
            raise typer.BadParameter(
                f"is for quantizing without training; with --qat {qat} leave it out",
                param_hint=option,
            )


def _widths(text: str) -> list[int]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 16 for part in parts):
        raise typer.BadParameter(
            f"{text!r} are no bits; give some such as 2,4,8, each from 1 to 16",
            param_hint="--candidates",
        )
    return [int(part) for part in parts]


def _sees_data(config: QuantConfig) -> bool:
    return config.activations is not None and not config.dynamic


def _choose(
    model: nn.Module,
    data: Dataset,
    budget: int,
    widths: list[int],
    config: QuantConfig,
    some: Dataset,
    make: Callable[[QuantConfig], nn.Module],
    trains: bool,
    workers: int | None,
) -> MixedPrecision:
    with output.busy(f"measuring each layer on {len(data):,} images …"):
        return tc.mixed_precision(
            model,
            data,
            budget_bytes=budget,
            candidates=widths,
            config=config,
            calibration=some,
            build=None if trains else make,
            any_codes=trains,
            workers=workers,
        )


def _trained(
    model: nn.Module,
    config: QuantConfig,
    train_set: Dataset,
    some: Dataset,
    *,
    equalize: bool,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    workers: int | None,
) -> nn.Module:
    """Trained for the codes, and converted."""
    start = equalize_channels(model, some) if equalize else model
    prepared = prepare_qat(start, config, some)
    train_one_cycle(
        prepared, train_set, epochs, lr, batch_size, seed, workers, optimizer=OptimizerName.adam
    )
    return convert(prepared)
