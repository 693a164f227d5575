"""``tinycompress quantize``: few-bit integers in the place of float weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinycompress.cli import common
from tinycompress.compress.quantize import QuantConfig, quantize as quantize_model
from tinycompress.format import save


@common.command
def quantize(
    file: common.ModelFile,
    out: common.OutFile = Path("quantized.tcz"),
    bits: Annotated[int, typer.Option(help="Of each weight.", min=1, max=16)] = 8,
    scheme: Annotated[str, typer.Option(help="symmetric or affine.")] = "symmetric",
    granularity: Annotated[
        str, typer.Option(help="One scale per_channel or per_tensor.")
    ] = "per_channel",
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Quantize the weights of a model; the integers are what the new file stores."""
    common.check_writable(out)
    _, test_set = common.load_data(dataset, data_dir, full)
    config = QuantConfig(bits=bits, scheme=scheme, granularity=granularity)
    save(quantize_model(common.load_model(file), config), out)
    common.show_change(file, out, test_set, workers, as_json)
