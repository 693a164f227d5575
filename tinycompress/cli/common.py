"""What the commands share: data and files that their options name, errors, exit codes.

Exit codes: 0 done; 1 it could not be done, and standard error says why (in one line, in a pipe); 2
the command line itself is wrong; 130 interrupted; 141 the reader of the output went away. With the
environment variable ``TINYCOMPRESS_TRACEBACK`` set, an error shows where it came from; with
``TINYCOMPRESS_QUICK``, a few hundred images stand for all, to see a command work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

import typer

from tinycompress import data as datasets
from tinycompress.cli.options import DatasetName
from tinycompress.cli.output import (
    busy,
    print_json,
    rows_as_json,
    say,
    say_aside,
    show,
    show_progress,
)
from tinycompress.data import Dataset
from tinycompress.files import replaceable
from tinycompress.format import FormatError
from tinycompress.report import Measurement, measure

QUICK_TRAIN, QUICK_TEST = 256, 250
FAILURES = (ValueError, TypeError, RuntimeError, OSError, ArithmeticError, MemoryError)

Command = TypeVar("Command", bound=Callable[..., Any])


def command(function: Command) -> Command:
    """Turn the library's errors into one line and exit code 1, Ctrl-C into exit code 130."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(141) from None
        except KeyboardInterrupt as interrupt:
            say_aside(str(interrupt) or "interrupted", style="yellow")
            raise typer.Exit(130) from None
        except FAILURES as error:
            _drop_output()
            if os.environ.get("TINYCOMPRESS_TRACEBACK"):
                raise
            text = f"error: {describe(error)}"
            say_aside(text if sys.stderr.isatty() else one_line(text), style="red")
            raise typer.Exit(1) from None

    return guarded  # type: ignore[return-value]


def _drop_output() -> None:
    """What standard output did not take (a closed pipe, a full disk) is not tried again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: BaseException) -> str:
    """An error in words: what, which layer or file, and what to do."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("in ")]
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if isinstance(error, FormatError) and error.offset == 0 and error.path:
        text += f". {_advice(Path(error.path))}"
    return " ".join([text, *(f"({note})" for note in notes[:1])])


def _advice(path: Path) -> str:
    """What to do with a file that does not even begin like a model."""
    with open(path, "rb") as file:
        head = file.read(10)
    if head[8:] == b'{"':  # after eight bytes of length, as safetensors files begin
        return (
            "It looks like a safetensors file, which holds weights and not the layers they belong "
            "to; a checkpoint goes to train --checkpoint FILE --resume, which writes the model"
        )
    return "Models are the files that --out and tc.save write"


def one_line(text: str) -> str:
    """Lines joined by semicolons, except where a line ends in a mark of its own."""
    first, *rest = (line.strip() for line in text.splitlines() if line.strip())
    for line in rest:
        first += f" {line}" if first[-1] in ":.;," else f"; {line}"
    return first


def refuse_if_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse parameters of the command that say nothing here, rather than ignore them."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(why, param_hint=f"--{name.replace('_', '-')}")


@contextmanager
def usage(option: str) -> Iterator[None]:
    """What the library refuses of an option is an error of usage: exit code 2."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def load_data(name: DatasetName, data_dir: Path | None, full: bool) -> tuple[Dataset, Dataset]:
    """(train, test) as the options say; a download shows its progress.

    A folder that was named is searched; only ``--full`` may download what it lacks.
    """
    how: dict[str, Any] = {
        "data_dir": data_dir,
        "download": full or data_dir is None,
        "progress": show_progress(),
    }
    if name == DatasetName.fashion_mnist:
        train, test = datasets.fashion_mnist(**how)
    elif data_dir is None and not full:
        train, test = datasets.mnist()
    else:
        train, test = datasets.mnist(full=True, **how)
    if os.environ.get("TINYCOMPRESS_QUICK"):
        return first(train, QUICK_TRAIN), first(test, QUICK_TEST)
    return train, test


def first(data: Dataset, count: int) -> Dataset:
    """So many images, or all where there are fewer."""
    return data.take(min(count, len(data)))


def last(data: Dataset, count: int) -> Dataset:
    """The same from the end: as far as can be from those that calibrate."""
    start = max(0, len(data) - count)
    return Dataset(data.images[start:], data.labels[start:], name=data.name)


def check_writable(path: Path, option: str = "--out", source: Path | None = None) -> None:
    """Refuse an output file before hours of training rather than after.

    Args:
        path: the file.
        option: that named it.
        source: the file it is made from, which it must not replace.
    """
    try:
        target = replaceable(path)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if not os.access(target.parent, os.W_OK):
        raise typer.BadParameter(f"cannot write to {target.parent}", param_hint=option)
    try:  # a name that is too long, or a folder that takes no files whatever its permissions say
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write {path}: {error.strerror}", param_hint=option
        ) from None
    if source is not None and target == source.resolve():
        raise typer.BadParameter(
            f"{path} is what the new file is made from; give it another name", param_hint=option
        )


def measure_files(files: list[Path], data: Dataset, workers: int | None) -> list[Measurement]:
    """A row for each file, named by its stem, or by its path where stems are the same."""
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    rows = []
    for file, name in zip(files, names, strict=True):
        with busy(f"measuring {file} on {len(data):,} images …"):
            rows.append(measure(file, data, name=name, workers=workers))
    return rows


def show_change(
    before: Path,
    after: Path,
    data: Dataset,
    workers: int | None,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """A file and what was made of it, side by side; as JSON, the new one with the old inside.

    ``more`` is what else the JSON object says.
    """
    files = [before, after]
    rows = measure_files(files, data, workers)
    if as_json:
        old, new = rows_as_json(rows, files)
        print_json({**new, **(more or {}), "before": old})
        return
    show(rows)
    say(f"written to {after}")
