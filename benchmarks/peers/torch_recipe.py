"""torch trains W on full MNIST by a recipe: what ``time_to_accuracy.py`` sets beside our ``fit``.

python -m benchmarks.peers.torch_recipe TRAIN.npz TEST.npz
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks.networks import NETWORKS
from benchmarks.peers.contender import cores
from benchmarks.problems import read_problem
from benchmarks.recipe import Recipe
from benchmarks.servers import serve

CHANNELS_LAST = torch.channels_last


def main() -> None:
    torch.set_num_threads(cores())
    train, test = read_problem(sys.argv[1]), read_problem(sys.argv[2])
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)

    def fit(argument: str) -> dict[str, Any]:
        """ "{recipe, seed}" -> seconds of training, and the accuracy on the test set."""
        wanted = json.loads(argument)
        recipe, generator = Recipe(*wanted["recipe"]), torch.Generator()
        generator.manual_seed(wanted["seed"])
        model = NETWORKS["W"](nn)
        model.load_state_dict({k: torch.from_numpy(a) for k, a in train.weights.items()})
        model = model.to(memory_format=CHANNELS_LAST)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=recipe.momentum)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            sgd,
            recipe.max_lr,
            total_steps=recipe.steps(len(images)),
            pct_start=recipe.warm_up,
            cycle_momentum=False,
        )
        start = time.perf_counter()
        for _ in range(recipe.epochs):
            order = torch.randperm(len(images), generator=generator)
            for rows in order.split(recipe.batch):
                x = images[rows].to(memory_format=CHANNELS_LAST)
                sgd.zero_grad()
                nn.functional.cross_entropy(model(x), labels[rows]).backward()
                sgd.step()
                cycle.step()
        return {"seconds": time.perf_counter() - start, "accuracy": accuracy(model)}

    def accuracy(model: nn.Module) -> float:
        with torch.inference_mode():
            pieces = torch.from_numpy(test.images).to(memory_format=CHANNELS_LAST).split(1000)
            guesses = torch.cat([model(piece).argmax(1) for piece in pieces])
        return (guesses == torch.from_numpy(test.labels)).double().mean().item()

    serve({"torch": torch.__version__}, {"fit": fit})


if __name__ == "__main__":
    main()
