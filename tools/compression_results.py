"""Deep Compression of the LeNets: files, their sizes, and the errors of what they hold.

    python tools/compression_results.py --data-dir FOLDER --select
    python tools/compression_results.py --data-dir FOLDER
    python tools/compression_results.py --table

The first command goes through all settings with the first 55,000 training images and a seed that is
not reported, and writes what the last 5,000 say into ``results/compression/choices.json``: by that,
settings are chosen. The second trains on all 60,000, and looks at the 10,000 test images once for
each seed and setting. Both write each result as soon as it is there, and a run that was interrupted
goes on when it is started again. ``--seed-list`` splits the work between two commands.

One file per setting: ``results/compression/SETTING.json``, and the compressed network of the first
seed beside it. Every number is that of a file that was loaded again. ``--recode``
writes the files anew with the codecs of today; ``--quick`` takes the sample and a single epoch.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compression_settings import SETTINGS, Work, stages_of
from experiments import (
    SELECTION_SEED,
    add_row,
    commit,
    data_in_words,
    data_of,
    origin,
    parsed,
    parser_of,
    pending,
    read,
    row_of,
    with_spread,
    with_summary,
    write,
)

import tinycompress as tc
from tinycompress.stages import layers_of
from tinycompress.train import Workers, evaluate

NUMBERS = ("error", "more", "dense error", "loss", "bytes", "ratio", "sparsity", "nonzero")


def measure(work: Work, out: Path, seed: int, name: str) -> dict[str, Any]:
    """One compressed network, from its file."""
    setting = SETTINGS[name]
    dense = work.dense(setting.model, seed, setting.pixels > 0).eval()
    began = time.perf_counter()
    compressed = work.compress(name, seed)
    spent = time.perf_counter() - began
    path = work.kept / f"{name}-{len(work.train)}-seed{seed}.tcz"
    size = tc.save(compressed.model, path)
    loaded = tc.load(path)
    if seed == 0 and len(work.train) > 2000:
        shutil.copyfile(path, out / f"{name}-seed0.tcz")
    found = evaluate(loaded, work.held, workers=work.team)
    before = evaluate(dense, work.held, workers=work.team)
    zeros = tc.sparsity_report(loaded)
    return {
        "seed": seed,
        "error": round(found.error, 4),
        "dense error": round(before.error, 4),
        "more": round(found.error - before.error, 4),
        "loss": found.loss,
        "bytes": size,
        "ratio": round(compressed.ratio, 2),
        "sparsity": round(zeros.sparsity, 6),
        "nonzero": zeros.weights - zeros.zeros,
        "stages": stages_of(compressed),
        "layers": compressed.to_dict()["layers"],
        "seconds": round(spent, 1),
    }


def run(work: Work, names: Sequence[str], out: Path, among: Sequence[int] | None, command: str):
    """Every seed of every setting that is not there yet."""
    jobs = pending(out, {name: SETTINGS[name].seeds for name in names}, among)
    left = sum(SETTINGS[name].seconds for _, name in jobs)
    print(f"{len(jobs)} networks, about {left / 60:.0f} minutes on two cores", flush=True)
    for seed, name in jobs:
        row = measure(work, out, seed, name)
        head = {
            "name": name,
            "what": SETTINGS[name].what,
            **origin(command),
            "data": data_in_words(work.train, work.held),
        }
        add_row(out / f"{name}.json", head, row, NUMBERS)
        print(f"{name} seed {seed}: {row['error']:.2f}% wrong ({row['more']:+.2f}), "
              f"{row['bytes']:,} bytes, {row['ratio']:.1f} times smaller; {row['seconds']:.0f} s",
              flush=True)  # fmt: skip


def recode(work: Work, names: Sequence[str], out: Path) -> None:
    """The files again, with the codecs of today; what was measured of the networks stays.

    Of the stages only the last one has bytes then, which are those of today's file.
    """
    for name in names:
        path = out / f"{name}.json"
        file = read(path)
        for row in file.get("seeds", ()):
            kept = work.kept / f"{name}-{len(work.train)}-seed{row['seed']}.tcz"
            row["ratio"] = round(row["ratio"] * row["bytes"], 2)
            model = tc.load(kept)
            row["bytes"] = tc.save(model, kept)
            row["layers"] = [layer.to_dict() for layer in layers_of(model)]
            row["ratio"] = round(row["ratio"] / row["bytes"], 2)
            for stage in row["stages"]:
                for key in ("bytes", "bits_per_weight", "ratio"):
                    stage.pop(key, None)
            row["stages"][-1]["bytes"] = row["bytes"]
            if row["seed"] == 0:
                shutil.copyfile(kept, out / f"{name}-seed0.tcz")
        if file:
            file["coded by"] = commit()
            write(path, with_summary(file, NUMBERS))


def select(work: Work, names: Sequence[str], out: Path, command: str) -> None:
    """What each setting gives on the images that are held out."""
    path = out / "choices.json"
    for name in names:
        file = read(path) or {
            "name": "choices",
            "what": "each setting once, measured on the last 5,000 training images",
            **origin(command),
            "tried": {},
        }
        if name in file["tried"]:
            continue
        row = measure(work, work.kept, SELECTION_SEED, name)
        kept = ("error", "dense error", "loss", "bytes", "ratio")
        file = {**file, "tried": {**file["tried"], name: {key: row[key] for key in kept}}}
        write(path, file)
        print(f"{name}: {row['error']:.2f}% of {len(work.held):,} wrong, {row['bytes']:,} bytes",
              flush=True)  # fmt: skip


# --------------------------------------------------------------------------------- the command line


def table(out: Path) -> Iterator[str]:
    """What the files say."""
    head = f"{'error':>15}{'worst':>7}{'dense':>8}{'bytes':>10}{'ratio':>8}{'nonzero':>9}"
    yield f"{'setting':28}{head}{'seeds':>7}"
    for name in SETTINGS:
        file = read(out / f"{name}.json")
        if not file:
            continue
        mean = file["mean"]
        error = with_spread(file, "error", 3)
        yield (
            f"{name:28}{error:>15}{file['worst']['error']:>7.2f}{mean['dense error']:>8.3f}"
            f"{mean['bytes']:>10,.0f}{mean['ratio']:>8.1f}{mean['nonzero']:>9,.0f}"
            f"{len(file['seeds']):>7}"
        )


PAPER = {
    "lenet-300-100": {
        "fc1": (8, 6, 4.4, 5, 3.7), "fc2": (9, 6, 4.4, 5, 4.3), "fc3": (26, 6, 4.3, 5, 3.2),
    },
    "lenet-5": {
        "conv1": (66, 8, 7.2, 5, 1.5), "conv2": (12, 8, 7.2, 5, 3.9),
        "fc1": (8, 5, 4.5, 5, 4.5), "fc2": (19, 5, 5.2, 5, 3.7),
    },
}  # fmt: skip
"""Tables 2 and 3 of Han, Mao & Dally: percent left, bits of a code and of a place, each followed by
those after Huffman's code."""


