"""What a framework must be able to do to take part, and how that becomes a server's tasks."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.problems import Problem, read_problem, write_results
from benchmarks.rounds import median_seconds
from benchmarks.servers import Task, serve


class Contender(NamedTuple):
    """One framework on one problem. Every function returns when the work is done, not before.

    Attributes:
        versions: of whatever matters: the framework, its array library.
        convert: images (B, 1, 28, 28) as NumPy has them -> what ``infer`` takes.
        infer: -> logits (B, 10), anything that ``np.asarray`` reads.
        train: one step of SGD with momentum on the problem's batch; None: it only infers.
        gradients: -> loss and gradients by name (or none) before any step; None likewise.
    """

    versions: dict[str, str]
    convert: Callable[[np.ndarray], Any]
    infer: Callable[[Any], Any]
    train: Callable[[], Any] | None = None
    gradients: Callable[[], tuple[float, dict[str, np.ndarray]]] | None = None


def cores() -> int:
    """How many this process may run on: what each framework gets as its number of threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tasks_of(contender: Contender, problem: Problem) -> dict[str, Task]:
    """``train``, ``infer`` and ``latency`` take "STEPS [SECONDS]", see :func:`median_seconds`."""
    batch = contender.convert(problem.images)
    passes: list[Any] = []

    def timed(step: Callable[[], Any], argument: str) -> float:
        steps, _, budget = argument.partition(" ")
        return median_seconds(step, int(steps), budget=float(budget or "inf"))

    def infer(argument: str) -> float:
        """Different batches, one after the other: nothing but the weights can stay in the cache."""
        steps = int(argument.partition(" ")[0])
        if not passes:
            images = problem.many_images(steps)
            starts = range(0, len(images), problem.batch)
            passes.extend(contender.convert(images[i : i + problem.batch]) for i in starts)

        def whole_pass() -> None:
            for each in passes:
                contender.infer(each)

        return median_seconds(whole_pass, 3, warm_up=0, least=1, budget=0.5) / len(passes)

    def check(path: str) -> None:
        outputs = np.asarray(contender.infer(batch))
        found = contender.gradients() if contender.gradients else (None, None)
        write_results(path, outputs, *found)

    tasks: dict[str, Task] = {
        "infer": infer,
        "latency": lambda argument: timed(lambda: contender.infer(batch), argument),
        "check": check,
    }
    if (train := contender.train) is not None:
        tasks["train"] = lambda argument: timed(train, argument)
    return tasks


def run(build: Callable[..., Contender]) -> None:
    """Serve ``build(problem, *arguments)``: the last line of each peer's file."""
    problem = read_problem(sys.argv[1])
    contender = build(problem, *sys.argv[2:])
    python = {"python": platform.python_version(), "numpy": np.__version__}
    serve({**python, **contender.versions}, tasks_of(contender, problem))
