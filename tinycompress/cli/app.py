"""The ``tinycompress`` program and its commands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import tinycompress
from tinycompress.cli.compare import compare
from tinycompress.cli.compress import compress
from tinycompress.cli.data import data
from tinycompress.cli.demo import demo
from tinycompress.cli.distill import distill
from tinycompress.cli.evaluate import evaluate
from tinycompress.cli.info import info
from tinycompress.cli.prune import prune
from tinycompress.cli.quantize import quantize
from tinycompress.cli.sensitivity import sensitivity
from tinycompress.cli.train import train

app = typer.Typer(
    name="tinycompress",
    help="Train a small CNN on MNIST, then make it smaller: quantize, prune, distill, compress.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinycompress {tinycompress.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("quantize")(quantize)
app.command("sensitivity")(sensitivity)
app.command("prune")(prune)
app.command("distill")(distill)
app.command("compress")(compress)
app.command("compare")(compare)
app.command("info")(info)
app.command("data")(data)


def main() -> None:
    """The entry point of the installed program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where "×" cannot be written, "?" is
    app()
