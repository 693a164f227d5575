"""tinycompress as its user has it: training through ``tc.fit``, everything that it does included.

    python -m benchmarks.ours PROBLEM.npz [--workers N] [--kind KIND] [--unfused] [--set …]

Training is timed between the ends of two steps of ``fit``: gathering the batch from a data set in a
new order, the forward and backward pass on all workers, the optimizer, the running loss and
accuracy. (The other contenders train on one batch that lies ready.) Throughput is that of
``train.predict`` on a compiled model; latency is one call of it in this process alone.

``--set tinycompress.ops.conv:BLOCK_BYTES=65536`` changes a constant of the engine, which is how
``rules.py`` asks what each rule is worth.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import statistics
import sys
import time
from itertools import pairwise

import numpy as np

import tinycompress as tc
from benchmarks.networks import NETWORKS
from benchmarks.problems import (
    EPOCH,
    LEARNING_RATE,
    MOMENTUM,
    Problem,
    random_images,
    read_problem,
    write_results,
)
from benchmarks.rounds import median_seconds
from benchmarks.servers import Task, serve
from tinycompress import nn, optim
from tinycompress.train import Callback, Run, Supervised, Workers, predict, value_and_grad

WARM_UP = 3  # steps after the start of fit that do not count


class StepClock(Callback):
    """Notes the time at the end of every step, and stops the run after ``steps`` that count."""

    only_looks = True

    def __init__(self, steps: int) -> None:
        self.wanted = WARM_UP + steps
        self.stamps: list[float] = []

    def on_step_end(self, run: Run) -> None:
        self.stamps.append(time.perf_counter())
        if len(self.stamps) > self.wanted:
            run.stop()

    def median(self) -> float:
        times = [after - before for before, after in pairwise(self.stamps[WARM_UP:])]
        return statistics.median(times)


class Ours:
    """One problem, one way of working on it (the command line's options)."""

    def __init__(self, problem: Problem, options: argparse.Namespace, team: Workers) -> None:
        self.problem, self.options, self.team = problem, options, team
        self.model = NETWORKS[problem.workload](nn)
        self.model.load_state_dict(problem.weights)
        # For inference. Compiled, it keeps the weights of this moment, which serve as well as any.
        self.network = self.model if options.unfused else tc.compile(self.model)
        self.data = tc.data.Dataset(*random_images(EPOCH, seed=2), name="random")
        self.optimizer = optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.passes: list[np.ndarray] = []

    def shard_size(self) -> dict[str, int]:
        return {"shard_size": self.options.shard_size} if self.options.shard_size else {}

    def train(self, argument: str) -> float:
        """Seconds of a step, the median of "STEPS"."""
        clock = StepClock(int(argument.partition(" ")[0]))
        tc.fit(
            self.model,
            self.data,
            epochs=1_000,
            optimizer=self.optimizer,
            batch_size=self.problem.batch,
            callbacks=[clock],
            workers=self.team,
            **self.shard_size(),
        )
        return clock.median()

    def infer(self, argument: str) -> float:
        """Seconds for one batch of a pass over many."""
        batch = self.problem.batch
        if not self.passes:
            self.passes.append(self.problem.many_images(int(argument.partition(" ")[0])))
        images = self.passes[0]

        def whole_pass() -> None:
            predict(self.network, images, batch_size=batch, workers=self.team)

        seconds = median_seconds(whole_pass, 3, warm_up=0, least=1, budget=0.5)
        return seconds * batch / len(images)

    def latency(self, argument: str) -> float:
        """Seconds of one call for one batch, in this process alone."""
        with nn.evaluation_mode(self.network), tc.no_grad():
            batch = tc.tensor(self.problem.images)
            return median_seconds(lambda: self.network(batch), int(argument.partition(" ")[0]))

    def check(self, path: str) -> None:
        """Loss, outputs and gradients of the batch, the way that is timed.

        Batch norm sees one shard (``train/step.py``), torch the whole batch: the check takes the
        batch in one piece where the network has batch norm.
        """
        batch = self.problem.images, self.problem.labels
        normed = any(isinstance(m, nn.BatchNorm2d) for m in self.model.modules())
        shards = {"shard_size": self.problem.batch} if normed else self.shard_size()
        outputs = predict(self.network, batch[0], workers=self.team)
        self.model.train()
        step = value_and_grad(Supervised(), self.model, batch, workers=self.team, **shards)
        names = [name for name, _ in self.model.named_parameters()]
        gradients = dict(zip(names, step.gradients, strict=True))
        write_results(path, outputs, float(step.loss), gradients)


def set_constants(assignments: list[str]) -> None:
    """``module:NAME=number``: NAME must be there already."""
    for assignment in assignments:
        place, _, value = assignment.partition("=")
        module, _, name = place.partition(":")
        owner = importlib.import_module(module)
        before = getattr(owner, name)
        setattr(owner, name, type(before)(float(value)))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem")
    parser.add_argument("--workers", default="auto", help="auto, or how many")
    parser.add_argument("--kind", default="auto", help="auto, process or thread")
    parser.add_argument("--unfused", action="store_true", help="one operation per layer")
    parser.add_argument("--shard-size", type=int, help="images in a shard; default: fit's")
    parser.add_argument("--per-parameter", action="store_true", help="no flat optimizer")
    parser.add_argument("--set", action="append", default=[], metavar="MODULE:NAME=NUMBER")
    options = parser.parse_args(arguments)
    if options.workers != "auto":
        options.workers = int(options.workers)
    return options


def main() -> None:
    options = parse(sys.argv[1:])
    set_constants(options.set)
    if options.per_parameter:
        optim.FlatBuffer.fits = staticmethod(lambda parameters: False)
    versions = {"tinycompress": tc.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    fusion = nn.fusion(not options.unfused)
    with fusion, Workers(options.workers, options.kind) as team:
        ours = Ours(read_problem(options.problem), options, team)
        tasks: dict[str, Task] = {
            "train": ours.train,
            "infer": ours.infer,
            "latency": ours.latency,
            "check": ours.check,
        }
        serve(versions, tasks)


if __name__ == "__main__":
    main()
