"""MyGrad: eager, on NumPy."""

from __future__ import annotations

import importlib.metadata

import mygrad as mg
import numpy as np
from mygrad.nnet.activations import relu
from mygrad.nnet.layers import conv_nd, max_pool
from mygrad.nnet.losses import softmax_crossentropy

from benchmarks.peers.article_weights import in_order
from benchmarks.peers.contender import Contender, run
from benchmarks.problems import LEARNING_RATE, MOMENTUM, Problem


def network(p: list, x: np.ndarray) -> mg.Tensor:
    x = max_pool(relu(conv_nd(x, p[0], stride=1) + p[1].reshape(1, -1, 1, 1)), (2, 2), 2)
    x = relu(conv_nd(x, p[2], stride=1) + p[3].reshape(1, -1, 1, 1))
    x = max_pool(x[:, :, :10, :10], (2, 2), 2)  # it refuses to leave the eleventh row out itself
    x = x.reshape(len(x), -1)
    return relu(x @ p[4].T + p[5]) @ p[6].T + p[7]


def build(problem: Problem) -> Contender:
    p = [mg.tensor(a) for a in in_order(problem)]
    velocity = [np.zeros_like(a.data) for a in p]
    x, labels = problem.images, problem.labels

    def train() -> None:
        softmax_crossentropy(network(p, x), labels).backward()
        for parameter, v in zip(p, velocity, strict=True):
            v *= MOMENTUM
            v += parameter.grad
            parameter.data[...] -= np.float32(LEARNING_RATE) * v
            parameter.null_grad()

    def infer(images: np.ndarray) -> np.ndarray:
        with mg.no_autodiff:
            return network(p, images).data

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        with mg.no_autodiff:
            return float(softmax_crossentropy(network(p, x), labels).data), {}

    version = {"mygrad": importlib.metadata.version("mygrad")}
    return Contender(version, lambda images: images, infer, train, gradients)


if __name__ == "__main__":
    run(build)
