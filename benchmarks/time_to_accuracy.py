"""Seconds of training until the article's CNN reads 99% of MNIST's test set.

    python -m benchmarks.time_to_accuracy --data-dir FOLDER --sweep     choose the recipe
    python -m benchmarks.time_to_accuracy --data-dir FOLDER             measure it

FOLDER holds MNIST's four IDX files. The sweep trains on 55,000 of the 60,000 training images and
measures on the other 5,000, so the test set takes no part in the choice; the recipe with the
highest mean accuracy there is written below as ``RECIPE`` (a test compares it with the file of the
sweep). The measurement trains on all 60,000, for each seed, with ``fit``, and then looks at the
test set once. Torch does the same with the same recipe and first weights, its fastest layout and
tuned malloc. Seconds are those of the epochs (ours as ``fit`` reports them), without the time
that measuring accuracy takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tinycompress as tc
from benchmarks import machine
from benchmarks.problems import Problem, write_problem
from benchmarks.recipe import Recipe
from benchmarks.servers import TUNED_MALLOC, Server
from tinycompress import optim
from tinycompress.data import Dataset
from tinycompress.train import Workers

RECIPE = Recipe(epochs=2, batch=128, max_lr=0.2)
GRID = {"epochs": (2,), "batch": (128,), "max_lr": (0.05, 0.1, 0.2, 0.3, 0.4)}
SWEEP_SEEDS, SEEDS = (0, 1), (1, 2, 3)
HELD_OUT = 5_000
TARGET = 0.99


def train(recipe: Recipe, data: Dataset, seed: int, team: Workers) -> tuple[Any, float]:
    """A trained model, and the seconds that its epochs took."""
    tc.manual_seed(seed)
    model = tc.models.ArticleCNN()
    sgd = optim.SGD(model.parameters(), lr=0.1, momentum=recipe.momentum)
    cycle = optim.OneCycleLR(
        sgd,
        recipe.max_lr,
        total_steps=recipe.steps(len(data)),
        pct_start=recipe.warm_up,
        cycle_momentum=False,
    )
    history = tc.fit(
        model,
        data,
        epochs=recipe.epochs,
        optimizer=sgd,
        schedule=cycle,
        batch_size=recipe.batch,
        seed=seed,
        workers=team,
    )
    return model, sum(epoch.seconds for epoch in history)


def sweep(data: Dataset, team: Workers, console: Console) -> list[dict[str, Any]]:
    """Every recipe of the grid, best first, measured on images that none of them trained on."""
    part, held_out = data.split(HELD_OUT / len(data))
    rows = []
    for values in product(*GRID.values()):
        recipe = Recipe(**dict(zip(GRID, values, strict=True)))
        accuracies, seconds = [], []
        for seed in SWEEP_SEEDS:
            model, took = train(recipe, part, seed, team)
            accuracies.append(tc.evaluate(model, held_out, workers=team).accuracy)
            seconds.append(took)
        rows.append({"recipe": recipe._asdict(), "accuracies": accuracies, "seconds": seconds})
        console.print(f"{recipe}: {statistics.mean(accuracies):.2%} {accuracies}", markup=False)
    return sorted(rows, key=lambda row: -statistics.mean(row["accuracies"]))


def measure(
    data: Dataset, test: Dataset, seeds: Sequence[int], team: Workers, peers: bool
) -> list[dict[str, Any]]:
    """For each seed: ours, then torch from the same weights."""
    found = []
    for seed in seeds:
        model, seconds = train(RECIPE, data, seed, team)
        accuracy = tc.evaluate(model, test, workers=team).accuracy
        entry = {"seed": seed, "seconds": seconds, "accuracy": accuracy}
        entry["error"] = 100 * (1 - accuracy)
        if peers:
            entry["torch"] = torchs(data, test, seed)
        found.append(entry)
    return found


def torchs(data: Dataset, test: Dataset, seed: int) -> dict[str, Any]:
    tc.manual_seed(seed)
    weights = tc.models.ArticleCNN().state_dict()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, part in (("train", data), ("test", test)):
            problem = Problem("W", weights, part.images, part.labels)
            files.append(write_problem(Path(folder) / f"{name}.npz", problem))
        with Server("benchmarks.peers.torch_recipe", files, TUNED_MALLOC) as server:
            server.ready()
            wanted = {"recipe": list(RECIPE), "seed": seed}
            return {**server.ask("fit", json.dumps(wanted)), **server.versions}


def spread_of(seeds: list[dict[str, Any]], key: str) -> dict[str, float]:
    values = [entry[key] for entry in seeds]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "std": deviation, "worst": max(values)}


def show(seeds: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"W on full MNIST: {RECIPE}", title_justify="left")
    for column in (
        "seed",
        "seconds",
        "accuracy",
        "torch channels_last + malloc: seconds",
        "accuracy",
    ):
        table.add_column(column, justify="right")
    for entry in seeds:
        ours = [str(entry["seed"]), f"{entry['seconds']:.1f}", f"{entry['accuracy']:.2%}"]
        peer = entry.get("torch")
        theirs = [f"{peer['seconds']:.1f}", f"{peer['accuracy']:.2%}"] if peer else ["", ""]
        table.add_row(*ours, *theirs)
    console.print(table)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_accuracy", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="the folder with MNIST's four IDX files")
    add("--sweep", action="store_true", help="try the recipes on a 55,000/5,000 split")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: 1 2 3")
    add("--workers", default="auto", help="auto, or how many")
    add("--no-torch", action="store_true", help="ours alone")
    add("--out", type=Path, default=machine.RESULTS, help="folder for the JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options, console = parse(arguments), Console()
    data, test = tc.data.mnist(full=True, data_dir=options.data_dir, download=False)
    workers = options.workers if options.workers == "auto" else int(options.workers)
    with Workers(workers) as team:
        if options.sweep:
            name, what = "recipe", "recipes for MNIST on a 55,000/5,000 split, best first"
            body: dict[str, Any] = {"sweep": sweep(data, team, console)}
        else:
            name, what = "time-to-accuracy", "training on full MNIST, test set touched once"
            seeds = measure(data, test, options.seeds, team, not options.no_torch)
            show(seeds, console)
            body = {"data": "MNIST, 60,000 and 10,000 images", "recipe": RECIPE._asdict()}
            body |= {"workers": team.count, "target": TARGET, "seeds": seeds}
            body |= {key: spread_of(seeds, key) for key in ("seconds", "error")}
    path = machine.write(options.out, machine.report(name, what, body))
    console.print(f"written to {path}", markup=False)


if __name__ == "__main__":
    main()
