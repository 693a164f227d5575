"""``tinycompress sensitivity``: which layers lose most when they are quantized."""

from __future__ import annotations

from typing import Annotated

import typer

import tinycompress as tc
from tinycompress.cli import common, options, output, quantization as given
from tinycompress.cli.options import (
    GranularityName,
    ObserverName,
    SchemeName,
    WeightObserverName,
)
from tinycompress.format import load


@common.command
def sensitivity(
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
    """Quantize one layer at a time, and show what the model's answers lose.

    The last row quantizes all layers together. Nothing is written.
    Divergence (how far the answers move, in nats) and signal-to-noise ratios
    (SNR) of weights w and outputs y also tell small losses apart: accuracy
    moves in steps of one image. 6 dB are one bit.
    """
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
    data = given.last(train_set, images)
    with output.busy(f"measuring each layer on {len(data):,} images …"):
        found = tc.sensitivity(
            model, config, data, calibration=given.first(train_set, calibrate), workers=workers
        )
    if as_json:
        output.print_json({"file": str(file), "config": config.to_dict(), **found.to_dict()})
    else:
        output.say(found.table())
