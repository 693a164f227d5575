"""``tinycompress quantize``: few-bit integers in the place of float weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinycompress.cli import common, options
from tinycompress.cli.options import GranularityName, SchemeName, choices
from tinycompress.compress.quantize import QuantConfig, quantize as quantize_model
from tinycompress.format import load, save


@common.command
def quantize(
    file: options.ModelFile,
    out: options.OutFile = Path("quantized.tcz"),
    bits: Annotated[int, typer.Option(metavar="N", help="Of each weight.", min=1, max=16)] = 8,
    scheme: Annotated[
        SchemeName,
        typer.Option(
            metavar="NAME",
            help="Codes on both sides of 0 (symmetric), or from the least weight on (affine).",
        ),
    ] = SchemeName.symmetric,
    granularity: Annotated[
        GranularityName,
        typer.Option(
            metavar="NAME", help=f"What has a scale of its own: {choices(GranularityName)}."
        ),
    ] = GranularityName.per_channel,
    group_size: Annotated[
        int | None, typer.Option(metavar="N", help="Weights in a group, with per_group.", min=1)
    ] = None,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Quantize the weights of a model; the integers are what the new file stores."""
    common.check_writable(out, source=file)
    with common.usage("--bits, --scheme, --granularity, --group-size"):
        config = QuantConfig(bits, scheme.value, granularity.value, group_size)
    model = load(file)
    _, test_set = common.load_data(dataset, data_dir, full)
    save(quantize_model(model, config), out)
    common.show_change(file, out, test_set, workers, as_json)
