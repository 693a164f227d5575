"""DeZero (from the book "Deep Learning from Scratch 3"): eager, on NumPy, im2col of the batch."""

from __future__ import annotations

import importlib.metadata

import numpy as np

np.int = int  # noqa: NPY001 (a name that DeZero still uses and NumPy 2 has no more)

import dezero
import dezero.functions as F
import dezero.layers as L

from benchmarks.peers.article_weights import NAMES, in_order
from benchmarks.peers.contender import Contender, run
from benchmarks.problems import LEARNING_RATE, MOMENTUM, Problem


class Network(dezero.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = L.Conv2d(32, 3, in_channels=1), L.Conv2d(64, 3, in_channels=32)
        self.fc1, self.fc2 = L.Linear(100, in_size=1600), L.Linear(10, in_size=100)

    def forward(self, x):
        x = F.pooling(F.relu(self.conv1(x)), 2, 2)
        x = F.pooling(F.relu(self.conv2(x)), 2, 2)
        return self.fc2(F.relu(self.fc1(F.reshape(x, (len(x), -1)))))


def build(problem: Problem) -> Contender:
    network = Network()
    for name, array in zip(NAMES, in_order(problem), strict=True):
        layer, _, kind = name.partition(".")
        parameter = getattr(getattr(network, layer), "W" if kind == "weight" else "b")
        parameter.data = array.T.copy() if array.ndim == 2 else array
    sgd = dezero.optimizers.MomentumSGD(lr=LEARNING_RATE, momentum=MOMENTUM).setup(network)
    x, labels = problem.images, problem.labels

    def train() -> None:
        loss = F.softmax_cross_entropy(network(x), labels)
        network.cleargrads()
        loss.backward()
        sgd.update()

    def infer(images: np.ndarray) -> np.ndarray:
        with dezero.no_grad():
            return network(images).data

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        return float(F.softmax_cross_entropy(network(x), labels).data), {}

    version = {"dezero": importlib.metadata.version("dezero")}
    return Contender(version, lambda images: images, infer, train, gradients)


if __name__ == "__main__":
    run(build)
