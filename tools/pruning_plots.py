"""The pictures of docs/pruning.md, and the numbers in them.

    python tools/pruning_plots.py

Trains LeNet-300-100 for three epochs on the sample that comes with the package, prunes it by every
criterion that needs no training, and writes ``docs/images/pruning-*.svg``. The picture of what was
measured over seeds is made from ``results/pruning/lenet-300-100-criteria.json``. Needs matplotlib:
``pip install 'tinycompress[plot]'``.
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
from tinycompress import models, optim

MEASURED = Path("results/pruning/lenet-300-100-criteria.json")
SIZE = (7.0, 3.2)  # inches
CRITERIA = ("magnitude", "l2", "lamp", "taylor", "gradient", "snip", "random")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


def trained_lenet() -> tuple[Any, Any, Any]:
    tc.manual_seed(0)
    train, test = tc.data.mnist()
    model = models.LeNet300100()
    tc.fit(model, train, 3, optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    return model.eval(), train, test


def histograms(model: Any, train: Any) -> None:
    """The weights of fc1 before pruning, and the nonzero ones of it after it and after training."""
    thin = tc.prune(model, 0.9)
    again = thin.copy()
    tc.fit(again, train, 1, optim.SGD(again.parameters(), lr=0.05, momentum=0.9))
    figure, axes = plt.subplots(1, 3, figsize=SIZE, sharex=True, sharey=True)
    bins = np.linspace(-0.25, 0.25, 101)
    print("fc1                weights that are not 0   smallest of these")
    for axis, (title, net) in zip(
        axes,
        {"dense": model, "90% pruned": thin, "and trained again": again}.items(),
        strict=True,
    ):
        w = net.fc1.weight.data
        w = w[w != 0]
        axis.hist(w, bins=bins, color="tab:blue")
        axis.set(title=title, xlabel="weight of fc1", yscale="log")
        print(f"{title:18}{w.size:23,}{np.abs(w).min():20.5f}")
    axes[0].set_ylabel("how many")
    save(figure, "pruning-histograms")


def criteria(model: Any, train: Any, test: Any) -> None:
    """Accuracy against sparsity by each criterion, in one shot and without training after."""
    figure, axis = plt.subplots(figsize=SIZE)
    few = train.take(1024)
    print(f"\naccuracy in percent{'':3}" + "".join(f"{s:>8.0%}" for s in SPARSITIES))
    for name in CRITERIA:
        found = [
            100 * tc.evaluate(tc.prune(model, s, name, data=few), test).accuracy for s in SPARSITIES
        ]
        axis.plot([100 * s for s in SPARSITIES], found, "o-", markersize=3, label=name)
        print(f"{name:22}" + "".join(f"{f:8.2f}" for f in found))
    axis.set(xlabel="weights that are 0, percent", ylabel="accuracy, percent")
    axis.legend(fontsize=8, frameon=False)
    save(figure, "pruning-criteria")


def measured() -> None:
    """Error against sparsity by each criterion, trained again, mean and spread over the seeds."""
    rows = json.loads(MEASURED.read_text("utf-8"))["table"]
    figure, axis = plt.subplots(figsize=SIZE)
    for name in dict.fromkeys(row["criterion"] for row in rows):
        own = [row for row in rows if row["criterion"] == name]
        mean, std = ([row[kind]["error"] for row in own] for kind in ("mean", "std"))
        axis.errorbar(
            [100 * row["sparsity"] for row in own], mean, std, fmt="o-", markersize=3, label=name
        )
    axis.set(xlabel="weights that are 0, percent", ylabel="error, percent", yscale="log")
    axis.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    axis.legend(fontsize=8, frameon=False)
    save(figure, "pruning-measured")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    measured()
    model, train, test = trained_lenet()
    histograms(model, train)
    criteria(model, train, test)


if __name__ == "__main__":
    main()
