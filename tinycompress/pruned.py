"""``tc.pruning_report``: what pruning really gained, measured on the files.

A zero is worth something only where somebody leaves it out. The file does: it writes which weights
are zero in a bit each or less, and not the zeros themselves (``format/codecs.py``). NumPy does not:
a matrix product multiplies by zeros as by any other number. So zeros save bytes and not time, and
only channels that are really gone (``tc.remove_channels``) save multiplications and time. The
report counts and times both, and says which of the two happened.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tinycompress import nn
from tinycompress.compress.prune.costs import macs_of_nonzero
from tinycompress.compress.prune.sparsity import SparsityReport, sparsity_report
from tinycompress.data import Dataset
from tinycompress.format import load, save
from tinycompress.nn import summary
from tinycompress.report import check_data, times_per_1000
from tinycompress.tables import as_text, table_of
from tinycompress.train import evaluate

PathLike = str | os.PathLike[str]
LESS_TIME = 0.95
"""From which share of the time on "less time" is said; below it lies what clocks scatter."""


@dataclass(frozen=True)
class PrunedMeasurement:
    """One model, loaded from its file.

    Attributes:
        accuracy: the share of the images that was right, 0 … 1.
        parameters: weights, biases and norms.
        weights, zeros: of linear and convolutional layers, and how many of them are 0, counted.
        dense_bytes: of all parameters as a plain array of float32, four bytes each.
        bytes: size of the file, in which zeros are left out.
        macs: multiplications for one image, those by zero included, as they are done.
        nonzero_macs: those by a weight that is not 0: what is left if somebody skips the others.
        ms_per_1000: milliseconds for 1,000 images on this machine, the median of several runs in
            turns with the other model's.
    """

    accuracy: float
    parameters: int
    weights: int
    zeros: int
    dense_bytes: int
    bytes: int
    macs: int
    nonzero_macs: int
    ms_per_1000: float


@dataclass(frozen=True)
class PruningReport:
    """Before and after; ``str()`` is a table with a sentence below, ``to_dict()`` for programs.

    Attributes:
        images: how many were classified.
        before, after: the two models.
        layers: zeros of each layer of the new one.
    """

    images: int
    before: PrunedMeasurement
    after: PrunedMeasurement
    layers: SparsityReport

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON values."""
        return {**asdict(self), "layers": self.to_list(), "says": self.says()}

    def to_list(self) -> list[dict[str, Any]]:
        """Name, weights and zeros of each layer of the new model."""
        return [asdict(layer) for layer in self.layers.layers]

    def table(self) -> Table:
        """A quantity in each line; "×" is how many times less it became."""
        rows = []
        for name, field, form in (
            ("accuracy", "accuracy", "{:.2%}"),
            ("parameters", "parameters", "{:,}"),
            ("weights that are 0", "zeros", "{:,}"),
            ("bytes, dense float32", "dense_bytes", "{:,}"),
            ("bytes of the file", "bytes", "{:,}"),
            ("MACs", "macs", "{:,}"),
            ("MACs by a nonzero weight", "nonzero_macs", "{:,}"),
            ("ms per 1,000 images", "ms_per_1000", "{:.1f}"),
        ):
            old, new = getattr(self.before, field), getattr(self.after, field)
            times = "" if field in ("accuracy", "zeros") or not new else f"{old / new:.2f}"
            rows.append((name, form.format(old), form.format(new), times))
        return table_of(("", "before", "after", "×"), rows)

    def says(self) -> str:
        """In words what was gained, and what was not."""
        old, new = self.before, self.after
        share = new.zeros / new.weights
        time = f"{new.ms_per_1000 / old.ms_per_1000:.2f} times the time of before"
        lines = []
        if new.zeros > old.zeros:
            saves = "bytes" if new.bytes < old.bytes else "no bytes"
            lines.append(
                f"{share:.2%} of the weights are zero. That saves {saves} in the file "
                f"({new.bytes:,} instead of {old.bytes:,}) and no time: NumPy multiplies by zeros "
                "too."
            )
        if new.macs < old.macs:
            lines.append(
                f"{1 - new.macs / old.macs:.2%} of the multiplications are really gone, and it "
                f"takes {time}."
            )
        elif new.macs == old.macs:
            lines.append(f"All {new.macs:,} multiplications are done as before; it takes {time}.")
            if new.ms_per_1000 < LESS_TIME * old.ms_per_1000:
                lines.append("That it is less is not owed to the zeros.")
        return " ".join(lines)

    def __str__(self) -> str:
        return f"{as_text(self.table())}\n\n{self.says()}"


def pruning_report(
    before: nn.Module | PathLike,
    after: nn.Module | PathLike,
    data: Dataset,
    *,
    workers: int | None = None,
) -> PruningReport:
    """Save both models, load the files, and measure what was loaded.

    Args:
        before, after: models, or ``.tcz`` files, which are measured as they are.
        data: usually the test set. Time is taken on its first 1,000 images.
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        TypeError: something that is neither a model nor a file, or data that is no data set.
        ValueError: a model without a linear or convolutional layer.
    """
    check_data("pruning_report", data)
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            _path(model, Path(folder) / f"{name}.tcz")
            for name, model in (("before", before), ("after", after))
        ]
        models = [load(path) for path in paths]
        sizes = [os.path.getsize(path) for path in paths]
    times = times_per_1000(models, data, workers=workers)
    rows = [
        _measured(model, size, ms, data, workers)
        for model, size, ms in zip(models, sizes, times, strict=True)
    ]
    return PruningReport(len(data), rows[0], rows[1], sparsity_report(models[1]))


def _path(model: Any, place: Path) -> Path:
    if isinstance(model, nn.Module):
        save(model, place)
        return place
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"pruning_report takes models or .tcz files, got {type(model).__name__}")
    return Path(model)


def _measured(
    model: nn.Module, size: int, ms: float, data: Dataset, workers: int | None
) -> PrunedMeasurement:
    shape = tuple(data.images.shape[1:])
    counts, zeros = summary(model, shape), sparsity_report(model)
    return PrunedMeasurement(
        accuracy=evaluate(model, data, workers=workers).accuracy,
        parameters=counts.parameters,
        weights=zeros.weights,
        zeros=zeros.zeros,
        dense_bytes=4 * counts.parameters,
        bytes=size,
        macs=counts.macs,
        nonzero_macs=macs_of_nonzero(model, shape),
        ms_per_1000=ms,
    )
