"""JAX: W as functions of a list of parameters, one jitted update, images as (N, H, W, C)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.peers.article_weights import NAMES, in_order
from benchmarks.peers.contender import Contender, run
from benchmarks.problems import LEARNING_RATE, MOMENTUM, Problem

LAYOUT = ("NHWC", "HWIO", "NHWC")  # image, kernel, output: the faster one on a CPU
WINDOW = (1, 2, 2, 1)


def convolution(x, w, b):
    return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=LAYOUT) + b


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, WINDOW, WINDOW, "VALID")


def network(p, x):
    x = pool(jax.nn.relu(convolution(x, p[0], p[1])))
    x = pool(jax.nn.relu(convolution(x, p[2], p[3])))
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # the order of features that fc1 expects
    return jax.nn.relu(x @ p[4].T + p[5]) @ p[6].T + p[7]


def loss_of(p, x, labels):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(network(p, x)), labels[:, None], axis=1)
    return -chosen.mean()


@jax.jit
def update(p, velocity, x, labels):
    gradients = jax.grad(loss_of)(p, x, labels)
    velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
    return [a - LEARNING_RATE * v for a, v in zip(p, velocity, strict=True)], velocity


def build(problem: Problem) -> Contender:
    p = [jnp.asarray(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a) for a in in_order(problem)]
    labels = jnp.asarray(problem.labels)
    state = [p, [jnp.zeros_like(a) for a in p]]
    forward = jax.jit(network)

    def convert(images: np.ndarray) -> jax.Array:
        return jnp.asarray(images.transpose(0, 2, 3, 1))

    x = convert(problem.images)

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        loss, found = jax.value_and_grad(loss_of)(state[0], x, labels)
        as_ours = (g.transpose(3, 2, 0, 1) if g.ndim == 4 else g for g in found)
        return float(loss), dict(zip(NAMES, map(np.asarray, as_ours), strict=True))

    def train() -> None:
        state[:] = update(*state, x, labels)
        jax.block_until_ready(state)

    def infer(images: jax.Array) -> jax.Array:
        return forward(state[0], images).block_until_ready()

    return Contender({"jax": jax.__version__}, convert, infer, train, gradients)


if __name__ == "__main__":
    run(build)
