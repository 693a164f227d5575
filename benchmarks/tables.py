"""Results as tables for people: on the screen, and as Markdown for a document.

python -m benchmarks.tables results/speed/W.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.contenders import OURS

TITLES = {
    "train": "training, images/s",
    "infer": "inference, images/s",
    "latency": "one batch at a time, ms",
}


def figure(task: str, batch: int, images_per_second: float) -> str:
    if task == "latency":
        return f"{1e3 * batch / images_per_second:.3f}"
    return f"{images_per_second:,.0f}"


def cell(measurement: Mapping[str, Any], name: str) -> str:
    """``8,412  1.43 (1.41–1.46)``: the figure, and how many times as fast ours is, quartiles."""
    speeds = measurement["images_per_second"]
    if name not in speeds:
        return ""
    speed = figure(measurement["task"], measurement["batch"], speeds[name]["median"])
    ratio = measurement["ratio_of_tinycompress"].get(name)
    if ratio is None:
        return speed
    return f"{speed}  {ratio['median']:.2f} ({ratio['q1']:.2f}–{ratio['q3']:.2f})"


def table(workload: str, task: str, measurements: Sequence[Mapping[str, Any]]) -> Table:
    """One task of a workload: a row for each contender, a column for each batch size."""
    made = Table(
        title=f"{workload}: {TITLES[task]}",
        caption=f"figure, then {OURS}'s speed over this one's (quartiles)",
        title_justify="left",
        caption_justify="left",
    )
    made.add_column("")
    for measurement in measurements:
        made.add_column(f"batch {measurement['batch']}", justify="right")
    for name in _in_order(m["images_per_second"] for m in measurements):
        made.add_row(name, *(cell(m, name) for m in measurements))
    return made


def markdown(task: str, measurements: Sequence[Mapping[str, Any]]) -> str:
    """The same for a document."""
    lines = [["", *(f"batch {m['batch']}" for m in measurements)]]
    lines.append(["---"] + ["---:"] * len(measurements))
    for name in _in_order(m["images_per_second"] for m in measurements):
        lines.append([name, *(cell(m, name) for m in measurements)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_task(measurements: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for measurement in measurements:
        tasks.setdefault(measurement["task"], []).append(measurement)
    return tasks


def _in_order(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("files", nargs="+", type=Path, help="written by python -m benchmarks")
    for path in parser.parse_args(arguments).files:
        result = json.loads(path.read_text("utf-8"))
        for task, measurements in by_task(result["measurements"]).items():
            print(f"{result['name']}: {TITLES[task]}\n\n{markdown(task, measurements)}\n")


if __name__ == "__main__":
    main()
