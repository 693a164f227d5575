"""How much a teacher is worth: Hinton's networks, small convolutional students, several seeds.

    python tools/distillation_results.py --data-dir FOLDER --select
    python tools/distillation_results.py --data-dir FOLDER
    python tools/distillation_results.py --table
    python tools/distillation_results.py --table --tried hinton-distilled

The first command chooses hyperparameters (rate, temperature): it trains on the first 55,000
training images (Hinton's teacher, and his student alone, for at most 15 epochs), looks at the last
5,000, and keeps what was best in ``results/distillation/choices.json``; the last one prints what
was tried. The second trains on all 60,000 with these, and looks at the 10,000 test images once for
each seed and network. Both write each result as soon as it is there, and a run that was interrupted
goes on when it is started again. ``--seed-list`` splits the work between two commands.

One file per network: ``results/distillation/SETTING.json``. A student has the teacher of the same
seed, and is compared with the student of the same seed alone. Every number is that of a file that
was loaded again. ``--quick`` takes the sample of the package and a single epoch: a try.
"""

from __future__ import annotations

import argparse
import os
import shutil
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
    parsed,
    parser_of,
    pending,
    read,
    row_of,
    with_spread,
    write,
)

import tinycompress as tc
from tinycompress.train import Workers, evaluate

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
    path, at_most = out / "choices.json", work.at_most
    for name in names:
        setting = SETTINGS[name]
        if name in TUNED or (len(setting.candidates) < 2 and setting.seeds):
            continue
        file = read(path) or {
            "name": "choices",
            "what": "hyperparameters, chosen on the last 5,000 training images",
            **origin(command),
            "tried": {},
            "chosen": {},
        }
        tried = file["tried"].setdefault(name, [])
        work.at_most = min(at_most, setting.short)
        for how in setting.candidates:
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
        errors = with_spread(file, "errors", 1)
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


def tried(out: Path, name: str) -> Iterator[str]:
    """What was tried for a setting, best first, on the images that were held out."""
    rows = read(out / "choices.json").get("tried", {}).get(name, [])
    yield f"{'wrong':>6}{'loss':>9}  how"
    for row in sorted(rows, key=lambda each: (each["error"], each["loss"])):
        how = ", ".join(f"{key} {value}" for key, value in row["how"].items())
        yield f"{row['error']:>5.2f}%{row['loss']:>9.4f}  {how}"


def parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "distillation", list(SETTINGS), "kept")
    parser.add_argument("--tried", metavar="SETTING", help="with --table: what was tried for it")
    parser.add_argument("--seed-list", type=int, nargs="+", help="these alone")
    return parser


def main(argv: list[str] | None = None) -> None:
    arguments, command = parsed(parser(), argv)
    out = arguments.out
    if not arguments.table:
        data = data_of(arguments.data_dir, arguments.select)
        with Workers(arguments.workers) as team:
            work = Work(*data, arguments.kept, team, 1 if arguments.quick else 1000, choices(out))
            if arguments.select:
                select(work, arguments.settings, out, command)
            else:
                run(work, arguments.settings, out, arguments.seed_list, command)
    print("\n".join(tried(out, arguments.tried) if arguments.tried else table(out)))


if __name__ == "__main__":
    main()
