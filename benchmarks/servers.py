"""Each contender lives in a process of its own, and answers one line at a time.

One framework's heap, thread pool or allocator must not help or hinder another's. So the harness
(:class:`Server`) starts ``python -m benchmarks.peers.torch_eager PROBLEM.npz channels_last`` and
the like, with an environment that is told, and asks; the process (:func:`serve`) does the work and
answers with one line of JSON. While one works, the others wait for a line and use no processor.

    train 25        the median seconds of 25 training steps on one batch
    infer 25        seconds for one batch, over a pass of at least 25 different batches
    latency 25      the median seconds of 25 forward passes of one batch, one after the other
    check FILE      writes loss, outputs and gradients to FILE.npz
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
Task = Callable[[str], Any]  # what stands behind the word -> an answer, in JSON values

# glibc's numbers that tinycompress sets for itself (tinycompress/allocator.py), for the others.
TUNED_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# Each framework uses its own defaults, and one thread for each core that it may run on.
NOT_INHERITED = ("MALLOC_", "OMP_", "MKL_", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS")


class Missing(Exception):
    """A framework that is not installed."""


class Server:
    """A contender in a process of its own; a context that ends it.

    Args:
        module: run with ``python -m``.
        arguments: for that module; the problem's file first.
        environment: set on top of this process's, without what tunes malloc or threads.

    ``ready`` and ``ask`` raise :class:`Missing` where the framework cannot be imported, and
    ``RuntimeError`` where the process ended or answered with an error.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[object] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
        self.name = " ".join([module, *map(str, arguments)])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            env={**inherited, **(environment or {})},
        )
        self.versions: dict[str, str] = {}

    def ready(self) -> Self:
        """Wait until it has started. Several can start meanwhile."""
        self.versions = self._answer()["versions"]
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self.process.stdin is not None:
                self.process.stdin.close()  # the end of its input is the end of it
            self.process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def ask(self, task: str, argument: object = "") -> Any:
        """One line there, one line back."""
        print(task, argument, file=self.process.stdin, flush=True)
        return self._answer()["answer"]

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        answer = json.loads(line) if line else {"error": "it ended without an answer"}
        if "error" not in answer:
            return answer
        self.errors.seek(0)
        written = self.errors.read().strip()[-2000:]
        reasons = re.findall(r"^[\w.]*(?:Error|Exception): .*", written, re.MULTILINE)
        if reasons and reasons[-1].startswith("ModuleNotFoundError"):
            raise Missing(reasons[-1])
        reason = reasons[-1] if reasons else answer["error"]
        raise RuntimeError(f"{self.name}: {reason}\n{written}")


def serve(versions: dict[str, str], tasks: Mapping[str, Task]) -> None:
    """The other end: say hello, then answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints from now on is no answer

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    say(versions=versions)
    for line in sys.stdin:
        name, _, argument = line.strip().partition(" ")
        try:
            say(answer=tasks[name](argument))
        except Exception as error:
            traceback.print_exc()
            say(error=f"{type(error).__name__}: {error}")
