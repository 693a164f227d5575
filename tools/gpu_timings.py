"""Images per second of the article's CNN on this GPU, ours beside torch's: one JSON on stdout.

    CUPY_TF32=1 python tools/gpu_timings.py 64 128 256

Used by ``gpu_check.py``. The two take turns in one process, ``ROUNDS`` rounds of ``STEPS`` steps
each; a figure is the median over the rounds, and the ratio is the median of the rounds' ratios, so
that a GPU that grows warm or is shared does as little harm as can be. Torch runs eagerly, with its
default layout; ``CUPY_TF32=1`` allows TF32 for both. Without torch, or with a torch that sees no
GPU, ours alone is timed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import tinycompress as tc
from tinycompress import backend

ROUNDS, STEPS, WARM_UP = 9, 25, 5
Step = Callable[[], Any]


def ours(images: np.ndarray, labels: np.ndarray, device: str) -> tuple[Step, Step, Step]:
    """One training step, one inference step, and a wait until the device is idle."""
    tc.manual_seed(0)
    model = tc.models.ArticleCNN().to(device)
    params = list(model.parameters())
    optimizer = tc.optim.SGD(params, lr=0.01, momentum=0.9)
    objective = tc.train.Supervised()
    batch = [backend.to_device(a, device) for a in (images, labels)]

    def train() -> None:
        step = tc.train.value_and_grad(objective, model, batch)
        for p, g in zip(params, step.gradients, strict=True):
            p.grad = g
        optimizer.step()

    def infer() -> None:
        with tc.no_grad():
            model(batch[0])

    if device == "cpu":
        return train, infer, lambda: None
    return train, infer, backend.import_cupy().cuda.Device().synchronize


def torchs(
    images: np.ndarray, labels: np.ndarray, device: str, tf32: bool
) -> tuple[Step, Step, Step] | None:
    """The same for torch, or None where it cannot run."""
    try:
        import torch
        from torch import nn
    except ImportError:
        return None
    if device == "cuda" and not torch.cuda.is_available():
        return None
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    features = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)]
    features += [nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(1600, 100), nn.ReLU(), nn.Linear(100, 10)]
    model = nn.Sequential(*features, *head).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode():
            model(x)

    return train, infer, torch.cuda.synchronize if device == "cuda" else lambda: None


def images_per_second(step: Step, wait: Step, batch_size: int, steps: int) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return steps * batch_size / (time.perf_counter() - start)


def time_batch(
    batch_size: int,
    device: str = "cuda",
    tf32: bool = False,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    warm_up: int = WARM_UP,
) -> dict[str, Any]:
    """Both libraries on one batch of random images, in turns."""
    rng = np.random.default_rng(0)
    images = rng.random((batch_size, 1, 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, batch_size)
    contestants = {"tinycompress": ours(images, labels, device)}
    if (peer := torchs(images, labels, device, tf32)) is not None:
        contestants["torch"] = peer
    result: dict[str, Any] = {"batch": batch_size}
    for k, kind in enumerate(("train", "inference")):
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):  # round 0 compiles kernels and fills the memory pools
            for name, parts in contestants.items():
                count = steps if number else warm_up
                speeds[name].append(images_per_second(parts[k], parts[2], batch_size, count))
        for name in contestants:
            result[f"{kind}_{name}"] = round(median(speeds[name][1:]), 1)
        if "torch" in speeds:
            pairs = zip(speeds["tinycompress"][1:], speeds["torch"][1:], strict=True)
            result[f"{kind}_ratio"] = round(median(a / b for a, b in pairs), 3)
    return result


def main() -> None:
    tf32 = os.environ.get("CUPY_TF32") == "1"
    results = []
    for batch_size in map(int, sys.argv[1:]):
        results.append(time_batch(batch_size, tf32=tf32))
        print(results[-1], file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
