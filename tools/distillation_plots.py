"""The pictures of docs/distillation.md, and the numbers in them.

    python tools/distillation_plots.py

Trains LeNet-5 for five epochs on the sample that comes with the package and shows what it thinks of
some test digits at three temperatures. The picture of the students' errors against the bytes of
their files is made from ``results/distillation``. Writes ``docs/images/distillation-*.svg``; needs
matplotlib: ``pip install 'tinycompress[plot]'``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from pictures import save

import tinycompress as tc
from tinycompress import functional as F, models, optim

MEASURED = Path("results/distillation")
SIZE = (7.0, 3.6)  # inches
TEMPERATURES = (1, 4, 20)
PHIS = (-16, -12, -8, -6, -4)


def trained_teacher() -> tuple[Any, Any]:
    tc.manual_seed(0)
    train, test = tc.data.mnist()
    model = models.LeNet5()
    tc.fit(model, train, 5, optim.Adam(model.parameters(), lr=1e-3), seed=0)
    return model.eval(), test


def telling(z: np.ndarray, labels: np.ndarray, count: int = 3) -> list[int]:
    """Digits, each of another class, that are read rightly and for which the second guess is
    nearest to the first."""
    two = np.sort(z, axis=1)[:, -2:]
    order = np.argsort(two[:, 1] - two[:, 0], kind="stable")
    chosen: list[int] = []
    for i in order:
        sure = F.softmax(z[i : i + 1]).data.max() > 0.9
        new = labels[i] not in labels[chosen]
        if z[i].argmax() == labels[i] and sure and new:
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def softened(model: Any, test: Any) -> None:
    """Some digits, and the probabilities of the ten classes at each temperature."""
    z = tc.train.predict(model, test.images).astype(np.float64)
    rows = telling(z, test.labels)
    figure, axes = plt.subplots(
        len(rows), 1 + len(TEMPERATURES), figsize=(7.0, 4.4), width_ratios=[1, 2, 2, 2]
    )
    print(f"{'image':>5} {'T':>3}  " + "".join(f"{k:>7}" for k in range(10)))
    for i, line in zip(rows, axes, strict=True):
        line[0].imshow(test.images[i, 0], cmap="gray_r")
        line[0].set_axis_off()
        for T, axis in zip(TEMPERATURES, line[1:], strict=True):
            p = F.softmax(z[i : i + 1] / T).data[0]
            print(f"{i:5} {T:3}  " + "".join(f"{each:7.4f}" for each in p))
            axis.bar(range(10), p, color="tab:blue")
            axis.set(xticks=range(10), ylim=(0, 1), yticks=(0, 1))
            if i == rows[0]:
                axis.set_title(f"T = {T}")
    save(figure, "distillation-softened")


def family() -> None:
    """Errors against bytes, alone and distilled, mean and spread over the seeds."""
    figure, axis = plt.subplots(figsize=SIZE)
    print(f"\n{'phi':>4} {'bytes':>8}" + "".join(f"{w:>18}" for w in ("alone", "distilled")))
    files = {
        (phi, way): json.loads((MEASURED / f"cnn{phi}-{way}.json").read_text("utf-8"))
        for phi in PHIS
        for way in ("alone", "distilled")
    }
    sizes = [files[phi, "alone"]["mean"]["bytes"] for phi in PHIS]
    for way, mark in (("alone", "o--"), ("distilled", "o-")):
        mean, std = ([files[phi, way][kind]["error"] for phi in PHIS] for kind in ("mean", "std"))
        axis.errorbar(sizes, mean, std, fmt=mark, markersize=4, label=way)
    for phi, size in zip(PHIS, sizes, strict=True):
        cells = (
            f"{files[phi, way]['mean']['error']:8.3f} ± {files[phi, way]['std']['error']:.3f}"
            for way in ("alone", "distilled")
        )
        print(f"{phi:4} {size:8,.0f}" + "".join(f"{cell:>18}" for cell in cells))
    teacher = json.loads((MEASURED / "cnn-teacher.json").read_text("utf-8"))["mean"]
    axis.axhline(teacher["error"], color="tab:gray", linewidth=1)
    axis.annotate(f"the teacher: {teacher['bytes']:,.0f} bytes", (sizes[0], teacher["error"]),
                  xytext=(0, 3), textcoords="offset points", fontsize=8)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="bytes of the file", ylabel="error, percent")
    axis.set_yticks([0.5, 1, 2, 5], labels=["0.5", "1", "2", "5"])
    axis.minorticks_off()
    axis.legend(fontsize=8, frameon=False)
    save(figure, "distillation-family")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    softened(*trained_teacher())
    family()


if __name__ == "__main__":
    main()
