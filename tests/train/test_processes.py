"""Worker processes: they see what this process changes, and nothing of them is left behind."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from problems import bits, blas_threads, blobs, cnn, perceptron
from processes import children, gone, named_memory

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.train import (
    Callback,
    Supervised,
    WorkerError,
    Workers,
    evaluate,
    fit,
    predict,
    value_and_grad,
)
from tinycompress.train.reachable import Reached
from tinycompress.train.shared_memory import is_shared, shared_copy, shared_empty
from tinycompress.train.shared_state import shareable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

DATA = blobs(100)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before, memory = children(), named_memory()
    yield
    assert children() == before
    assert named_memory() == memory


def team(count=2, **options):
    return Workers(count, kind="process", **options)


def pid_of(piece):
    return os.getpid()


# ---------------------------------------------------------------------------------- who does what


def test_the_pieces_are_shared_by_this_process_and_its_forks():
    with team(3) as workers:
        pids = workers.map(pid_of, range(6))
        assert pids[:2] == [os.getpid()] * 2
        assert sorted(set(pids)) == sorted([os.getpid(), *children()])
        assert workers.map(pid_of, range(6)) == pids, "the same ones again"
    assert [pids[i] for i in (0, 2, 4)] == [pids[i] for i in (1, 3, 5)], "each a run of neighbours"


def test_fewer_pieces_than_workers():
    with team(4) as workers:
        assert len(set(workers.map(pid_of, range(2)))) == 2
        assert workers.map(pid_of, range(1)) == [os.getpid()]
        assert workers.map(pid_of, []) == []


def test_what_a_function_has_closed_over_is_seen_as_it_is_now():
    offset = 1

    def work(piece):
        return piece + offset

    with team() as workers:
        assert workers.map(work, range(4)) == [1, 2, 3, 4]
        first = children()
        assert workers.map(work, range(4)) == [1, 2, 3, 4]
        assert children() == first
        offset = 10
        assert workers.map(work, range(4)) == [10, 11, 12, 13]


def test_in_a_worker_there_are_no_workers():
    with team() as workers:

        def work(piece):
            with Workers(2) as inner:
                return set(inner.map(pid_of, range(4))) == {os.getpid()}

        assert workers.map(work, range(4)) == [True] * 4


def test_several_works_take_turns_without_forking_anew():
    works = [lambda piece, k=k: (k, piece, os.getpid()) for k in range(3)]
    with team() as workers:
        for work in works:
            workers.map(work, range(2))
        pids = children()
        for k, work in enumerate(works):
            assert [r[:2] for r in workers.map(work, range(2))] == [(k, 0), (k, 1)]
        assert children() == pids


def test_blas_has_one_thread_in_the_workers_too():
    with team() as workers:
        assert workers.map(lambda piece: blas_threads(), range(2)) == [{1}, {1}]


# ------------------------------------------------------------------------------ what they can see


def test_weights_buffers_and_modes_are_seen_as_they_are_now():
    model = cnn()
    norm, fc = model.get_submodule("norm"), model.get_submodule("fc")

    def work(piece):
        return float(fc.weight.data.sum()), float(norm.running_mean.sum()), model.training

    with team() as workers:

        def seen():
            here, there = workers.map(work, range(2))
            assert here == there
            return here

        seen()
        pids = children()
        fc.weight.data[...] = 1
        norm.running_mean = np.full(4, 2.0, np.float32)  # as a layer does: another array
        model.eval()
        assert seen() == (64 * 4, 8, False)
        model.train()
        assert seen() == (64 * 4, 8, True)
        assert children() == pids, "none of this is a reason to fork anew"


CHANGES = {
    "a layer frozen": lambda m: m.get_submodule("fc1").requires_grad_(False),
    "another layer": lambda m: m.set_submodule("relu", nn.Tanh()),
    "a number of a layer": lambda m: setattr(m.get_submodule("relu"), "slope", 0.5),
    "a list inside of a layer": lambda m: m.get_submodule("relu").extras.append(1),
    "a new parameter": lambda m: setattr(m, "bias", nn.Parameter(np.ones(3, np.float32))),
    "another weight": lambda m: setattr(
        m.get_submodule("fc1"), "weight", nn.Parameter(np.ones((16, 36), np.float32))
    ),
    "other numbers": lambda m: setattr(
        m.get_submodule("fc1").weight, "data", np.ones((16, 36), np.float32)
    ),
    "another dtype": lambda m: m.to("float64"),
    "a hook": lambda m: m.get_submodule("relu").register_forward_hook(lambda *_: None),
    "a buffer": lambda m: m.register_buffer("seen", np.zeros(3, np.float32)),
}


def described(model):
    return (
        [
            (n, type(m).__name__, sorted(m._hooks), getattr(m, "slope", None))
            for n, m in model.named_modules()
        ],
        [(n, p.requires_grad, p.dtype, float(p.data.sum())) for n, p in model.named_parameters()],
        [(n, b.shape) for n, b in model.named_buffers()],
        list(getattr(model.get_submodule("relu"), "extras", [])),
    )


@pytest.mark.parametrize("name", CHANGES)
def test_any_other_change_is_noticed(name):
    model = perceptron()
    model.get_submodule("relu").extras = []
    with team() as workers:

        def work(piece):
            return described(model)

        before = workers.map(work, range(2))
        assert before[0] == before[1] == described(model)
        CHANGES[name](model)
        after = workers.map(work, range(2))
        assert after[0] == after[1] == described(model) != before[0]


def test_a_teacher_inside_of_an_objective_is_seen_as_it_is_now():
    teacher = perceptron()

    class Imitate:
        temperature = 1.0

        def __call__(self, model, images, labels):
            z = model(images)
            return F.mse_loss(z / self.temperature, teacher(images).detach()), z

    objective, student = Imitate(), perceptron()
    batch = DATA.images, DATA.labels
    with team() as workers:
        for change in (
            lambda: None,
            lambda: next(teacher.parameters()).data.__imul__(2),
            lambda: setattr(objective, "temperature", 3.0),
        ):
            change()
            got = value_and_grad(objective, student, batch, workers=workers)
            expected = value_and_grad(objective, student, batch, workers=1)
            assert got.loss == expected.loss
            for g, h in zip(got.gradients, expected.gradients, strict=True):
                assert g.tobytes() == h.tobytes()


@dataclass(slots=True)
class Slotted:
    scale: float = 1.0


class Holder:
    def __init__(self):
        self.scale, self.parts = 1.0, {"deep": [Slotted()]}

    def method(self, piece):
        return self.scale * self.parts["deep"][0].scale


def scaled(piece, options):
    return options["scale"]


class Counting(nn.Linear):
    """Counts its calls in a buffer, in ``forward``, where only notes would reach everybody."""

    def __init__(self, count):
        super().__init__(36, 4)
        self.register_buffer("calls", np.zeros((), np.float32))
        self.count = count

    def forward(self, x):
        self.count(self)
        return super().forward(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "calls", m.calls + 1), "Counting changed 'calls' while it computed"),
        (lambda m: m.calls.__iadd__(1), "read-only"),
        (lambda m: setattr(m.weight, "data", m.weight.data * 2), "Counting changed 'weight' while"),
    ],
    ids=["another array", "in place", "a weight"],
)
def test_state_that_a_layer_changes_while_it_computes_is_refused(change, message):
    model = nn.Sequential({"flat": nn.Flatten(), "counting": Counting(change)})
    with team() as workers, pytest.raises((RuntimeError, ValueError), match=message) as info:
        value_and_grad(tc.train.Supervised(), model, (DATA.images, DATA.labels), workers=workers)
    assert "counting" in str(info.value) + str(
        info.value.__notes__ if message == "read-only" else ""
    )


SETTINGS = {"scale": 1.0}
scale_of_the_file = 1.0


def by_global(piece):
    return SETTINGS["scale"]


def by_global_number(piece):
    return next(scale_of_the_file for _ in "1")  # named in a scope of its own


def by_another_function(piece):
    return by_global(piece)


def by_keyword(piece, *, options=SETTINGS):
    return options["scale"]


def by_attribute(piece):
    return by_attribute.scale


by_attribute.scale = 1.0


class ByMethod:
    def __call__(self, piece):
        return by_global(piece)


WAYS = [by_global, by_global_number, by_another_function, by_keyword, by_attribute, ByMethod()]


@pytest.mark.parametrize("work", WAYS, ids=lambda w: getattr(w, "__name__", "method"))
def test_globals_that_a_function_uses_are_seen_as_they_are_now(work, monkeypatch):
    with team() as workers:
        assert workers.map(work, range(2)) == [1.0, 1.0]
        monkeypatch.setitem(SETTINGS, "scale", 2.0)
        monkeypatch.setattr(sys.modules[__name__], "scale_of_the_file", 2.0)
        monkeypatch.setattr(by_attribute, "scale", 2.0)
        assert workers.map(work, range(2)) == [2.0, 2.0]


teacher_of_the_file = nn.Linear(36, 4)


def test_a_global_teacher_is_shared_like_a_model():
    def objective(model, images, labels):
        z = model(images)
        return F.mse_loss(z, teacher_of_the_file(images.reshape(-1, 36)).detach()), z

    with team() as workers:
        student, batch = perceptron(), (DATA.images, DATA.labels)
        for _ in range(2):
            got = value_and_grad(objective, student, batch, workers=workers)
            pids = children()
            expected = value_and_grad(objective, student, batch, workers=1)
            assert got.loss == expected.loss
            teacher_of_the_file.weight.data *= 2
        assert children() == pids


HOLDERS = {
    "attribute": (lambda h: h.method, lambda h: setattr(h, "scale", 2.0)),
    "deep inside": (lambda h: h.method, lambda h: setattr(h.parts["deep"][0], "scale", 2.0)),
    "partial": (
        lambda h: functools.partial(scaled, options=h.__dict__),
        lambda h: setattr(h, "scale", 2.0),
    ),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_what_an_object_holds_is_seen_as_it_is_now(name):
    make, change = HOLDERS[name]
    holder = Holder()
    work = make(holder)
    with team() as workers:
        assert workers.map(work, range(2)) == [1.0, 1.0]
        change(holder)
        assert workers.map(work, range(2)) == [2.0, 2.0]


def test_tied_weights_stay_tied():
    model = nn.Sequential({"a": nn.Linear(36, 36), "b": nn.Linear(36, 36)})
    a, b = (model.get_submodule(n).weight for n in "ab")
    b.data = a.data
    assert not shareable(model.modules())
    flat = tc.data.Dataset(DATA.images.reshape(100, 36), DATA.labels)
    expected = model.copy()
    expected.get_submodule("b").weight.data = expected.get_submodule("a").weight.data
    for m, workers in ((model, 2), (expected, 1)):
        fit(m, flat, 2, optim.SGD(m.parameters(), lr=0.1), workers=workers, shard_size=16)
    assert b.data is a.data
    assert bits(model) == bits(expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_parameters_come_back_into_the_arrays_that_they_had(order):
    model = perceptron()
    weight = model.get_submodule("fc1").weight
    own = weight.data = np.asarray(weight.data, order=order)
    with team() as workers:
        workers.map(lambda piece: model(DATA.images).shape, range(2))
        assert is_shared(weight.data)
        weight.data[0, 0] = 7
    assert weight.data is own
    assert own[0, 0] == 7


def test_a_model_whose_weights_are_read_only_is_evaluated():
    model = perceptron()
    for p in model.parameters():
        p.data.flags.writeable = False
    expected = evaluate(model, DATA, workers=1, batch_size=20)
    assert evaluate(model, DATA, workers=2, batch_size=20).loss == expected.loss
    for p in model.parameters():
        assert not is_shared(p.data)


def test_shared_arrays():
    a = shared_empty((2, 3), np.float64)
    assert is_shared(a)
    assert is_shared(a.T[1:])
    assert not a.any()
    assert not is_shared(np.zeros(3))
    assert shared_empty(0).shape == (0,)
    turned = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert (shared_copy(turned) == turned).all()
    assert shared_copy(turned).flags.f_contiguous


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_layers_are_fused_as_on_the_thread_that_asks(kind):
    with Workers(2, kind=kind) as workers:
        for on in (True, False, True):
            with nn.fusion(on):
                assert workers.map(lambda piece: nn.fusion_enabled(), range(4)) == [on] * 4


# -------------------------------------------------------------------------- the same to the bit


@pytest.mark.parametrize("make", [perceptron, cnn])
@pytest.mark.parametrize("shard_size", [7, 32])
def test_fit_gives_the_same_bits_with_any_number_and_kind_of_workers(make, shard_size):
    results = []
    for count, kind in ((1, "auto"), (2, "thread"), (2, "process"), (3, "process"), (5, "process")):
        tc.manual_seed(0)
        model = make()
        with Workers(count, kind=kind) as workers:
            history = fit(
                model,
                DATA,
                2,
                optim.Adam(model.parameters(), lr=0.01),
                validate=blobs(70, seed=2),
                batch_size=45,
                shard_size=shard_size,
                augment=tc.data.RandomShift(1),
                clip_grad_norm=1.0,
                workers=workers,
            )
        results.append((bits(model), history[-1].val_loss, history[-1].loss))
    assert all(result == results[0] for result in results[1:])


class Freeze(Callback):
    """In the middle of a run: freeze a layer, prune another, put new weights into a third."""

    def on_step_end(self, run):
        if run.step == 3:
            weight = run.model.get_submodule("fc").weight
            weight.mask = np.random.default_rng(0).random(weight.shape) < 0.5
            weight.data = weight.data * weight.mask

    def on_epoch_begin(self, run):
        if run.epoch == 1:
            run.model.get_submodule("norm").eval()
        if run.epoch == 2:
            run.model.get_submodule("conv").requires_grad_(False)


def test_what_callbacks_do_to_the_model_reaches_the_workers():
    results = []
    for count in (1, 2, 3):
        tc.manual_seed(0)
        model = cnn()
        fit(
            model,
            DATA,
            3,
            optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
            batch_size=32,
            shard_size=8,
            callbacks=[Freeze()],
            workers=count,
        )
        weight = model.get_submodule("fc").weight
        assert 0 < (weight.data == 0).mean() < 1
        assert (weight.data[~weight.mask] == 0).all()
        results.append(bits(model))
    assert results[1:] == results[:1] * 2


class Looker(Callback):
    only_looks = True

    def on_step_end(self, run):
        self.loss = run.loss

    def on_epoch_begin(self, run):
        """Between epochs everything is looked at anew."""
        run.model.get_submodule("relu").__dict__["slope"] = run.epoch


def test_who_only_looks_saves_the_looking(monkeypatch):
    looked = []
    monkeypatch.setattr(
        "tinycompress.train.workers.Reached", lambda work: looked.append(1) or Reached(work)
    )
    counts = []
    for callbacks in ([], [Looker()], [Freeze()]):
        looked.clear()
        model = perceptron() if len(counts) < 2 else cnn()
        options = {"batch_size": 20, "shard_size": 5, "callbacks": callbacks, "workers": 2}
        fit(model, DATA, 2, optim.SGD(model.parameters(), lr=0.05), **options)
        counts.append(len(looked))
    assert counts[0] < counts[1] < counts[2]
    assert counts[1] <= 6, "two looks in an epoch's first step, and one in the first fork"
    assert counts[2] >= 2 * 5


def test_a_callback_that_is_put_together_from_functions_is_noticed_too():
    results = []
    for count in (1, 2):
        tc.manual_seed(0)
        dropout, callback = nn.Dropout(0.1), Callback()
        model = nn.Sequential(nn.Flatten(), dropout, nn.Linear(36, 4))  # notes nothing
        callback.on_step_end = lambda run, dropout=dropout: setattr(dropout, "p", 0.9)
        options = {"batch_size": 20, "shard_size": 5, "callbacks": [callback], "workers": count}
        fit(model, DATA, 1, optim.SGD(model.parameters(), lr=0.05), **options)
        results.append(bits(model))
    assert results[0] == results[1]


def test_predictions_and_accuracy():
    model = cnn()
    outputs = predict(model, DATA.images, batch_size=13, workers=1)
    assert predict(model, DATA.images, batch_size=13, workers=3).tobytes() == outputs.tobytes()
    one, other = (evaluate(model, DATA, batch_size=13, workers=n) for n in (1, 2))
    assert (one.accuracy, one.loss) == (other.accuracy, other.loss)


# ------------------------------------------------------------------------------- what goes wrong


def in_a_worker(action):
    """A work that does ``action`` in every process but this one."""
    home = os.getpid()
    return lambda piece: action() if os.getpid() != home else piece


def test_an_error_arrives_with_its_notes_and_where_it_was():
    def fail():
        error = KeyError("lost")
        error.add_note("in conv1: Conv2d")
        raise error

    with pytest.raises(KeyError, match="lost") as caught, team() as workers:
        workers.map(in_a_worker(fail), range(4))
    assert caught.value.__notes__ == ["in conv1: Conv2d"]
    assert "in fail" in str(caught.value.__cause__)
    assert "in a worker process" in str(caught.value.__cause__)


def test_after_an_error_the_same_team_goes_on():
    def fail():
        raise KeyError("lost")

    with team() as workers:
        with pytest.raises(KeyError):
            workers.map(in_a_worker(fail), range(4))
        assert len(set(workers.map(pid_of, range(2)))) == 2


def test_an_error_that_cannot_be_sent_says_what_it_was():
    class Local(Exception):
        pass

    def fail():
        raise Local("only known here")

    with pytest.raises(WorkerError, match="Local: only known here"), team() as workers:
        workers.map(in_a_worker(fail), range(2))


def test_a_result_that_cannot_be_sent():
    with pytest.raises(Exception, match="pickle"), team() as workers:
        workers.map(lambda piece: lambda: piece, range(2))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_ends_the_call(number):
    with pytest.raises(WorkerError, match=f"was killed by {number.name}"), team() as workers:
        workers.map(in_a_worker(lambda: os.kill(os.getpid(), number)), range(4))


def test_a_worker_that_exits_ends_the_call():
    with pytest.raises(WorkerError, match="exited with status 3"), team() as workers:
        workers.map(in_a_worker(lambda: os._exit(3)), range(4))


def test_a_worker_that_was_killed_between_two_calls():
    with team() as workers:
        workers.map(pid_of, range(2))
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(WorkerError, match="was killed by SIGKILL"):
            workers.map(pid_of, range(2))
        assert len(set(workers.map(pid_of, range(2)))) == 2, "and then there are new ones"


def waits_for_ever():
    time.sleep(1000)


def test_a_worker_that_hangs_is_asked_where_it_stands():
    started = time.monotonic()
    with (
        pytest.raises(WorkerError, match="gave no answer for 1 s") as caught,
        team(patience=1) as workers,
    ):
        workers.map(in_a_worker(waits_for_ever), range(4))
    assert "in waits_for_ever" in str(caught.value)
    assert time.monotonic() - started < 60


def test_a_killed_worker_ends_a_fit_and_the_weights_are_those_of_the_last_step():
    model = perceptron()

    class KillOne(Callback):
        def on_step_end(self, run):
            self.state = bits(run.model)
            if run.step == 2:
                os.kill(children()[0], signal.SIGKILL)

    callback = KillOne()
    with pytest.raises(WorkerError, match="SIGKILL"):
        fit(
            model,
            DATA,
            3,
            optim.SGD(model.parameters(), lr=0.1),
            batch_size=32,
            shard_size=8,
            callbacks=[callback],
            workers=2,
        )
    assert bits(model) == callback.state
    assert not any(is_shared(p.data) for p in model.parameters())


# ---------------------------------------------------------------- programs that end in many ways


PROGRAM = """
import os, signal, sys, time
import numpy as np
import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.train import Callback, Supervised

