"""How well pruned networks read MNIST: trained, pruned and measured, over several seeds.

    python tools/pruning_results.py --data-dir FOLDER --select
    python tools/pruning_results.py --data-dir FOLDER
    python tools/pruning_results.py --data-dir FOLDER --time

The first command chooses hyperparameters: it trains on the first 55,000 training images, looks at
the last 5,000, and keeps what was best in ``results/pruning/MODEL-choices.json``. The second trains
on all 60,000 with these, and looks at the 10,000 test images once for each seed and setting. Both
write each result as soon as it is there, and a run that was interrupted goes on when it is started
again. The third times the article's network beside the one with half its channels, in turns; let
nothing else run then.

One file per setting: ``results/pruning/SETTING.json``, and the pruned network of the first seed
beside it, where that is small. Every number is that of a file that was loaded again. ``more`` is
the error beyond that of the dense network of the same seed, in points.

``--quick`` takes the sample of the package and a single epoch: a try of the script. ``--models``
splits the work: on two cores, two commands with ``--workers 1`` each are done sooner than one.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import (
    SELECTION_SEED,
    data_in_words,
    data_of,
    origin,
    parsed,
    parser_of,
    read,
    summary,
    with_summary,
    write,
)
from pruning_settings import ANEW, ARTICLE, SECONDS, SETTINGS, SHIFT, Work, dense_of
from pruning_speed import measure_speed

import tinycompress as tc
from tinycompress.data import Dataset
from tinycompress.train import Workers, evaluate

NUMBERS = ("error", "more", "loss", "bytes", "nonzero", "sparsity")
SMALL = 150_000
"""Files of more bytes are measured, and not kept."""

Job = tuple[int, str, dict[str, Any]]  # seed, setting, part


class Results:
    """The files of one run, and what is still to be done for them."""

    def __init__(self, work: Work, names: list[str], seeds: int | None, out: Path, command: str):
        self.work, self.names, self.out, self.command = work, names, out, command
        self.seeds = {name: seeds or SETTINGS[name].seeds for name in SETTINGS}

    def file(self, name: str) -> dict[str, Any]:
        setting = SETTINGS[name]
        return read(self.out / f"{name}.json") or {
            "name": name,
            "what": setting.what,
            **origin(self.command),
            "data": data_in_words(self.work.train, self.work.held),
            "shifted by pixels": SHIFT[setting.model],
            "seeds": [],
        }

    def row(self, name: str, seed: int, part: dict[str, Any]) -> dict[str, Any] | None:
        same = {"seed": seed, **part}
        rows = read(self.out / f"{name}.json").get("seeds", ())
        return next((row for row in rows if same.items() <= row.items()), None)

    def jobs(self) -> list[Job]:
        """What is not there yet, headlines first, the dense network before what is made of it."""
        wanted = [
            (seed, each, part)
            for name in self.names
            for seed in range(self.seeds[name])
            for each in filter(None, (dense_of(name), name))
            for part in SETTINGS[each].parts
        ]
        jobs: list[Job] = []
        for job in wanted:
            seed, name, part = job
            if job not in jobs and self.row(name, seed, part) is None:
                jobs.append(job)
        return jobs

    def seconds(self, job: Job) -> float:
        """About how long one takes, on two cores."""
        _, name, part = job
        setting = SETTINGS[name]
        return SECONDS[setting.model] * setting.epochs(self.work.best(name), part)

    def measure(self, job: Job) -> dict[str, Any]:
        """One network, from its file."""
        seed, name, part = job
        how = self.work.best(name)
        began = time.perf_counter()
        model, more = SETTINGS[name].make(self.work, seed, how, **part)
        spent = time.perf_counter() - began
        path = self.path(name, seed, part)
        size = tc.save(model, path)
        if seed == 0 and not part and dense_of(name) is not None and size < SMALL:
            shutil.copyfile(path, self.out / f"{name}-seed{seed}.tcz")
        loaded = tc.load(path)
        found = evaluate(loaded, self.work.held, workers=self.work.team)
        zeros = tc.sparsity_report(loaded)
        base = dense_of(name)
        beside = self.row(base, seed, {}) if base else None
        error = round(found.error, 4)
        return {
            "seed": seed,
            **part,
            "error": error,
            "more": round(error - beside["error"], 4) if beside else 0.0,
            "wrong": found.wrong,
            "loss": found.loss,
            "bytes": size,
            "nonzero": tc.summary(loaded, (1, 28, 28)).nonzero,
            "sparsity": part.get("sparsity", round(zeros.sparsity, 6)),
            "zeros": zeros.zeros,
            "weights": zeros.weights,
            "how": dict(how),
            **more,
            "seconds": round(spent, 1),
        }

    def path(self, name: str, seed: int, part: dict[str, Any]) -> Path:
        """Where a network is kept, for looking at it."""
        words = "".join(f"-{value}" for value in part.values())
        return self.work.dense / f"{name}{words}-{len(self.work.train)}-seed{seed}.tcz"

    def run(self) -> None:
        """Every seed of every setting that is not there yet."""
        jobs = self.jobs()
        left = sum(map(self.seconds, jobs))
        print(f"{len(jobs)} networks to train, about {left / 60:.0f} minutes on two cores alone",
              flush=True)  # fmt: skip
        began, done = time.perf_counter(), 0.0
        for job in jobs:
            seed, name, part = job
            row = self.measure(job)
            file = self.file(name)
            file["seeds"].append(row)
            write(self.out / f"{name}.json", summarized(file))
            done += self.seconds(job)
            left -= self.seconds(job)
            more = (time.perf_counter() - began) / done * left / 60
            said = " ".join(map(str, (name, *part.values())))
            print(f"{said} seed {seed}: {row['error']:.2f}% wrong ({row['more']:+.2f}), "
                  f"{row['bytes']:,} bytes, {row['seconds']:.0f} s; {more:.0f} min left",
                  flush=True)  # fmt: skip


def summarized(file: dict[str, Any]) -> dict[str, Any]:
    """With mean, standard deviation and worst: of all, or of each part."""
    parts = SETTINGS[file["name"]].parts
    if len(parts) == 1:
        beside = [key for key in file["seeds"][0] if key.endswith(ANEW)]
        return with_summary(file, [*NUMBERS, *beside])
    rows = sorted(file["seeds"], key=lambda row: row["seed"])
    table = []
    for part in parts:
        these = [row for row in rows if part.items() <= row.items()]
        if these:
            table.append(
                {**part, "seeds": len(these), **summary(these, ("error", "more", "bytes"))}
            )
    return {**file, "seeds": rows, "table": table}


# ---------------------------------------------------------------------------------------- choosing


def select(work: Work, names: list[str], out: Path, command: str) -> None:
    """The best candidate of each setting; by errors, and by the loss where these are equal."""
    names = [name for name in names if len(SETTINGS[name].candidates) > 1]
    left = sum(
        SECONDS[SETTINGS[n].model] * SETTINGS[n].epochs(how, part)
        for n in names
        for how in SETTINGS[n].candidates
        for part in SETTINGS[n].tuning
    )
    print(f"about {left / 60:.0f} minutes on two cores alone, if nothing is there yet", flush=True)
    for name in names:
        setting = SETTINGS[name]
        path = out / f"{setting.model}-choices.json"
        file = read(path) or {
            "name": f"{setting.model}-choices",
            "what": "hyperparameters, chosen on the last 5,000 training images",
            **origin(command),
            "tried": {},
            "chosen": {},
        }
        tried = file["tried"].setdefault(name, [])
        for how in setting.candidates:
            if any(each["how"] == how for each in tried):
                continue
            tried.append({"how": dict(how), **tuned(work, name, how)})
            best = min(tried, key=lambda each: (each["error"], each["loss"]))
            file["chosen"][name] = best["how"]
            write(path, file)
            print(f"{name} {how}: {tried[-1]['error']:.2f}% of {len(work.held):,} wrong, "
                  f"loss {tried[-1]['loss']:.4f}", flush=True)  # fmt: skip
        work.choices[name] = file["chosen"][name]


def tuned(work: Work, name: str, how: Any) -> dict[str, float]:
    """Error and loss with these hyperparameters, the mean of the parts that they are chosen by."""
    setting = SETTINGS[name]
    found = []
    for part in setting.tuning:
        model, _ = setting.make(work, SELECTION_SEED, how, **part)
        found.append(evaluate(model, work.held, workers=work.team))
    mean = {key: sum(getattr(f, key) for f in found) / len(found) for key in ("error", "loss")}
    return mean


# --------------------------------------------------------------------------------- the command line


def table(out: Path) -> Iterator[str]:
    """What the files say."""
    heads = f"{'error':>15}{'worst':>7}{'more':>16}{'worst':>8}{'bytes':>11}{'seeds':>7}"
    yield f"{'setting':27}{heads}"
    for name in SETTINGS:
        file = read(out / f"{name}.json")
        if "mean" in file:
            mean, std, worst = (file[key] for key in ("mean", "std", "worst"))
            cells = [
                f"{mean[c]:{sign}.3f} ± {std[c]:.3f}".rjust(15 + len(sign))
                + f"{worst[c]:{sign}.2f}".rjust(7 + len(sign))
                for c, sign in (("error", ""), ("more", "+"))
            ]
            yield f"{name:27}{''.join(cells)}{mean['bytes']:>11,.0f}{len(file['seeds']):>7}"
            for c in (key for key in mean if key.endswith(ANEW)):
                yield f"    {c}: {mean[c]:.3f} ± {std[c]:.3f}, worst {worst[c]:.2f}"
        elif file:
            yield from cross_table(file)


def cross_table(file: dict[str, Any]) -> Iterator[str]:
    """Errors by criterion and sparsity."""
    rows = file["table"]
    shares = sorted({row["sparsity"] for row in rows})
    yield f"{file['name']}: errors"
    yield f"{'':11}" + "".join(f"{share:>13.0%}" for share in shares)
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        cells = {
            row["sparsity"]: f"{row['mean']['error']:.2f} ± {row['std']['error']:.2f}"
            for row in rows
            if row["criterion"] == criterion
        }
        yield f"{criterion:11}" + "".join(f"{cells.get(share, ''):>13}" for share in shares)


def parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "pruning", list(SETTINGS), "dense")
    parser.add_argument("--time", action="store_true", help="time half the channels beside all")
    parser.add_argument("--models", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    parser.add_argument("--seeds", type=int, help="how many, instead of the usual number")
    return parser


def data(arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    return data_of(arguments.data_dir, arguments.select)


def choices(out: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in SECONDS:
        found |= read(out / f"{kind}-choices.json").get("chosen", {})
    return found


def main(argv: list[str] | None = None) -> None:
    arguments, command = parsed(parser(), argv)
    out = arguments.out
    if not arguments.table:
        names = [n for n in arguments.settings if SETTINGS[n].model in arguments.models]
        with Workers(arguments.workers) as team:
            work = Work(*data(arguments), arguments.dense, team, arguments.quick, choices(out))
            results = Results(work, names, arguments.seeds, out, command)
            if arguments.time:
                half = tc.load(results.path(f"{ARTICLE}-half", 0, {}))
                file = measure_speed(work.trained(ARTICLE, 0), half, work.train, arguments.quick)
                write(out / f"{ARTICLE}-half-speed.json", {**file, **origin(command)})
            elif arguments.select:
                select(work, names, out, command)
            else:
                results.run()
    print("\n".join(table(out)))


if __name__ == "__main__":
    main()
