"""What may be said on the command line: the options that several commands share, and choices.

A set of choices is an ``Enum``, so that anything else is refused with the list of them.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DatasetName(StrEnum):
    mnist = "mnist"
    fashion_mnist = "fashion-mnist"


class ModelName(StrEnum):
    """The names of ``tinycompress.models``."""

    article_cnn = "article-cnn"
    lenet_300_100 = "lenet-300-100"
    lenet_5 = "lenet-5"
    tiny_cnn = "tiny-cnn"


class OptimizerName(StrEnum):
    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class ScheduleName(StrEnum):
    one_cycle = "one-cycle"
    cosine = "cosine"
    none = "none"


class SchemeName(StrEnum):
    symmetric = "symmetric"
    affine = "affine"


class GranularityName(StrEnum):
    per_channel = "per_channel"
    per_tensor = "per_tensor"
    per_group = "per_group"


class ObserverName(StrEnum):
    minmax = "minmax"
    moving_average = "moving_average"
    percentile = "percentile"
    kl = "kl"
    mse = "mse"


class WeightObserverName(StrEnum):
    minmax = "minmax"
    mse = "mse"


class ImportanceName(StrEnum):
    magnitude = "magnitude"
    l2 = "l2"
    lamp = "lamp"
    gradient = "gradient"
    taylor = "taylor"
    snip = "snip"
    random = "random"
    movement = "movement"
    batch_norm = "batch_norm"
    geometric_median = "geometric_median"


class RankingName(StrEnum):
    """Those that look at weights alone, so that they cost nothing when asked often."""

    magnitude = "magnitude"
    l2 = "l2"
    lamp = "lamp"
    random = "random"


class RampName(StrEnum):
    cubic = "cubic"
    linear = "linear"
    exponential = "exponential"


class InitName(StrEnum):
    linear = "linear"
    density = "density"
    random = "random"


class ScopeName(StrEnum):
    in_all = "global"
    in_each = "local"


def choices(names: type[StrEnum]) -> str:
    """The values for ``--help``, as words that can be broken into lines."""
    return ", ".join(names)


Dataset = Annotated[
    DatasetName,
    typer.Option(
        "--dataset", metavar="NAME", help=f"{choices(DatasetName)}.", rich_help_panel="Data"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Has the four files of the full set, to train and test on that.",
        exists=True,
        file_okay=False,
        show_default="the bundled sample",
        rich_help_panel="Data",
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="All 60,000 images: from TINYCOMPRESS_DATA or the cache, else downloaded.",
        rich_help_panel="Data",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Seed = Annotated[
    int,
    typer.Option(metavar="N", help="Of the initial weights, the order of images, dropout.", min=0),
]
CoreCount = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="How many share the work.",
        min=1,
        show_default="auto: one per core",
    ),
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .tcz file.", exists=True, dir_okay=False)
]
OutFile = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The .tcz file to write.")
]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Images per update.", min=1)]
