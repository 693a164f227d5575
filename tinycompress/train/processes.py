"""Worker processes: forked copies of this one that do their share of each call.

A fork has everything that this process has, without sending it: the data set, the model, the
objective. So a call sends a few numbers (which samples) and gets back a few (losses, outputs);
weights and gradients pass through shared memory. Processes and not threads, because every NumPy
call takes and drops Python's global lock, and two threads wait for each other (docs/performance.md
has what that costs).

This process is the first worker. What can happen to the others, and what is done about it:

* one raises: the error arrives here with its notes and its traceback;
* one is killed: its end of the pipe closes, and :class:`WorkerError` names the signal;
* one hangs: after ``patience`` seconds it is asked where it stands (``faulthandler``) and killed;
* this process is killed: each worker looks once a second whether its parent is still there;
* Ctrl-C reaches all of them: workers ignore it, and leave the decision to this process.
"""

from __future__ import annotations

import faulthandler
import io
import multiprocessing
import os
import pickle
import select
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tinycompress.nn import Module, fusion, fusion_enabled
from tinycompress.train.shared_state import SharedState

Work = Callable[[Any], Any]

SPIN = 0.001
"""Seconds for which a process looks for a message without going to sleep: waking up costs it a
tenth of a millisecond, and the next message usually comes sooner than this."""


class WorkerError(RuntimeError):
    """A worker process that died, hung, or gave something that cannot be sent."""


class _Worker(NamedTuple):
    process: Any
    pipe: Connection
    poll: Any  # tells, without waiting longer than asked, whether the pipe can be read
    dump: Any  # the file into which faulthandler writes