class Say(Callback):
    def on_step_end(self, run):
        if run.step == 3:
            print("running", flush=True)

HOME = os.getpid()

def objective(model, images, labels):
    if os.getpid() != HOME and "hang" in sys.argv:
        time.sleep(1000)
    return Supervised()(model, images, labels)

model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
data = tc.data.Dataset(np.zeros((256, 1, 6, 6), np.float32), np.zeros(256, np.int64))
if "hang" in sys.argv:
    print("running", flush=True)
tc.fit(model, data, 10**9, optim.SGD(model.parameters(), lr=0.1), objective=objective,
       callbacks=[Say()], workers=3, shard_size=16)
"""


def program(*arguments):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    assert child.stdout.readline() == "running\n", child.stderr.read()
    deadline = time.monotonic() + 20
    while len(children(child.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(child.pid)
    assert len(workers) == 2
    return child, workers


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("state", ["busy", "hang"])
def test_when_the_program_ends_its_workers_end(number, state):
    child, workers = program(state)
    with child:
        if number == signal.SIGINT:
            os.killpg(child.pid, number)  # as a terminal does: to all of them
            if state == "hang":
                time.sleep(0.3)
                os.killpg(child.pid, number)
        else:
            child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == -number
    assert all(gone(pid) for pid in workers)
    if number == signal.SIGINT:
        assert errors.count("Traceback") == 1, errors
        assert "KeyboardInterrupt" in errors


def test_a_training_in_a_process_of_somebodys_pool():
    code = """
    import multiprocessing as mp
    import numpy as np
    import tinycompress as tc
    from tinycompress import nn, optim

    def train(seed):
        tc.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
        data = tc.data.Dataset(np.ones((64, 1, 6, 6), np.float32), np.zeros(64, np.int64))
        tc.fit(model, data, 2, optim.SGD(model.parameters(), lr=0.1), workers=2)
        return float(model(data.images).data.sum())

    if __name__ == "__main__":
        with mp.get_context("fork").Pool(2) as pool:
            there = pool.map(train, [0, 1])
        assert there == [train(0), train(1)], there
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_two_teams_on_two_threads_and_one_model():
    model = cnn().eval()
    expected = predict(model, DATA.images, batch_size=10, workers=1).tobytes()
    got = []
    threads = [
        threading.Thread(
            target=lambda: got.append(
                predict(model, DATA.images, batch_size=10, workers=2).tobytes()
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 4
    assert not any(is_shared(p.data) for p in model.parameters())


def test_no_file_is_left_open():
    with team() as workers:
        workers.map(pid_of, range(2))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with team() as workers:
            workers.map(pid_of, range(2))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_supervised_works_in_processes():
    """An objective that is made anew for each call forks anew, and is right all the same."""
    model = cnn()
    with team() as workers:
        for _ in range(3):
            got = value_and_grad(
                Supervised(), model, (DATA.images, DATA.labels), key=1, workers=workers
            )
            assert np.isfinite(got.loss)
