"""How much faster a network is without half of its channels: the two take turns, in one process.

As in ``benchmarks/rounds.py``: in each round both have one turn, and the figure is the median of
the rounds' ratios, with the quarter points around it. Timed are reading images (``predict``, in
batches and one by one, as they are and compiled) and the steps of training (``fit``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the package
    sys.path.append(str(ROOT))

import tinycompress as tc  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from benchmarks.rounds import ratio, spread, take_turns  # noqa: E402
from tinycompress import nn  # noqa: E402
from tinycompress.data import Dataset  # noqa: E402
from tinycompress.train import Callback, Run, Workers, predict  # noqa: E402

ROUNDS, IMAGES, SINGLE, STEPS = 15, 2000, 200, 20
WARM_UP = 3  # steps after the start of fit that do not count


class StepClock(Callback):
    """Notes the time at the end of every step."""

    only_looks = True

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_step_end(self, run: Run) -> None:
        self.stamps.append(time.perf_counter())

    def median(self) -> float:
        return median(after - before for before, after in pairwise(self.stamps[WARM_UP:]))


def reading(model: nn.Module, images: Any, batch: int, team: Workers) -> Callable[[], float]:
    """Seconds to read these images."""

    def turn() -> float:
        start = time.perf_counter()
        predict(model, images, batch_size=batch, workers=team)
        return time.perf_counter() - start

    return turn


def training(model: nn.Module, data: Dataset, team: Workers) -> Callable[[], float]:
    """Seconds of a step with 128 images."""
    own = model.copy()

    def turn() -> float:
        clock = StepClock()
        tc.fit(own, data, 1, callbacks=[clock], workers=team)
        return clock.median()

    return turn


def measure_speed(
    dense: nn.Module, small: nn.Module, data: Dataset, quick: bool = False
) -> dict[str, Any]:
    """Both, in every way; ``faster``: how many times as fast the smaller one is."""
    rounds = 2 if quick else ROUNDS
    models = {"dense": dense, "small": small}
    compiled = {name: tc.compile(model) for name, model in models.items()}
    images = data.images[:IMAGES]
    steps = data.take(min(len(data), 128 * (WARM_UP + 1 + STEPS)))
    ways: list[dict[str, Any]] = []
    for workers in (None, 1):
        with Workers(workers) as team:
            tasks: dict[str, dict[str, Callable[[], float]]] = {
                "read in batches of 100": {
                    name: reading(m, images, 100, team) for name, m in models.items()
                },
                "read in batches of 100, compiled": {
                    name: reading(m, images, 100, team) for name, m in compiled.items()
                },
                "read one by one, compiled": {
                    name: reading(m, images[:SINGLE], 1, team) for name, m in compiled.items()
                },
                "a step of training, 128 images": {
                    name: training(m, steps, team) for name, m in models.items()
                },
            }
            for task, turns in tasks.items():
                kept = take_turns(turns, rounds)
                faster = ratio(kept, "small", "dense")
                seconds = {n: spread(r[n] for r in kept)._asdict() for n in turns}
                ways.append(
                    {
                        "task": task,
                        "workers": team.count,
                        "faster": faster._asdict(),
                        "seconds": seconds,
                        "rounds": kept,
                    }
                )
                print(f"{task}, {team.count} workers: {faster.median:.2f} times as fast "
                      f"({faster.q1:.2f} to {faster.q3:.2f})", flush=True)  # fmt: skip
    counts = {name: tc.summary(model, (1, 28, 28)) for name, model in models.items()}
    return {
        "name": "article-cnn-half-speed",
        "what": "the article's network with half of its channels removed, timed beside all of it",
        "machine": machine(),
        "parameters": {name: count.parameters for name, count in counts.items()},
        "macs": {name: count.macs for name, count in counts.items()},
        "images": len(images),
        "ways": ways,
    }