def layer_table(out: Path, name: str) -> Iterator[str]:
    """The layers of the first seed: what the paper's tables have, and what these say."""
    row, paper = row_of(out, name, 0), PAPER[SETTINGS[name].model]
    columns = f"{'left':>8}{'bits':>6}{'Huffman':>9}{'place':>7}{'Huffman':>9}"
    yield f"{'layer':8}{'weights':>9}{columns}      the paper: left, bits, place"
    for layer in row["layers"] if row else ():
        left, bits, coded, place, short = paper[layer["name"]]
        yield (
            f"{layer['name']:8}{layer['weights']:>9,}{layer['kept'] / layer['weights']:>8.2%}"
            f"{layer['bits']:>6}{layer['huffman_bits']:>9.2f}{layer['index_bits']:>7.2f}"
            f"{layer['index_huffman_bits']:>9.2f}"
            f"{left:>12}%{bits:>6} → {coded}{place:>6} → {short}"
        )


def parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "compression", list(SETTINGS), "kept")
    parser.add_argument("--recode", action="store_true", help="write the files anew")
    parser.add_argument("--layers", metavar="SETTING", help="print the layers of this one, too")
    parser.add_argument("--seed-list", type=int, nargs="+", help="these alone")
    return parser


def main(argv: list[str] | None = None) -> None:
    arguments, command = parsed(parser(), argv)
    out, names = arguments.out, arguments.settings
    if not arguments.table:
        data = data_of(arguments.data_dir, arguments.select)
        with Workers(arguments.workers) as team:
            work = Work(*data, arguments.kept, team, arguments.quick)
            if arguments.recode:
                recode(work, names, out)
            elif arguments.select:
                select(work, names, out, command)
            else:
                run(work, names, out, arguments.seed_list, command)
    print("\n".join(table(out)))
    if arguments.layers:
        print("\n".join(layer_table(out, arguments.layers)))


if __name__ == "__main__":
    main()
