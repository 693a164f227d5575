"""The side-by-side measurement: our training and inference beside torch's, and others' on W.

    python -m benchmarks [--quick] [--only W lenet-5 residual peers] [--batches 1 32 128 512]

For each workload and batch size: every contender starts in a process of its own, shows that it
computes the same (``contenders.py: Field``), and takes its turns (``rounds.py``). Tables go to the
screen, everything else to ``results/speed/<workload>.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks import machine, tables
from benchmarks.contenders import CONTENDERS, OURS, PEERS, YARDSTICKS, Entry, Field
from benchmarks.networks import NETWORKS
from benchmarks.problems import steps_for
from benchmarks.rounds import Round, images_per_second, ratio, take_turns

BATCHES = (1, 32, 128, 512)
FULL_FIELD = 128  # the batch size at which every contender takes part
LATENCY_UP_TO = 32  # who waits for a single batch has a small one
WIDTH = 120  # of the tables, where the screen does not say (a file, a pipe)
PEER_ROUNDS, PEER_BATCHES = 3, (128, 512)
PEER_BUDGET = 1.5  # seconds of a turn: some need a second for one step
WHAT = {
    "W": "the article's CNN",
    "lenet-5": "LeNet-5 (Caffe)",
    "residual": "a residual CNN with batch norm, 16/32/64 channels",
    "peers": "other frameworks on the article's CNN",
}


class Settings(NamedTuple):
    """How much is measured.

    Attributes:
        batches: sizes.
        rounds: that count; one more warms up.
        steps: the fewest in a turn, whose median is the turn's figure.
        everybody: all contenders at all batch sizes.
    """

    batches: Sequence[int]
    rounds: int
    steps: int
    everybody: bool = False


def measure(
    field: Field, task: str, batch: int, argument: str, rounds: int, console: Console
) -> dict[str, Any]:
    """One task of everyone who can do it, as it goes into the file."""
    names = list(field.servers)
    if task == "train":
        names = [name for name in names if field.entries[name].trains]
    with console.status("") as status:
        kept = take_turns(
            field.turns(task, argument, names),
            rounds,
            tell=lambda n: status.update(f"batch {batch}, {task}: round {n} of {rounds + 1}"),
        )
    return summarize(kept, task, batch)


def summarize(rounds: list[Round], task: str, batch: int) -> dict[str, Any]:
    """Raw seconds of each round, and what they come to."""
    speeds = {name: images_per_second(rounds, name, batch)._asdict() for name in rounds[0]}
    rivals = [name for name in rounds[0] if name != OURS]
    ratios = {name: ratio(rounds, OURS, name)._asdict() for name in rivals}
    return {
        "task": task,
        "batch": batch,
        "seconds_per_batch": rounds,
        "images_per_second": speeds,
        "ratio_of_tinycompress": ratios,
    }


def entries_for(batch: int, everybody: bool) -> dict[str, Entry]:
    everybody = everybody or batch == FULL_FIELD
    return {name: entry for name, entry in CONTENDERS.items() if everybody or entry.headline}


def run_workload(workload: str, settings: Settings, console: Console) -> dict[str, Any]:
    weights = initial_weights(workload)
    body: dict[str, Any] = {"settings": settings._asdict(), "checks": {}, "measurements": []}
    for batch in settings.batches:
        entries = entries_for(batch, settings.everybody)
        steps = str(steps_for(batch, settings.steps))
        with Field(entries, workload, weights, batch) as field:
            body["contenders"] = {name: server.versions for name, server in field.servers.items()}
            body["checks"][batch] = field.checks
            tell_absent(field, console)
            for task in ("train", "infer", "latency"):
                if task == "latency" and batch > LATENCY_UP_TO:
                    continue
                measured = measure(field, task, batch, steps, settings.rounds, console)
                body["measurements"].append(measured)
    return body


def run_peers(settings: Settings, console: Console) -> dict[str, Any]:
    """W only, fewer rounds, and turns that end after ``PEER_BUDGET``: the gaps are wide."""
    settings = settings._replace(
        batches=[b for b in settings.batches if b in PEER_BATCHES],
        rounds=min(settings.rounds, PEER_ROUNDS),
    )
    weights = initial_weights("W")
    body: dict[str, Any] = {"settings": settings._asdict(), "checks": {}, "measurements": []}
    entries = {**YARDSTICKS, **PEERS}
    for batch in settings.batches:
        argument = f"{settings.steps} {PEER_BUDGET}"
        with Field(entries, "W", weights, batch, optional=True) as field:
            body["contenders"] = {name: server.versions for name, server in field.servers.items()}
            body["checks"][batch], body["absent"] = field.checks, field.absent
            tell_absent(field, console)
            for task in ("train", "infer"):
                measured = measure(field, task, batch, argument, settings.rounds, console)
                body["measurements"].append(measured)
    return body


def initial_weights(workload: str) -> dict[str, Any]:
    """Those of a fresh tinycompress model, for everyone."""
    import tinycompress as tc

    tc.manual_seed(0)
    return NETWORKS[workload](tc.nn).state_dict()


def tell_absent(field: Field, console: Console) -> None:
    for name, why in field.absent.items():
        console.print(f"skipped: {name} ({why})", markup=False)


def show(workload: str, body: Mapping[str, Any], console: Console) -> None:
    for task, measurements in tables.by_task(body["measurements"]).items():
        console.print(tables.table(workload, task, measurements))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0]
    )
    everything = [*NETWORKS, "peers"]
    add = parser.add_argument
    add("--quick", action="store_true", help="W, batches 1 and 128, 3 rounds: about a minute")
    add("--only", nargs="+", choices=everything, metavar="NAME", help=", ".join(everything))
    add("--batches", nargs="+", type=int, metavar="N", help="default: 1 32 128 512")
    add("--rounds", type=int, metavar="N", help="that count, after one to warm up; default: 9")
    add("--steps", type=int, metavar="N", help="the fewest in a turn; default: 25")
    add("--everybody", action="store_true", help="all contenders at all batch sizes, not only 128")
    add("--out", type=Path, help="folder for JSON; default: results/speed, none with --quick")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.only = options.only or (["W"] if quick else everything)
    options.batches = options.batches or ([1, 128] if quick else list(BATCHES))
    options.rounds = options.rounds or (3 if quick else 9)
    options.steps = options.steps or (10 if quick else 25)
    options.out = options.out or (None if quick else machine.RESULTS)
    if min(*options.batches, options.rounds, options.steps) < 1:
        parser.error("--batches, --rounds and --steps must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    console = Console()
    console.width = max(console.width, WIDTH)
    settings = Settings(options.batches, options.rounds, options.steps, options.everybody)
    for workload in options.only:
        if workload == "peers":
            body = run_peers(settings, console)
        else:
            body = run_workload(workload, settings, console)
        path = machine.write(options.out, machine.report(workload, WHAT[workload], body))
        show(workload, body, console)
        if path is not None:
            console.print(f"written to {path}", markup=False)


if __name__ == "__main__":
    main()
