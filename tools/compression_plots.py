"""The pictures of docs/deep_compression.md, and the numbers in them.

    python tools/compression_plots.py

All of it comes from ``results/compression``: codebooks and lengths of codes from the file of a
compressed LeNet-5, and the curve of error against bytes from the JSON beside it. Writes
``docs/images/compression-*.svg``; needs matplotlib: ``pip install 'tinycompress[plot]'``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from compression_settings import SETTINGS, Setting
from experiments import with_spread
from pictures import save

import tinycompress as tc
from tinycompress.compress.share import codebooks
from tinycompress.format.huffman import code_lengths

MEASURED = Path("results/compression")
SHOWN = "lenet-5-95-seed0.tcz"

PUBLISHED = {
    "lenet-300-100": [("Han 2016", 40, 1.58), ("SparseVD", 68, 1.92), ("Oktay 2019", 124, 1.9)],
    "lenet-5": [
        ("Han 2016", 39, 0.74), ("SparseVD", 280, 0.75), ("Oktay 2019", 606, 1.0),
        ("MIRACLE", 555, 0.69), ("MIRACLE", 1110, 0.96),
    ],
}  # fmt: skip
"""(who, times smaller, error in percent), as computed in the papers; no files are known."""

TICKS = (2000, 5000, 10_000, 20_000, 50_000)
LIMITS = {"lenet-300-100": (2500, 45_000), "lenet-5": (1200, 90_000)}
FLOATS = {"lenet-300-100": 4 * 266_610, "lenet-5": 4 * 431_080}


def codes() -> None:
    """Above: the numbers of each codebook, and how many weights have them. Below: how long
    Huffman's code for each is, and how long it would be if lengths had fractions."""
    layers = codebooks(tc.load(MEASURED / SHOWN)).layers
    figure, axes = plt.subplots(2, len(layers), figsize=(7.6, 4.2), sharex="col")
    print(f"{'layer':6} {'numbers':>8} {'fixed':>6} {'Huffman':>8} {'entropy':>8}   lengths")
    for layer, (above, below) in zip(layers, axes.T, strict=True):
        counts, numbers = np.array(layer.counts), np.array(layer.centroids)
        lengths = code_lengths(counts)
        mean = float((counts * lengths).sum() / counts.sum())
        least = np.log2(counts.sum() / counts)
        print(
            f"{layer.name:6} {layer.clusters:8} {layer.bits:6} {mean:8.2f} {layer.entropy:8.2f}   "
            f"{lengths.min()} … {lengths.max()}"
        )
        above.vlines(numbers, 0, counts, color="tab:blue", linewidth=1.5)
        above.set(title=layer.name, ylim=(0, None))
        below.plot(numbers, lengths, "o", markersize=3, color="tab:orange", label="Huffman")
        below.plot(numbers, least, "_", markersize=6, color="tab:gray", label="−log₂ share")
        below.axhline(layer.bits, color="tab:blue", linewidth=0.8)
        below.set(xlabel="centroid", ylim=(0, None))
    axes[0, 0].set_ylabel("weights")
    axes[1, 0].set_ylabel("bits of the code")
    axes[1, 0].legend(fontsize=7, frameon=False, loc="lower left")
    save(figure, "compression-codes")


def curve() -> None:
    """Error against bytes, beside what was published."""
    figure, axes = plt.subplots(1, len(FLOATS), figsize=(7.6, 3.8))
    print(f"\n{'setting':28} {'bytes':>8} {'ratio':>7} {'error':>15} {'seeds':>6}")
    for axis, (model, whole) in zip(axes, FLOATS.items(), strict=True):
        for name, ratio, error in PUBLISHED[model]:
            axis.plot(whole / ratio, error, "x", color="tab:gray", markersize=5)
            axis.annotate(name, (whole / ratio, error), xytext=(4, 3),
                          textcoords="offset points", fontsize=7, color="tab:gray")  # fmt: skip
        for words, files in measured(model).items():
            files.sort(key=lambda f: f["mean"]["bytes"])
            for f in files:
                mean = f["mean"]
                print(
                    f"{f['name']:28} {mean['bytes']:8,.0f} {mean['ratio']:7.1f} "
                    f"{with_spread(f, 'error', 3):>15} {len(f['seeds']):6}"
                )
            sizes, errors, spread = (
                [f[kind][key] for f in files]
                for kind, key in (("mean", "bytes"), ("mean", "error"), ("std", "error"))
            )
            axis.errorbar(sizes, errors, spread, fmt="o-", markersize=4, label=words)
        axis.set(xscale="log", title=model, xlabel="bytes of the file")
        axis.set_xticks(TICKS, labels=[f"{t // 1000:,}k" for t in TICKS])
        axis.set_xlim(LIMITS[model])
        axis.minorticks_off()
        axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("error, percent")
    save(figure, "compression-curve")


def measured(model: str) -> dict[str, list[dict[str, Any]]]:
    """How it was trained → the files of its points."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, setting in SETTINGS.items():
        path = MEASURED / f"{name}.json"
        if setting.model == model and path.exists():
            found.setdefault(way(setting), []).append(json.loads(path.read_text("utf-8")))
    return found


def way(setting: Setting) -> str:
    images = "shifted images" if setting.pixels else "images as they are"
    return images + (", teacher" if setting.taught else "")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    codes()
    curve()


if __name__ == "__main__":
    main()
