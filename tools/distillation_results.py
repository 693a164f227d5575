"""How much a teacher is worth: Hinton's networks, small convolutional students, several seeds.

    python tools/distillation_results.py --data-dir FOLDER --select
    python tools/distillation_results.py --data-dir FOLDER
    python tools/distillation_results.py --table

The first command chooses hyperparameters (rate, temperature): it trains for at most 15 epochs on
the first 55,000 training images, looks at the last 5,000, and keeps what was best in
``results/distillation/choices.json``. The second trains on all 60,000 with these, and looks at the
10,000 test images once for each seed and network. Both write each result as soon as it is there,
and a run that was interrupted goes on when it is started again. ``--seed-list`` splits the work
between two commands.

One file per network: ``results/distillation/SETTING.json``. A student has the teacher of the same
seed, and is compared with the student of the same seed alone. Every number is that of a file that
was loaded again. ``--quick`` takes the sample of the package and a single epoch: a try.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distillation_settings import SETTINGS, TUNED, Work, graded
from experiments import (
    SELECTION_SEED,
    add_row,
    data_in_words,
    data_of,
    origin,
    pending,
    read,
    row_of,
    without_folders,
    write,
)

import tinycompress as tc
from tinycompress.train import Workers, evaluate

FOLDERS = ("--data-dir", "--kept", "--out")
SHORT = 15
"""Epochs by which hyperparameters are chosen."""

SMALL = 100_000
"""Files of more bytes are measured, and not kept."""


def measure(work: Work, out: Path, seed: int, name: str) -> dict[str, Any]:
    """One network, from its file."""
    how = work.best(name)
    began = time.perf_counter()
    model = work.trained(name, seed, how)
    spent = time.perf_counter() - began
    path = work.kept / f"{name}-measured-{os.getpid()}.tcz"
    size = tc.save(model, path)
    if seed == 0 and size < SMALL:
        shutil.copyfile(path, out / f"{name}-seed0.tcz")
    row = {"seed": seed, **graded(work, name, seed, tc.load(path)), "bytes": size}
    path.unlink()
    alone = SETTINGS[name].alone
    beside = row_of(out, alone, seed) if alone else None
    if beside:
        row["fewer than alone"] = beside["errors"] - row["errors"]
    return {**row, "how": dict(how), "seconds": round(spent, 1)}


def run(work: Work, names: Sequence[str], out: Path, seeds: Sequence[int] | None, command: str):
    """Every seed of every setting that is not there yet."""
    jobs = pending(out, {name: SETTINGS[name].seeds for name in names}, seeds)
    left = sum(SETTINGS[n].seconds * work.best(n)["epochs"] for _, n in jobs)
    print(f"{len(jobs)} networks, about {left / 60:.0f} minutes on two cores", flush=True)
    for seed, name in jobs:
        row = measure(work, out, seed, name)
        head = {
            "name": name,
            "what": SETTINGS[name].what,
            **origin(command),
            "data": data_in_words(work.train, work.held),
        }
        numbers = [k for k, v in row.items() if isinstance(v, int | float) and k != "seed"]
        add_row(out / f"{name}.json", head, row, numbers)
        said = f"{name} seed {seed}: {row['errors']} errors, {row['bytes']:,} bytes"
        print(f"{said}, {row['seconds']:.0f} s", flush=True)


def select(work: Work, names: Sequence[str], out: Path, command: str) -> None:
    """The best candidate of each setting; by errors, and by the loss where these are equal."""
    path = out / "choices.json"
    for name in names:
        candidates = SETTINGS[name].candidates
        if len(candidates) < 2:
            continue
        file = read(path) or {
            "name": "choices",
            "what": "hyperparameters, chosen on the last 5,000 training images",
            **origin(command),
            "tried": {},
            "chosen": {},
        }
        tried = file["tried"].setdefault(name, [])
        for how in candidates:
            if any(each["how"] == how for each in tried):
                continue
            found = evaluate(work.trained(name, SELECTION_SEED, how), work.held, workers=work.team)
            tried.append({"how": dict(how), "error": found.error, "loss": found.loss})
            file["chosen"][name] = min(tried, key=lambda t: (t["error"], t["loss"]))["how"]
            write(path, file)
            print(f"{name} {how}: {found.wrong} of {len(work.held):,} wrong", flush=True)
        work.choices[name] = file["chosen"][name]


def choices(out: Path) -> dict[str, dict[str, Any]]:
    """What was chosen, also for settings that take the choice of another."""
    chosen = read(out / "choices.json").get("chosen", {})
    taken = {name: chosen[other] for name, other in TUNED.items() if other in chosen}
    return {**chosen, **taken}


# --------------------------------------------------------------------------------- the command line


def table(out: Path) -> Iterator[str]:
    """What the files say: errors, mean ± standard deviation, and how much of the gap is closed."""
    head = f"{'errors':>14}{'worst':>7}{'parameters':>12}{'bytes':>12}{'ECE':>8}{'agree':>8}"
    yield f"{'network':28}{head}{'closed':>8}{'seeds':>7}"
    for name in SETTINGS:
        file = read(out / f"{name}.json")
        if not file:
            continue
        mean = file["mean"]
        agree = f"{mean['agreement']:.2%}" if "agreement" in mean else ""
        closed = gap_closed(out, name)
        share = "" if closed is None else f"{closed:.0%}"
        errors = f"{mean['errors']:.1f} ± {file['std']['errors']:.1f}"
        yield (
            f"{name:28}{errors:>14}{file['worst']['errors']:>7}{mean['parameters']:>12,.0f}"
            f"{mean['bytes']:>12,.0f}{mean['calibration error']:>8.4f}{agree:>8}{share:>8}"
            f"{len(file['seeds']):>7}"
        )
        if "errors on 3s" in mean:
            yield f"    of these on the {mean['3s']:.0f} threes: {mean['errors on 3s']:.1f}"


def gap_closed(out: Path, name: str) -> float | None:
    """(errors alone − errors distilled) / (errors alone − errors of the teacher), of all seeds."""
    alone = SETTINGS[name].alone
    rows = read(out / f"{name}.json")["seeds"]
    beside = [row_of(out, alone, row["seed"]) for row in rows] if alone else []
    if not beside or None in beside:
        return None
    mine = sum(row["errors"] for row in rows)
    without = sum(row["errors"] for row in beside if row)
    teacher = sum(row["teacher's errors"] for row in rows)
    return (without - mine) / (without - teacher) if without > teacher else None


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="the four IDX files of MNIST")
    parser.add_argument("--quick", action="store_true", help="with the sample of the package")
    parser.add_argument("--select", action="store_true", help="choose hyperparameters")
    parser.add_argument("--table", action="store_true", help="only print what the files say")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seed-list", type=int, nargs="+", help="these alone")
    parser.add_argument("--workers", type=int, help="how many share the work; one per core")
    parser.add_argument("--out", type=Path, default=Path("results/distillation"))
    kept = Path(tempfile.gettempdir()) / "tinycompress-distillation"
    parser.add_argument("--kept", type=Path, default=kept, help="where trained networks are kept")
    arguments = parser.parse_args(argv)
    if not arguments.table and arguments.quick == (arguments.data_dir is not None):
        parser.error("give either --data-dir FOLDER or --quick")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = arguments_of(argv)
    out = arguments.out
    if not arguments.table:
        out.mkdir(parents=True, exist_ok=True)
        arguments.kept.mkdir(parents=True, exist_ok=True)
        given = without_folders(sys.argv[1:] if argv is None else argv, FOLDERS)
        command = " ".join(["python tools/distillation_results.py", *given])
        data = data_of(arguments.data_dir, arguments.select)
        with Workers(arguments.workers) as team:
            at_most = 1 if arguments.quick else SHORT if arguments.select else 1000
            work = Work(*data, arguments.kept, team, at_most, choices(out))
            if arguments.select:
                select(work, arguments.settings, out, command)
            else:
                run(work, arguments.settings, out, arguments.seed_list, command)
    print("\n".join(table(out)))


if __name__ == "__main__":
    main()
