"""What the commands share: options, the data they name, output, errors and exit codes.

Exit codes: 0 done; 1 it could not be done, and one line on standard error says why; 2 the command
line itself is wrong; 130 interrupted. Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from tinycompress import data as datasets
from tinycompress.data import Dataset
from tinycompress.files import atomic_write
from tinycompress.format import load
from tinycompress.nn import Module
from tinycompress.report import Comparison, Measurement, measure

out = Console(width=None if sys.stdout.isatty() else 100)
err = Console(stderr=True)

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the four MNIST files: train and test on the full set.",
        show_default="the bundled sample",
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Use all 60,000 images: from TINYCOMPRESS_DATA or the cache, else downloaded.",
    ),
]
Name = Annotated[str, typer.Option("--dataset", help="mnist or fashion-mnist.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Seed = Annotated[
    int, typer.Option(help="Of the initial weights, the order of images, dropout.", min=0)
]
CoreCount = Annotated[
    int | None,
    typer.Option("--workers", help="How many share the work.", min=1, show_default="one per core"),
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .tcz file.", exists=True, dir_okay=False)
]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="The .tcz file to write.")]
BatchSize = Annotated[int, typer.Option(help="Images per update.", min=1)]

Command = TypeVar("Command", bound=Callable[..., Any])


def command(function: Command) -> Command:
    """Turn the library's errors into one line and exit code 1, Ctrl-C into exit code 130."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            err.print("interrupted", style="yellow")
            raise typer.Exit(130) from None
        except (ValueError, TypeError, RuntimeError, OSError, ArithmeticError) as error:
            if os.environ.get("TINYCOMPRESS_TRACEBACK"):
                raise
            err.print(f"error: {describe(error)}", style="red", markup=False, highlight=False)
            raise typer.Exit(1) from None

    return guarded  # type: ignore[return-value]


def describe(error: BaseException) -> str:
    """An error in one line, with the layer it came from."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("in ")]
    return " ".join([str(error) or type(error).__name__, *(f"({note})" for note in notes[:1])])


def load_data(name: str, data_dir: Path | None, full: bool) -> tuple[Dataset, Dataset]:
    """(train, test) as the options say; a download shows its progress."""
    if name == "fashion-mnist":
        return datasets.fashion_mnist(data_dir=data_dir, progress=True)
    if name != "mnist":
        raise typer.BadParameter(f"there is no data set {name!r}; choose mnist or fashion-mnist")
    if data_dir is None and not full:
        return datasets.mnist()
    return datasets.mnist(full=True, data_dir=data_dir, progress=True)


def load_model(path: Path) -> Module:
    """The model in a ``.tcz`` file."""
    return load(path)


def check_writable(path: Path) -> None:
    """Refuse an output file before hours of training rather than after."""
    if not path.parent.is_dir():
        raise typer.BadParameter(f"the folder {path.parent} does not exist", param_hint="--out")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, not a file", param_hint="--out")


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def show_progress(as_json: bool) -> bool:
    """Bars are for people: on a terminal, and not beside JSON for a program."""
    return err.is_terminal and not as_json


def show(
    rows: list[Measurement],
    as_json: bool,
    extra: dict[str, Any] | None = None,
    as_list: bool = False,
) -> None:
    """Measured models as a table, or as JSON: one object, or a list with ``as_list``."""
    if not as_json:
        out.print(Comparison(tuple(rows)).table())
    elif as_list:
        print_json([row.to_dict() for row in rows])
    else:
        print_json({**rows[0].to_dict(), **(extra or {})})


def show_change(
    before: Path, after: Path, data: Dataset, workers: int | None, as_json: bool
) -> None:
    """A file and what was made of it, side by side; as JSON, the new one with the old inside."""
    rows = [measure(path, data, workers=workers) for path in (before, after)]
    if as_json:
        print_json({**rows[1].to_dict(), "file": str(after), "before": rows[0].to_dict()})
    else:
        show(rows, as_json)
        out.print(f"written to {after}", highlight=False)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, replaced in one step."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
