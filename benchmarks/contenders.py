"""Who takes part, and how each is started."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.problems import differences, problem_of, write_problem
from benchmarks.servers import TUNED_MALLOC, Missing, Server

OURS = "tinycompress"
# Rounding is 1e-6. But where two candidates of a maximum, or a ReLU's input and 0, are equal up to
# rounding, two correct programs may choose differently, and one image's gradient flows elsewhere:
# on the residual network torch in float32 is up to 6e-3 from torch in float64. A wrong derivative
# is off by the size of the gradient.
TOLERANCE = {"loss": 1e-5, "outputs": 1e-4, "gradient": 3e-2}


class Entry(NamedTuple):
    """One contender: its server's module, arguments and environment.

    Attributes:
        headline: whether it takes part at every batch size, and not only at 128.
        exact: whether it must compute the same as ours; False for int8.
        trains: False for an engine that only infers.
    """

    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    headline: bool = False
    exact: bool = True
    trains: bool = True


EAGER, ONNX = "benchmarks.peers.torch_eager", "benchmarks.peers.onnx_runtime"

CONTENDERS: dict[str, Entry] = {
    OURS: Entry("benchmarks.ours", headline=True),
    f"{OURS}, 1 worker": Entry("benchmarks.ours", ("--workers", "1")),
    f"{OURS}, unfused": Entry("benchmarks.ours", ("--unfused",)),
    "torch default": Entry(EAGER, ("default",)),
    "torch channels_last": Entry(EAGER, ("channels_last",)),
    "torch default + malloc": Entry(EAGER, ("default",), TUNED_MALLOC, headline=True),
    "torch channels_last + malloc": Entry(EAGER, ("channels_last",), TUNED_MALLOC, headline=True),
}

# On W alone, and against these two.
YARDSTICKS = {name: CONTENDERS[name] for name in (OURS, "torch channels_last + malloc")}
PEERS: dict[str, Entry] = {
    "torch.compile, channels_last": Entry(EAGER, ("channels_last", "compile")),
    "JAX jit": Entry("benchmarks.peers.jax_jit"),
    "onnxruntime": Entry("benchmarks.peers.onnx_runtime", trains=False),
    "onnxruntime int8": Entry(
        "benchmarks.peers.onnx_runtime", ("int8",), exact=False, trains=False
    ),
    "tinygrad jit": Entry("benchmarks.peers.tinygrad_jit"),
    "DeZero": Entry("benchmarks.peers.dezero_eager"),
    "MyGrad": Entry("benchmarks.peers.mygrad_eager"),
}


class Disagreement(Exception):
    """A contender that does not compute what tinycompress computes."""


class Field:
    """The servers of some contenders on one problem; a context that ends them.

    Attributes:
        servers: by the contender's name; those that could be started.
        absent: name -> why not.
        checks: name -> how far its loss, outputs and gradients are from tinycompress's.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        workload: str,
        weights: Mapping[str, np.ndarray],
        batch: int,
        optional: bool = False,
    ) -> None:
        self.entries, self.optional = entries, optional
        self.servers: dict[str, Server] = {}
        self.absent: dict[str, str] = {}
        self.checks: dict[str, dict[str, float]] = {}
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._problem = write_problem(
            self._folder / "problem.npz", problem_of(workload, weights, batch)
        )

    def __enter__(self) -> Field:
        try:
            started = {name: self._start(entry) for name, entry in self.entries.items()}
            for name, server in started.items():
                self._await(name, server)
            self._check()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self, entry: Entry) -> Server:
        arguments = (self._problem, *entry.arguments)
        return self._stack.enter_context(Server(entry.module, arguments, entry.environment))

    def _await(self, name: str, server: Server) -> None:
        """Whoever is not installed, or does not run here, is left out, if that is allowed."""
        try:
            self.servers[name] = server.ready()
        except (Missing, RuntimeError) as error:
            if not self.optional:
                raise
            self.absent[name] = str(error).partition("\n")[0]

    def _check(self) -> None:
        """Same weights, same batch: the same loss, outputs and gradients, before any is timed.

        Nothing to compare with where tinycompress is not there, or alone.
        """
        if OURS not in self.servers or len(self.servers) == 1:
            return
        files = {name: self._folder / f"check-{k}.npz" for k, name in enumerate(self.servers)}
        for name, server in self.servers.items():
            server.ask("check", files[name])
        for name, file in files.items():
            if name == OURS:
                continue
            self.checks[name] = apart = differences(file, files[OURS])
            wrong = {k: v for k, v in apart.items() if v > TOLERANCE[k]}
            if wrong and self.entries[name].exact:
                raise Disagreement(f"{name} does not compute what {OURS} computes: {wrong}")

    def turns(self, task: str, argument: object, names: Sequence[str]) -> dict[str, Callable]:
        """What :func:`~benchmarks.rounds.take_turns` calls: one turn of each."""
        return {name: _turn(self.servers[name], task, argument) for name in names}


def _turn(server: Server, task: str, argument: object) -> Callable[[], float]:
    return lambda: float(server.ask(task, argument))
