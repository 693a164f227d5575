"""Peak memory of training W at batch 128: ours with its worker processes, and torch's.

    python -m benchmarks.memory

Each trains in a process of its own while its memory is watched. Two figures of a process tree:

- ``sampled``: the largest sum of PSS, in which a page that several processes share is counted once,
  divided among them. Looked at every few milliseconds, so a short peak may be missed.
- ``peak``: the most that the kernel saw the first process hold (VmHWM, exact), and on top of it the
  largest sum of what its children had for themselves. Never too small, so this is the figure.

Linux only: it reads ``/proc``. Ours holds a data set of 16,384 images (51 MB) in memory, as a user
would; torch is given one batch.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.contenders import CONTENDERS, OURS, Entry, Field
from benchmarks.run import initial_weights

BATCH, STEPS = 128, 60
INTERVAL = 0.005  # seconds between two looks; a look itself takes some milliseconds
NAMES = (
    OURS,
    f"{OURS}, 1 worker",
    f"{OURS}, unfused",
    "torch default",
    "torch channels_last",
    "torch channels_last + malloc",
)


class Usage(NamedTuple):
    """Bytes of a process and all that it started.

    Attributes:
        pss: of all together.
        children: what the children have for themselves alone.
        high: the most that the first process ever held.
        processes: how many there are.
    """

    pss: int = 0
    children: int = 0
    high: int = 0
    processes: int = 0

    def most(self, other: Usage) -> Usage:
        return Usage(*map(max, self, other))


def usage(pid: int) -> Usage:
    """Now; zeros for a process that has ended."""
    tree = [pid, *descendants(pid)]
    rollups = [fields(Path(f"/proc/{each}/smaps_rollup")) for each in tree]
    children = sum(r.get("Private_Clean", 0) + r.get("Private_Dirty", 0) for r in rollups[1:])
    high = fields(Path(f"/proc/{pid}/status")).get("VmHWM", 0)
    return Usage(sum(r.get("Pss", 0) for r in rollups), children, high, len(tree))


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text("utf-8", errors="replace")
        except OSError:  # ended meanwhile
            continue
        parent = int(text.rpartition(")")[2].split()[1])  # the name before it may hold spaces
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def fields(path: Path) -> dict[str, int]:
    """The lines "Name:   1234 kB" of a file in ``/proc``, in bytes."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs}


class Watch:
    """The most that a process and its children used while this context was open."""

    def __init__(self, pid: int) -> None:
        self.pid, self.most = pid, Usage()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.most = self.most.most(usage(self.pid))
            if self._done.wait(INTERVAL):
                return


def measure(name: str, entry: Entry, weights: dict[str, Any], steps: int) -> dict[str, Any]:
    with Field({name: entry}, "W", weights, BATCH) as field:
        server = field.servers[name]
        with Watch(server.process.pid) as watch:
            server.ask("train", steps)
        most = watch.most
    return {
        "peak_mb": megabytes(most.high + most.children),
        "sampled_mb": megabytes(most.pss),
        "first_process_mb": megabytes(most.high),
        "children_mb": megabytes(most.children),
        "processes": most.processes,
    }


def megabytes(count: int) -> float:
    return round(count / 1e6, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps; default: 60")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    console, weights = Console(), initial_weights("W")
    found = {n: measure(n, CONTENDERS[n], weights, options.steps) for n in NAMES}
    table = Table(title="peak memory of training W at batch 128, MB", title_justify="left")
    for column in ("", *(key.removesuffix("_mb") for key in found[OURS])):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in found.items():
        table.add_row(name, *map(str, figures.values()))
    console.print(table)
    body = {"settings": {"batch": BATCH, "steps": options.steps}, "measurements": found}
    what = "peak memory of training the article's CNN at batch 128, in megabytes (1e6)"
    path = machine.write(options.out, machine.report("memory", what, body))
    console.print(f"written to {path}", markup=False)


if __name__ == "__main__":
    main()
