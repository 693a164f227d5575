"""What a model costs and what it is worth, measured: the table at the end of everything.

A number here was measured on the *file*: the model is saved, loaded again, and the loaded one is
evaluated and timed. Bytes are the file's size. Nonzero parameters are counted, not read off a mask.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from tinycompress.data import Dataset
from tinycompress.format import load, save
from tinycompress.nn import Module, summary
from tinycompress.tables import as_text as as_text
from tinycompress.train import Workers, evaluate, predict

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: as it was given, else the file's.
        images: how many were classified.
        accuracy: the share that was right, 0 … 1.
        error: wrong predictions in percent of them.
        loss: mean cross-entropy.
        parameters: weights and biases (codes count as weights).
        nonzero: how many of them are not zero.
        bytes: size of the file.
        macs: multiply–accumulate operations for one image, zeros included.
        ms_per_1000: milliseconds for 1,000 images on this machine, median of several runs.
    """

    name: str
    images: int
    accuracy: float
    error: float
    loss: float
    parameters: int
    nonzero: int
    bytes: int
    macs: int
    ms_per_1000: float

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Rows in the order given; ``str()`` is a table for people, ``to_list()`` one for programs."""

    rows: tuple[Measurement, ...]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Measurement:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is not in {[row.name for row in self.rows]}")

    def to_list(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self.rows]

    def table(self) -> Table:
        """The rows as a rich table; where it is too wide, names are broken and numbers are not.

        "×" is how many times smaller the file is than the first row's; "ms/1k" is the time for
        1,000 images.
        """
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("model", overflow="fold")
        for head in ("accuracy", "params", "nonzero", "bytes", "×", "MACs", "ms/1k"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                Text(row.name),  # its brackets are no markup
                f"{row.accuracy:.2%}",
                f"{row.parameters:,}",
                f"{row.nonzero:,}",
                f"{row.bytes:,}",
                _three_digits(self.rows[0].bytes / row.bytes),
                _short(row.macs),
                _three_digits(row.ms_per_1000),
            )
        return table

    def __str__(self) -> str:
        return as_text(self.table())


def _three_digits(number: float) -> str:
    """0.123, 1.23, 12.3, and 1,234 whole."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"


def _short(count: int) -> str:
    """2,585,960 as 2.59M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return _three_digits(count / size) + letter
    return str(count)


def compare(
    models: Mapping[str, Module | PathLike],
    data: Dataset,
    *,
    folder: PathLike | None = None,
    workers: int | None = None,
) -> Comparison:
    """Save each model, load the file, and measure what was loaded.

    Args:
        models: name → model, or a ``.tcz`` file that is measured as it is.
        data: usually the test set.
        folder: where ``NAME.tcz`` is kept (it must exist); None for a temporary folder.
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        TypeError: something that is neither a model nor a file, or data that is no data set.
        ValueError: no models, a name that cannot be a file's, or two models for one file; nothing
            was written.
        FileNotFoundError: a file or the folder does not exist.
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError('compare: give at least one model by its name, {"float": model}')
    check_data("compare", data)
    with tempfile.TemporaryDirectory() as scratch:
        paths = _paths(models, Path(scratch if folder is None else folder))
        rows = []
        for name, model in models.items():
            if isinstance(model, Module):
                save(model, paths[name])
            rows.append(measure(paths[name], data, name=name, workers=workers))
    return Comparison(tuple(rows))


def _paths(models: Mapping[str, Module | PathLike], folder: Path) -> dict[str, Path]:
    """Where the file of each model lies, or will lie; no file is written over another."""
    paths = {name: _path(name, model, folder) for name, model in models.items()}
    written = [name for name, model in models.items() if isinstance(model, Module)]
    owners: dict[str, str] = {}
    for name in [*written, *(name for name in paths if name not in written)]:
        key = str(paths[name].resolve()).casefold()  # "A" and "a" are one file on macOS and Windows
        owner = owners.setdefault(key, name)
        if owner != name and owner in written:
            raise ValueError(
                f"compare: {owner!r} and {name!r} would both be {paths[name].name}; rename one"
            )
    return paths


def _path(name: str, model: Module | PathLike, folder: Path) -> Path:
    if isinstance(model, Module):
        return folder / f"{file_stem(name)}.tcz"
    if not isinstance(model, str | os.PathLike):
        raise TypeError(
            f"compare: {name!r} must be a model or a .tcz file, got {type(model).__name__}"
        )
    if not os.path.isfile(model):
        raise FileNotFoundError(f"compare: {name!r}: there is no file {os.fspath(model)}")
    return Path(model)


def check_data(verb: str, data: Dataset) -> None:
    """Raise where ``data`` is no data set: what ``mnist()`` returns is two."""
    if not isinstance(data, Dataset):
        advice = "; it takes one of the pair, usually test" if isinstance(data, tuple) else ""
        raise TypeError(
            f"{verb}: data must be a tc.data.Dataset, got {type(data).__name__}{advice}"
        )


def measure(
    path: PathLike, data: Dataset, *, name: str | None = None, workers: int | None = None
) -> Measurement:
    """Load the file at ``path`` and measure it on ``data``; ``name`` is the file's unless given."""
    check_data("measure", data)
    model = load(path)
    result = evaluate(model, data, workers=workers)
    counts = summary(model, data.images.shape[1:])
    return Measurement(
        name=Path(path).stem if name is None else name,
        images=result.count,
        accuracy=result.accuracy,
        error=result.error,
        loss=result.loss,
        parameters=counts.parameters,
        nonzero=counts.nonzero,
        bytes=os.path.getsize(path),
        macs=counts.macs,
        ms_per_1000=time_per_1000(model, data, workers=workers),
    )


def time_per_1000(
    model: Module, data: Dataset, *, runs: int = 5, workers: int | None = None
) -> float:
    """Milliseconds for 1,000 images: the median of ``runs``, after one that is not counted."""
    return times_per_1000([model], data, runs=runs, workers=workers)[0]


def times_per_1000(
    models: Sequence[Module], data: Dataset, *, runs: int = 5, workers: int | None = None
) -> list[float]:
    """The same of several models in turns, so that what slows the machine down slows down all."""
    images = data.images[:1000]
    seconds: list[list[float]] = [[] for _ in models]
    with Workers(workers) as team:
        for _ in range(runs + 1):
            for model, own in zip(models, seconds, strict=True):
                start = time.perf_counter()
                predict(model, images, workers=team)
                own.append(time.perf_counter() - start)
    return [statistics.median(own[1:]) * 1e6 / len(images) for own in seconds]


def file_stem(name: str) -> str:
    """A model's name as a file name: words joined by hyphens."""
    if not isinstance(name, str):
        raise TypeError(f"a model's name must be a string, got {name!r}")
    words = "".join(c if c.isalnum() or c in "._-" else " " for c in name).split()
    stem = "-".join(words).lstrip(".-")  # would hide the file, or look like an option
    if not stem:
        raise ValueError(f"{name!r} cannot be made into a file name")
    return stem
