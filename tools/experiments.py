"""What the scripts of measured results share: data, a recipe of training, and the files of results.

Hyperparameters are chosen on the first 55,000 training images by what they give on the last 5,000,
with a seed that is not reported; then each setting is trained on all 60,000, and the 10,000 test
images are looked at once for each seed. Files are written as soon as there is something to write,
so that a run that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinycompress import nn, optim
from tinycompress.data import Dataset, RandomShift, batch_count, mnist
from tinycompress.train import Callback, Workers, fit

SELECTION_SEED = 100
"""Not one of those that are reported."""


def data_of(folder: Path | None, select: bool) -> tuple[Dataset, Dataset]:
    """What to train on, and what to measure on. Choosing never sees the test images.

    Args:
        folder: with the four IDX files; None for a part of the sample that the package brings.
        select: whether it is for choosing: the last twelfth of the training images is held out.
    """
    if folder is None:
        train, test = mnist()
        train, test = train.take(2000), test.take(500)
    else:
        train, test = mnist(full=True, data_dir=folder, download=False)
    if not select:
        return train, test
    count = len(train) // 12  # 5,000 of 60,000
    rest = len(train) - count
    return train.take(rest), Dataset(train.images[rest:], train.labels[rest:], name="held out")


def train_one_cycle(
    model: nn.Module,
    train: Dataset,
    epochs: int,
    lr: float,
    seed: int,
    team: Workers,
    *,
    shift: int = 2,
    weight_decay: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """Adam with a one-cycle schedule, in place; images are shifted by up to ``shift`` pixels.

    With a ``weight_decay``, it is SGD with momentum instead.
    """
    rule: optim.Optimizer = optim.Adam(model.parameters(), lr=lr)
    if weight_decay is not None:
        rule = optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
    steps = epochs * batch_count(train, 128)
    fit(
        model,
        train,
        epochs,
        rule,
        augment=RandomShift(shift) if shift else None,
        schedule=optim.OneCycleLR(rule, max_lr=lr, total_steps=steps),
        schedule_every="step",
        clip_grad_norm=2.0,
        callbacks=callbacks,
        seed=seed,
        workers=team,
    )
    return model


# --------------------------------------------------------------------------------------- the files


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write(path: Path, value: dict[str, Any]) -> None:
    """In one step: an interrupted run leaves the old file."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    os.replace(beside, path)


def add_row(
    path: Path, head: dict[str, Any], row: dict[str, Any], numbers: Sequence[str]
) -> dict[str, Any]:
    """The file with one more seed; several processes may add to it at the same time.

    Args:
        head: what the file begins with, if there is none.
        numbers: keys of rows that mean, spread and worst are given of.
    """
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = read(path) or {**head, "seeds": []}
        file["seeds"].append(row)
        file = with_summary(file, numbers)
        write(path, file)
    path.with_suffix(".lock").unlink(missing_ok=True)
    return file


def row_of(out: Path, name: str, seed: int) -> dict[str, Any] | None:
    """What ``out/name.json`` says of this seed."""
    rows = read(out / f"{name}.json").get("seeds", ())
    return next((row for row in rows if row["seed"] == seed), None)


def pending(
    out: Path, seeds: Mapping[str, int], among: Sequence[int] | None
) -> list[tuple[int, str]]:
    """(seed, name) of what is not there yet, name by name.

    Args:
        seeds: name → how many.
        among: these seeds alone; None: all.
    """
    return [
        (seed, name)
        for name, many in seeds.items()
        for seed in range(many)
        if (among is None or seed in among) and row_of(out, name, seed) is None
    ]


def origin(command: str) -> dict[str, Any]:
    """Where a file of results comes from."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    return {"command": command, "commit": commit(), "versions": versions}


def commit() -> str:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("+changes" if changed else "")


def data_in_words(train: Dataset, test: Dataset) -> str:
    return f"{len(train):,} training images, {len(test):,} test images of MNIST"


def with_summary(file: dict[str, Any], numbers: Sequence[str]) -> dict[str, Any]:
    """Mean, standard deviation and worst (largest), over the seeds, of these numbers."""
    seeds = sorted(file["seeds"], key=lambda row: row["seed"])
    return {**file, "seeds": seeds, **summary(seeds, numbers)}


def summary(rows: Sequence[dict[str, Any]], numbers: Sequence[str]) -> dict[str, dict[str, float]]:
    """``{"mean": …, "std": …, "worst": …}``, each with one entry for each of these numbers."""
    spread = statistics.stdev if len(rows) > 1 else lambda _: 0.0
    ways: dict[str, Callable[..., float]] = {
        "mean": statistics.fmean, "std": spread, "worst": max
    }  # fmt: skip
    columns = {key: [row[key] for row in rows] for key in numbers}
    return {k: {c: round(f(v), 6) for c, v in columns.items()} for k, f in ways.items()}


def with_spread(file: Mapping[str, Any], key: str, digits: int) -> str:
    """Mean ± standard deviation; of a single seed, which has none, the number alone."""
    mean = f"{file['mean'][key]:.{digits}f}"
    return f"{mean} ± {file['std'][key]:.{digits}f}" if len(file["seeds"]) > 1 else mean


# --------------------------------------------------------------------------------- the command line


def parser_of(doc: str, topic: str, settings: Sequence[str], kept: str) -> argparse.ArgumentParser:
    """What all of the scripts may be told.

    Args:
        doc: of the script; its first line is shown.
        topic: the folder of ``results/`` that its files go to.
        settings: names to choose from.
        kept: the name, without dashes, of the option for the folder of trained networks.
    """
    parser = argparse.ArgumentParser(f"{topic}_results.py", description=doc.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="the four IDX files of MNIST")
    parser.add_argument("--quick", action="store_true", help="with the sample of the package")
    parser.add_argument("--select", action="store_true", help="choose, by images held out")
    parser.add_argument("--table", action="store_true", help="only print what the files say")
    parser.add_argument("--settings", nargs="+", choices=list(settings), default=list(settings))
    parser.add_argument("--workers", type=int, help="how many share the work; one per core")
    parser.add_argument("--out", type=Path, default=Path("results") / topic)
    folder = Path(tempfile.gettempdir()) / f"tinycompress-{topic}-{kept}"
    parser.add_argument(f"--{kept}", type=Path, default=folder, help="where networks are kept")
    parser.set_defaults(folders=("data_dir", "out", kept))
    return parser


def parsed(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> tuple[argparse.Namespace, str]:
    """(the arguments, the command that they stand in, without folders); folders are made."""
    arguments = parser.parse_args(argv)
    if not arguments.table:
        if arguments.quick == (arguments.data_dir is not None):
            parser.error("give either --data-dir FOLDER or --quick")
        for name in arguments.folders[1:]:
            getattr(arguments, name).mkdir(parents=True, exist_ok=True)
    own = ["--" + name.replace("_", "-") for name in arguments.folders]
    given = without_folders(sys.argv[1:] if argv is None else argv, own)
    return arguments, " ".join([f"python tools/{parser.prog}", *given])


def without_folders(given: Sequence[str], own: Sequence[str]) -> list[str]:
    """The arguments, without where things lie on this machine: what follows the options ``own``."""
    pairs = zip(["", *given], given, strict=False)
    return ["FOLDER" if before in own else str(each) for before, each in pairs]
