"""``tinycompress info``: what a file holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tinycompress import nn
from tinycompress.cli import common, options, output
from tinycompress.format import FileInfo, inspect, load

DIGIT = (1, 28, 28)


@common.command
def info(
    file: options.ModelFile,
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="C,H,W", help="Of one input, such as 3,32,32.", show_default="1,28,28"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show a file's layers, and what each tensor in it costs.

    Places, values and tables are the parts of its bytes: where the weights
    stand that were kept, what they are, and what a reader must know before.
    Beside the bits that each code takes stands the entropy, the least that is
    possible without looking at neighbours.
    """
    shape = None if input_shape is None else _parse_shape(input_shape)
    found = inspect(file)
    layers, ran = _summary(load(file), shape)
    if as_json:
        output.print_json(_as_dict(found, layers, ran))
        return
    output.say(f"{found.path}: {found.model}, {found.bytes:,} bytes, format {found.version}\n")
    if ran:
        output.say(str(layers))
    else:
        output.say(f"{layers.parameters:,} parameters, {layers.nonzero:,} of them not zero.")
        output.say("It does not take digits: --input-shape C,H,W shows its layers at work.")
    output.say()
    output.say(_tensor_table(found))


def _parse_shape(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise typer.BadParameter(
            f"{text!r} is no shape; give sizes such as 3,32,32", param_hint="--input-shape"
        )
    return tuple(map(int, sizes))


def _summary(model: nn.Module, shape: tuple[int, ...] | None) -> tuple[nn.Summary, bool]:
    """The layers, and whether a sample went through them: not every network takes a digit."""
    if shape is not None:
        return nn.summary(model, shape), True
    try:
        return nn.summary(model, DIGIT), True
    except common.FAILURES:
        return nn.summary(model, None), False


def _tensor_table(found: FileInfo) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    for head in ("shape", "kept as"):
        table.add_column(head)
    for head in ("places", "values", "tables", "bytes", "bits each", "entropy"):
        table.add_column(head, justify="right", no_wrap=True)
    for t in found.tensors:
        shape = "×".join(map(str, t.shape)) or "one number"
        parts = (f"{n:,}" if n else "" for n in (t.index_bytes, t.value_bytes, t.table_bytes))
        entropy = "" if t.dtype.startswith("float") else _bits(t.entropy)
        bits = (_bits(t.bits_per_weight), entropy)
        table.add_row(Text(t.name), shape, t.how, *parts, f"{t.bytes:,}", *bits)
    rest = {
        "architecture": found.architecture_bytes,
        "header, lengths, checksums": found.overhead_bytes,
        "file": found.bytes,
    }
    for name, size in rest.items():
        table.add_row(name, "", "", "", "", "", f"{size:,}", "", "")
    return table


def _bits(bits: float) -> str:
    return f"{bits:.2f}" if bits >= 1 else f"{bits:.4f}"


def _as_dict(found: FileInfo, layers: nn.Summary, ran: bool) -> dict[str, Any]:
    return {
        "file": found.path,
        "bytes": found.bytes,
        "version": found.version,
        "architecture": found.architecture,
        "parameters": layers.parameters,
        "nonzero": layers.nonzero,
        "macs": layers.macs if ran else None,
        "layers": [asdict(row) for row in layers.layers] if ran else None,
        "tensors": [asdict(t) for t in found.tensors],
    }
