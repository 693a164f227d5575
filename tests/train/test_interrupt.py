"""Ctrl-C ends a run between two steps, with a checkpoint; a second one ends it at once."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from problems import alive, bits, blobs, perceptron
from runs import RUNS, start

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.train import Callback, fit, read_checkpoint
from tinycompress.train.interrupt import DeferredInterrupt

CHILD = [sys.executable, str(Path(__file__).with_name("runs.py"))]


@pytest.fixture(autouse=True)
def listening():
    """Ctrl-C as in a program that a person started; a shell's background job would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class PressAt(Callback):
    """Ctrl-C in one event, once ``run.step`` is what it should be."""

    def __init__(self, event, step):
        setattr(self, event, lambda run: run.step == step and press())


def press():
    signal.raise_signal(signal.SIGINT)


def run(epochs=3, **options):
    """Two steps an epoch."""
    tc.manual_seed(0)
    model = perceptron()
    fit(model, blobs(64), epochs, optim.SGD(model.parameters(), lr=0.1), batch_size=32, **options)
    return model


# --------------------------------------------------------------------------------- real processes


@pytest.mark.parametrize("name", RUNS)
def test_a_process_ends_with_keyboard_interrupt_and_a_checkpoint(name, tmp_path):
    file = tmp_path / "run.safetensors"
    command = [*CHILD, name, str(file), "endless"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        while child.stdout.readline() != "step 2\n":
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt: training was interrupted")
    assert read_checkpoint(file).state["step"] >= 2


def test_the_second_one_ends_a_step_that_hangs(tmp_path):
    command = [*CHILD, "momentum", str(tmp_path / "run.safetensors"), "hang:4"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline() == "hanging\n"
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert child.poll() is None, "the first one waits for the step"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=10)
    assert child.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert read_checkpoint(tmp_path / "run.safetensors").state["step"] == 3


# --------------------------------------------------------------------------------- in this process


@pytest.mark.parametrize(
    ("event", "step", "saved"),
    [
        ("on_fit_begin", 0, 1),
        ("on_epoch_begin", 2, 3),
        ("on_step_end", 3, 3),
        ("on_step_end", 4, 4),
        ("on_epoch_end", 4, 4),
        ("on_epoch_end", 6, 6),
    ],
)
def test_wherever_it_comes_the_step_is_finished_and_saved(event, step, saved, tmp_path):
    file = tmp_path / "run.safetensors"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="training was interrupted"):
        run(checkpoint=file, callbacks=[PressAt(event, step)])
    assert read_checkpoint(file).state["step"] == saved
    assert signal.getsignal(signal.SIGINT) is before
    assert not alive()
    assert bits(run(checkpoint=file, resume=True)) == bits(run())


def test_during_validation_the_epoch_is_finished(tmp_path):
    class Press(nn.Module):
        def forward(self, x):
            if not self.training and len(x) > 1:  # fit has tried one image before
                press()
            return x

    model = nn.Sequential({"net": perceptron(), "press": Press()})
    file = tmp_path / "run.safetensors"
    options = {"validate": blobs(32), "checkpoint": file, "workers": 1}
    with pytest.raises(KeyboardInterrupt, match="training was interrupted"):
        fit(model, blobs(64), 1, optim.SGD(model.parameters(), lr=0.1), **options)
    state = read_checkpoint(file).state
    assert (state["epoch"], len(state["history"])) == (1, 1), "the last epoch, and it is not lost"


def test_after_the_last_step_it_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[PressAt("on_fit_end", 6)])


def test_without_a_checkpoint_it_ends_all_the_same():
    steps = []

    class Count(Callback):
        def on_step_end(self, run):
            steps.append(run.step)

    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[PressAt("on_step_end", 3), Count()])
    assert steps == [1, 2, 3]


def test_a_resumed_run_of_any_kind_is_the_same_to_the_bit(tmp_path):
    for name in RUNS:
        file = tmp_path / f"{name}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            start(name, callbacks=[PressAt("on_step_end", 5)], checkpoint=file)
        assert bits(start(name, checkpoint=file)[0]) == bits(start(name)[0])


# ------------------------------------------------------------------------------------ the handler


def test_the_handler_of_before_is_put_back_also_after_an_error():
    mine = lambda number, frame: None  # noqa: E731
    signal.signal(signal.SIGINT, mine)
    run(1)
    assert signal.getsignal(signal.SIGINT) is mine
    with pytest.raises(ZeroDivisionError), DeferredInterrupt():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is mine


def test_the_first_one_is_noted_and_the_second_one_raises():
    def press_twice():
        with DeferredInterrupt() as interrupt:
            press()
            assert interrupt.requested
            press()

    with pytest.raises(KeyboardInterrupt) as caught:
        press_twice()
    assert caught.traceback[-1].name == "_note"


def test_one_that_nobody_heeded_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt, match="training was interrupted"), DeferredInterrupt():
        press()


def test_where_it_is_ignored_it_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with DeferredInterrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        press()
    assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_on_another_thread_nothing_is_touched():
    handler, models = signal.getsignal(signal.SIGINT), []
    seen = []

    class Watch(Callback):
        def on_step_end(self, run):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: models.append(run(callbacks=[Watch()])))
    thread.start()
    thread.join()
    assert len(models) == 1
    assert set(seen) == {handler}
