"""What the commands say: results on standard output, everything else on standard error.

Progress is for people, so it is shown on a terminal only. A program reads ``--json``: one object.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tinycompress.files import atomic_write
from tinycompress.report import Comparison, Measurement, as_text


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Let ``common.command`` decide; rich would exit with 1."""
        raise


def say(what: str | Table = "") -> None:
    """A line or a table on standard output: fitted to a terminal, cut or folded nowhere else."""
    if sys.stdout.isatty():
        console = _Terminal(markup=False, highlight=False, emoji=False)
        console.print(what, soft_wrap=isinstance(what, str))
    else:
        typer.echo(as_text(what) if isinstance(what, Table) else what)


def say_aside(text: str, style: str = "") -> None:
    """A message on standard error, not broken into lines that it does not have."""
    console = _Terminal(stderr=True, markup=False, highlight=False, emoji=False)
    console.print(text, style=style, soft_wrap=True)


def show_progress() -> bool:
    """Whether somebody is there to look at a bar."""
    return sys.stderr.isatty()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on a terminal what takes a while."""
    if not show_progress():
        yield
        return
    with _Terminal(stderr=True).status(what):
        yield


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    typer.echo(as_json(value))


def write_json(path: Path, value: Any) -> None:
    """A JSON file, replaced in one step."""
    with atomic_write(path) as file:
        file.write(f"{as_json(value)}\n".encode())


def as_json(value: Any) -> str:
    """JSON has no NaN and no infinity: a loss that is none of its numbers becomes null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_as_json(rows: Sequence[Measurement], files: Sequence[Path]) -> list[dict[str, Any]]:
    """Measurements and the files that they are of."""
    return [{**row.to_dict(), "file": str(f)} for row, f in zip(rows, files, strict=True)]


def show(rows: list[Measurement]) -> None:
    """The table of measured models."""
    say(Comparison(tuple(rows)).table())
