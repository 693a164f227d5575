"""What each rule of docs/performance.md is worth in this engine, by taking it away.

    python -m benchmarks.rules

The engine as it is takes turns with variants of itself on W at batch 128, each in a process of its
own: without fusion, with one worker, with another block size and so on (options of ``ours.py``).
The figure of a rule is the engine's speed over that of the variant without it: 1.5 means that the
rule makes training one and a half times as fast. Small idioms of NumPy are timed by themselves in
``idioms.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.contenders import OURS, Entry, Field
from benchmarks.run import initial_weights, measure, tell_absent

BATCH = 128
PLAIN_MALLOC = {"TINYCOMPRESS_MALLOC": "0"}


class Variant(NamedTuple):
    """The engine with one thing changed: arguments of ``ours.py``, and the environment."""

    rule: str
    name: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


def constants(**values: float) -> tuple[str, ...]:
    """``conv_BLOCK_BYTES=…`` sets BLOCK_BYTES in ``tinycompress/ops/conv.py``."""
    places = {name.partition("_")[0::2]: value for name, value in values.items()}
    words = [f"tinycompress.ops.{file}:{name}={v:.0f}" for (file, name), v in places.items()]
    return tuple(part for word in words for part in ("--set", word))


def blocks(factor: float) -> tuple[str, ...]:
    """A block is bounded by its bytes and by the size of its products; both move."""
    return constants(conv_BLOCK_BYTES=factor * (1 << 20), conv_FLOP_LIMIT=factor * 1e6)


VARIANTS = [
    Variant("workers", "1 worker", ("--workers", "1")),
    Variant("workers", "threads", ("--kind", "thread")),
    Variant("fusion", "unfused", ("--unfused",)),
    Variant("kept memory", "plain malloc", (), PLAIN_MALLOC),
    Variant("kept memory", "unfused, plain malloc", ("--unfused",), PLAIN_MALLOC),
    Variant("cache blocks", "blocks of 1/4", blocks(1 / 4)),
    Variant("cache blocks", "blocks ×4", blocks(4)),
    Variant("cache blocks", "no blocks", blocks(1e6)),
    Variant("small products", "products of any size", constants(products_FLOP_LIMIT=1e15)),
    Variant("flat optimizer", "one update per parameter", ("--per-parameter",)),
    Variant("shards", "shards of 16", ("--shard-size", "16")),
    Variant("shards", "shards of 32", ("--shard-size", "32")),
    Variant("shards", "shards of 64", ("--shard-size", "64")),
]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rules", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="RULE", choices=sorted({v.rule for v in VARIANTS}))
    add("--rounds", type=int, default=9, help="that count, after one to warm up; default: 9")
    add("--steps", type=int, default=25, help="in a turn; default: 25")
    add("--out", type=Path, default=machine.RESULTS, help="folder for the JSON")
    return parser.parse_args(arguments)


def run(variants: Sequence[Variant], rounds: int, steps: int, console: Console) -> dict[str, Any]:
    entries = {OURS: Entry("benchmarks.ours")}
    entries |= {v.name: Entry("benchmarks.ours", v.arguments, v.environment) for v in variants}
    weights = initial_weights("W")
    with Field(entries, "W", weights, BATCH, optional=True) as field:
        tell_absent(field, console)
        measured = [
            measure(field, task, BATCH, str(steps), rounds, console) for task in ("train", "infer")
        ]
    return {
        "settings": {"batch": BATCH, "rounds": rounds, "steps": steps},
        "variants": {v.name: v._asdict() for v in variants},
        "absent": field.absent,
        "measurements": measured,
    }


def table(body: dict[str, Any]) -> Table:
    made = Table(title="what a rule is worth: as it is / without it", title_justify="left")
    for column in ("rule", "without it", "training", "inference"):
        made.add_column(column, justify="right" if column.endswith("ing") else "left")
    train, infer = (m["ratio_of_tinycompress"] for m in body["measurements"])
    for name in train:
        cells = [
            f"{r['median']:.2f} ({r['q1']:.2f}–{r['q3']:.2f})" for r in (train[name], infer[name])
        ]
        made.add_row(body["variants"][name]["rule"], name, *cells)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options, console = parse(arguments), Console()
    variants = [v for v in VARIANTS if not options.only or v.rule in options.only]
    body = run(variants, options.rounds, options.steps, console)
    console.print(table(body))
    what = "what each rule of docs/performance.md is worth: W at batch 128, by taking it away"
    path = machine.write(options.out, machine.report("rules", what, body))
    console.print(f"written to {path}", markup=False)


if __name__ == "__main__":
    main()
