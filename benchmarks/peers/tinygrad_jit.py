"""tinygrad on its CPU device (clang), with TinyJit around the step."""

from __future__ import annotations

import importlib.metadata
import os

os.environ.setdefault("DEV", "CPU")

import numpy as np
from tinygrad import Tensor, TinyJit, nn
from tinygrad.helpers import Context

from benchmarks.peers.article_weights import NAMES, in_order
from benchmarks.peers.contender import Contender, run
from benchmarks.problems import LEARNING_RATE, MOMENTUM, Problem


class Network:
    def __init__(self) -> None:
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(1600, 100), nn.Linear(100, 10)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().max_pool2d()
        x = self.conv2(x).relu().max_pool2d()
        return self.fc2(self.fc1(x.flatten(1)).relu())


def build(problem: Problem) -> Contender:
    network = Network()
    named = dict(zip(NAMES, map(Tensor, in_order(problem)), strict=True))
    nn.state.load_state_dict(network, named, verbose=False)
    sgd = nn.optim.SGD(nn.state.get_parameters(network), lr=LEARNING_RATE, momentum=MOMENTUM)
    x, labels = Tensor(problem.images).realize(), Tensor(problem.labels.astype(np.int32)).realize()

    @TinyJit
    @Context(TRAINING=1)
    def step() -> Tensor:
        sgd.zero_grad()
        loss = network(x).sparse_categorical_crossentropy(labels).backward()
        return loss.realize(*sgd.schedule_step())

    @TinyJit
    def forward(images: Tensor) -> Tensor:
        return network(images).realize()

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        return network(x).sparse_categorical_crossentropy(labels).item(), {}

    return Contender(
        {"tinygrad": importlib.metadata.version("tinygrad")},
        convert=lambda images: Tensor(images).realize(),
        infer=lambda images: forward(images).numpy(),
        train=lambda: step().item(),
        gradients=gradients,
    )


if __name__ == "__main__":
    run(build)