class Processes:
    """``count − 1`` forks of this process, which know ``works``.

    Args:
        count: how many share the work, this process included.
        works: the functions that may be mapped.
        modules: the modules that the works reach; their numbers are shared.
        patience: the seconds that a worker may take longer than this process before it counts as
            hung.
        begin: called in each worker before anything else.
    """

    def __init__(
        self,
        count: int,
        works: Sequence[Work],
        modules: Sequence[Module],
        patience: float,
        begin: Callable[[], None],
    ) -> None:
        self.works, self._modules, self._patience = list(works), list(modules), patience
        self._begin = begin
        self.state = SharedState(modules)
        self._numbers = {id(m): i for i, m in enumerate(self._modules)}
        self._workers: list[_Worker] = []
        try:
            for _ in range(count - 1):
                self._fork()
        except BaseException:
            self.close(kill=True)
            raise

    def map(self, work: Work, pieces: Sequence[Any]) -> list[Any]:
        """``[work(p) for p in pieces]``, each worker a run of neighbours.

        Layers are fused there as they would be on this thread.

        Raises:
            WorkerError: a worker died, hung, or has something that cannot be sent. This, and any
                error of a piece, closes the workers.
        """
        number = next(i for i, known in enumerate(self.works) if known is work)
        self.state.publish()
        shares = _shares(pieces, len(self._workers) + 1)
        try:
            busy = []
            for worker, share in zip(self._workers, shares[1:], strict=True):
                if share:
                    self._send(worker, (number, share, fusion_enabled()))
                    busy.append(worker)
            results = [work(piece) for piece in shares[0]]
            for worker in busy:
                results += self._receive(worker)
        except BaseException:
            self.close(kill=True)  # the others may be in the middle of something
            raise
        return results

    def close(self, kill: bool = False) -> None:
        """End the workers, and give the parameters back the memory that they had."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.pipe.close()  # to a worker that waits, this says that there is nothing more
            if kill:
                worker.process.kill()
        for worker in workers:
            worker.process.join(timeout=1)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.process.close()
            worker.dump.close()
        self.state.release()

    # ------------------------------------------------------------------------------ talking

    def _send(self, worker: _Worker, message: Any) -> None:
        try:
            worker.pipe.send_bytes(_dumps(message, self._numbers))
        except OSError:
            raise self._died(worker) from None

    def _receive(self, worker: _Worker) -> list[Any]:
        """The results of one worker, or the error that it met."""
        if not _wait(worker.poll, self._patience):
            raise self._hung(worker)
        try:
            kind, content = _loads(worker.pipe.recv_bytes(), self._modules)
        except (EOFError, OSError):
            raise self._died(worker) from None
        if kind == "results":
            return content
        error, trace = content
        raise error from _Remote(trace)

    def _died(self, worker: _Worker) -> WorkerError:
        worker.process.join(timeout=1)
        code = worker.process.exitcode
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += " (often: the machine ran out of memory)" if -code == signal.SIGKILL else ""
        else:
            how = f"exited with status {code}"
        return WorkerError(f"worker process {worker.process.pid} {how} in the middle of its work")

    def _hung(self, worker: _Worker) -> WorkerError:
        os.kill(worker.process.pid, signal.SIGUSR1)
        time.sleep(0.2)
        worker.dump.seek(0)
        where = worker.dump.read() or "(it did not say where it stands)"
        return WorkerError(
            f"worker process {worker.process.pid} gave no answer for {self._patience:g} s after "
            f"this process had finished its own share; it stands here:\n{where}"
        )

    # ------------------------------------------------------------------------------- a worker

    def _fork(self) -> None:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        dump = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        process = context.Process(
            target=self._serve, args=(here, there, dump, os.getpid()), daemon=True
        )
        with warnings.catch_warnings():
            # Python 3.12 warns where other threads run. They do not run in the fork, which never
            # waits for one of them: it computes, and talks to its pipe.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        self._workers.append(_Worker(process, here, _poll_of(here), dump))

    def _serve(self, here: Connection, pipe: Connection, dump: Any, parent: int) -> None:
        """What a worker does until its pipe closes."""
        self._begin()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.register(signal.SIGUSR1, file=dump, all_threads=True)
        here.close()
        for sibling in self._workers:  # or its pipe would stay open when this process's closes
            sibling.pipe.close()
        threading.Thread(target=_end_without, args=(parent,), daemon=True).start()
        poll = _poll_of(pipe)
        while True:
            try:
                _wait(poll)
                message = pipe.recv_bytes()
            except (EOFError, OSError):
                return
            answer = self._answer(message)
            try:
                pipe.send_bytes(answer)
            except OSError:
                return

    def _answer(self, message: bytes) -> bytes:
        try:
            number, pieces, fused = _loads(message, self._modules)
            self.state.receive()
            with fusion(fused):
                results = [self.works[number](piece) for piece in pieces]
            self.state.check_unchanged()
            return _dumps(("results", results), self._numbers)
        except BaseException as error:
            return _dumps(("error", (_sendable(error), traceback.format_exc())), self._numbers)


class _Remote(Exception):
    """The cause of an error from a worker: prints the traceback that it had there."""

    def __init__(self, trace: str) -> None:
        super().__init__(f"\n\nin a worker process:\n{trace}")


def _end_without(parent: int) -> None:
    """End this process, whatever it does, within a second of its parent's end."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _poll_of(pipe: Connection) -> Any:
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN | select.POLLHUP)
    return poll


def _wait(poll: Any, seconds: float | None = None) -> bool:
    """Until there is something to read, or its other end is closed: whether that is so."""
    awake = time.perf_counter() + SPIN
    while time.perf_counter() < awake:
        if poll.poll(0):
            return True
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


def _shares(pieces: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """``pieces`` in ``count`` runs of neighbours, as even as can be; some may be empty."""
    n = len(pieces)
    return [pieces[n * k // count : n * (k + 1) // count] for k in range(count)]


# --------------------------------------------------------------- modules travel as their numbers


class _Pickler(pickle.Pickler):
    numbers: dict[int, int]

    def persistent_id(self, obj: Any) -> int | None:
        return self.numbers.get(id(obj)) if isinstance(obj, Module) else None


class _Unpickler(pickle.Unpickler):
    modules: list[Module]

    def persistent_load(self, pid: Any) -> Module:
        return self.modules[pid]


def _dumps(item: Any, numbers: dict[int, int]) -> bytes:
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.numbers = numbers
    pickler.dump(item)
    return file.getvalue()


def _loads(data: bytes, modules: list[Module]) -> Any:
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.modules = modules
    return unpickler.load()


def _sendable(error: BaseException) -> BaseException:
    """The error itself, if it arrives elsewhere as it is here; else one that says the same."""
    try:
        twin = pickle.loads(pickle.dumps(error))
        if type(twin) is type(error) and str(twin) == str(error):
            return error
    except Exception:
        pass
    stand_in = WorkerError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", []):
        stand_in.add_note(note)
    return stand_in
