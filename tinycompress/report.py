"""What a model costs and what it is worth, measured: the table at the end of everything.

A number here was measured on the *file*: the model is saved, loaded again, and the loaded one is
evaluated and timed. Bytes are the file's size. Nonzero parameters are counted, not read off a mask.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tinycompress.data import Dataset
from tinycompress.format import load, save
from tinycompress.nn import Module, summary
from tinycompress.train import Workers, evaluate, predict

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        accuracy: 0 … 1 on the data given.
        error: wrong predictions in percent of them.
        loss: mean cross-entropy.
        parameters: weights and biases (codes count as weights).
        nonzero: how many of them are not zero.
        bytes: size of the file.
        macs: multiply–accumulate operations for one image, zeros included.
        ms_per_1000: milliseconds for 1,000 images on this machine, median of several runs.
    """

    name: str
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
        """The rows as a rich table, 80 columns wide.

        "×" is how many times smaller the file is than the first row's; "ms/1k" is the time for
        1,000 images.
        """
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("model", no_wrap=True)
        for head in ("accuracy", "params", "nonzero", "bytes", "×", "MACs", "ms/1k"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                row.name,
                f"{row.accuracy:.2%}",
                f"{row.parameters:,}",
                f"{row.nonzero:,}",
                f"{row.bytes:,}",
                f"{self.rows[0].bytes / row.bytes:.3g}",
                _short(row.macs),
                f"{row.ms_per_1000:.0f}",
            )
        return table

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=120, no_color=True).print(self.table())
        return text.getvalue().rstrip("\n")


def _short(count: int) -> str:
    """2,585,960 as 2.59M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
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
        ValueError: no models, or a name that cannot be a file's.
    """
    if not models:
        raise ValueError("compare: give at least one model")
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch if folder is None else folder)
        rows = []
        for name, model in models.items():
            path = (
                model if isinstance(model, str | os.PathLike) else target / f"{file_stem(name)}.tcz"
            )
            if isinstance(model, Module):
                save(model, path)
            rows.append(measure(path, data, name=name, workers=workers))
    return Comparison(tuple(rows))


def measure(
    path: PathLike, data: Dataset, *, name: str | None = None, workers: int | None = None
) -> Measurement:
    """Load the file at ``path`` and measure it on ``data``."""
    model = load(path)
    result = evaluate(model, data, workers=workers)
    counts = summary(model, data.images.shape[1:])
    return Measurement(
        name=Path(path).stem if name is None else name,
        accuracy=result.accuracy,
        error=100 * result.wrong / result.count,
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
    images = data.images[:1000]
    seconds = []
    with Workers(workers) as team:
        for _ in range(runs + 1):
            start = time.perf_counter()
            predict(model, images, workers=team)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e6 / len(images)


def file_stem(name: str) -> str:
    """A model's name as a file name: words joined by hyphens."""
    stem = "-".join("".join(c if c.isalnum() or c in "._-" else " " for c in name).split())
    if not stem:
        raise ValueError(f"{name!r} cannot be made into a file name")
    return stem
