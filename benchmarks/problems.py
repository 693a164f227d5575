"""A problem: a network's weights and one batch, in a file that every contender reads.

The weights are those of a fresh tinycompress model, by torch's names and in torch's shapes. Nothing
here knows a framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

LEARNING_RATE, MOMENTUM = 1e-4, 0.9  # so small that random labels do not make it diverge
EPOCH = 16_384  # images of the training set that fit() draws its batches from
PASS = 2_048  # the fewest images of a pass of inference


class Problem(NamedTuple):
    """What a contender computes.

    Attributes:
        workload: "W", "lenet-5" or "residual".
        weights: the parameters and buffers by name.
        images: (B, 1, 28, 28) float32.
        labels: (B,) int64.
    """

    workload: str
    weights: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray

    @property
    def batch(self) -> int:
        return len(self.images)

    def many_images(self, batches: int) -> np.ndarray:
        """At least so many batches, and at least ``PASS`` images, for a pass of inference."""
        batches = max(batches, -(-PASS // self.batch))
        return random_images(batches * self.batch, seed=1)[0]


def random_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((count, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, count)


def problem_of(workload: str, weights: Mapping[str, np.ndarray], batch: int) -> Problem:
    return Problem(workload, dict(weights), *random_images(batch, seed=0))


def write_problem(path: Path, problem: Problem) -> Path:
    named = {f"weight.{name}": array for name, array in problem.weights.items()}
    given = {"images": problem.images, "labels": problem.labels}
    np.savez(path, workload=np.array(problem.workload), **given, **named)
    return path


def read_problem(path: str | Path) -> Problem:
    with np.load(path) as file:
        weights = {k.removeprefix("weight."): file[k] for k in file if k.startswith("weight.")}
        return Problem(str(file["workload"]), weights, file["images"], file["labels"])


def steps_for(batch: int, least: int) -> int:
    """Small batches take more steps, so that a turn is long enough to time."""
    return max(least, min(4 * least, 800 // batch))


def write_results(
    path: str | Path,
    outputs: np.ndarray,
    loss: float | None = None,
    gradients: Mapping[str, np.ndarray] | None = None,
) -> None:
    """The answer to ``check``: what one batch gives before any training."""
    named = {f"gradient.{name}": array for name, array in (gradients or {}).items()}
    np.savez(path, outputs=outputs, **({} if loss is None else {"loss": loss}), **named)


def differences(path: Path, reference: Path) -> dict[str, float]:
    """How far two results are apart: the norm of the difference over the norm of the reference.

    ``outputs``, and where both sides have them ``loss`` and ``gradient``, the worst of the
    parameters (some frameworks only infer, and some are asked for their loss alone).
    """
    with np.load(path) as a, np.load(reference) as b:
        apart = {k: relative_difference(a[k], b[k]) for k in b if k in a}
    gradients = [apart.pop(k) for k in list(apart) if k.startswith("gradient.")]
    return {**apart, **({"gradient": max(gradients)} if gradients else {})}


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
