"""A run that was killed and resumed ends with the same weights, to the bit, as one that was not."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from problems import bits, blobs, figures, perceptron
from runs import EPOCHS, RUNS, STEPS, start

import tinycompress as tc
from tinycompress import optim
from tinycompress.train import Callback, fit, read_checkpoint

CHILD = [sys.executable, str(Path(__file__).with_name("runs.py"))]


@cache
def whole(name, epochs=EPOCHS):
    """What the run comes to that nobody disturbed: its weights and its history."""
    model, history = start(name, epochs=epochs)
    return bits(model), figures(history)


def outcome(name, **options):
    model, history = start(name, **options)
    return bits(model), figures(history)


class Stop(Callback):
    """The gentle way to end a run at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            run.stop()


class Crash(Callback):
    """An error at the end of a step, after which nothing is saved."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            raise ZeroDivisionError


# --------------------------------------------------------------------------------------- SIGKILL


@pytest.mark.parametrize("name", RUNS)
def test_killed_twice_and_resumed_in_another_process(name, tmp_path):
    file = tmp_path / "run.safetensors"
    for step, saved in ((5, 3), (STEPS + 6, STEPS + 5)):  # in the first epoch, in the second
        child = subprocess.run([*CHILD, name, str(file), f"kill:{step}"], check=False)
        assert child.returncode == -signal.SIGKILL
        assert read_checkpoint(file).state["step"] == saved - saved % 3
    assert outcome(name, checkpoint=file, checkpoint_every=3) == whole(name)


def test_killed_at_any_moment_the_checkpoint_is_whole(tmp_path):
    """The child writes a checkpoint every step and is killed while it does so."""
    file = tmp_path / "run.safetensors"
    child = subprocess.Popen(
        [*CHILD, "adam", str(file), "endless"], stdout=subprocess.PIPE, text=True
    )
    with child:
        while child.stdout.readline() != "step 3\n":
            assert child.poll() is None
        time.sleep(0.05)
        child.kill()
    saved = read_checkpoint(file)
    assert saved.state["step"] >= 2
    position = (saved.state["epoch"], saved.state["batch"])
    assert saved.state["step"] == position[0] * STEPS + position[1]


# ---------------------------------------------------------------------- the same without processes


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("step", [1, 3, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS, EPOCHS * STEPS])
@pytest.mark.parametrize("how", [Crash, Stop])
def test_from_every_step(name, step, how, tmp_path):
    """Stopped gently it goes on from that step, and after an error from the one before."""
    options = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 1}
    try:
        start(name, callbacks=[how(step)], **options)
    except ZeroDivisionError:
        assert how is Crash
    if (how, step) != (Crash, 1):
        assert read_checkpoint(options["checkpoint"]).state["step"] == step - (how is Crash)
    assert outcome(name, **options) == whole(name)


def test_resumed_at_the_exact_end_of_an_epoch(tmp_path):
    """The checkpoint of the last step is written before the epoch is: validation comes again."""
    file = tmp_path / "run.safetensors"

    class Break(Callback):
        def on_step_end(self, run):
            if run.step == STEPS:
                run.save()
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        start("adam", callbacks=[Break()], checkpoint=file)
    state = read_checkpoint(file).state
    assert (state["epoch"], state["batch"], state["history"]) == (0, STEPS, [])
    assert outcome("adam", checkpoint=file) == whole("adam")


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_returns_at_once_with_its_history(name, tmp_path):
    file = tmp_path / "run.safetensors"
    _, history = start(name, checkpoint=file)
    written = os.stat(file).st_mtime_ns

    class Never(Callback):
        def on_step_end(self, run):
            raise AssertionError("there is nothing left to do")

    model, again = start(name, checkpoint=file, callbacks=[Never()])
    assert again == history
    assert bits(model) == whole(name)[0]
    assert os.stat(file).st_mtime_ns == written


def test_more_epochs_after_a_resume(tmp_path):
    file = tmp_path / "run.safetensors"
    start("adam", checkpoint=file, epochs=1)
    start("adam", checkpoint=file, epochs=2)
    assert outcome("adam", checkpoint=file, epochs=4) == whole("adam", epochs=4)


@pytest.mark.parametrize("name", RUNS)
def test_another_number_of_workers_after_a_resume(name, tmp_path):
    options = {"checkpoint": tmp_path / "run.safetensors", "checkpoint_every": 1}
    start(name, callbacks=[Stop(4)], workers=1, **options)
    start(name, callbacks=[Stop(11)], workers=2, **options)
    assert outcome(name, workers=3, **options) == whole(name)


def test_a_checkpoint_is_of_its_moment_though_the_run_goes_on(tmp_path):
    """What a run in the same process did after the checkpoint is forgotten by the resume."""
    file = tmp_path / "run.safetensors"
    with pytest.raises(ZeroDivisionError):
        start("momentum", callbacks=[Crash(11)], checkpoint=file)
    assert read_checkpoint(file).state["step"] == STEPS
    assert outcome("momentum", checkpoint=file) == whole("momentum")


class Remembers(Callback):
    """Sums up what it saw, in an array and in a number."""

    def __init__(self):
        self.sum, self.steps = np.zeros((2, 3), np.float32), 0

    def on_step_end(self, run):
        self.steps += 1
        self.sum = self.sum + np.float32(run.loss) * np.arange(6, dtype=np.float32).reshape(2, 3)

    def state_dict(self):
        return {"sum": self.sum, "steps": self.steps}

    def load_state_dict(self, state):
        self.sum, self.steps = state["sum"], state["steps"]


def test_what_callbacks_keep_in_arrays_goes_on(tmp_path):
    def run(epochs, *callbacks, **options):
        tc.manual_seed(0)
        model = perceptron()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        fit(model, blobs(64), epochs, optimizer, batch_size=16, callbacks=callbacks, **options)

    whole, first = Remembers(), Remembers()
    run(3, KeepsToo(), whole)
    file = tmp_path / "run.safetensors"
    run(1, KeepsToo(), first, checkpoint=file)
    second = Remembers()
    run(3, KeepsToo(), second, checkpoint=file, resume=True)
    assert second.steps == whole.steps == 12
    assert second.sum.tobytes() == whole.sum.tobytes()


class KeepsToo(Callback):
    """Another one that keeps something, under the same name."""

    def state_dict(self):
        return {"sum": np.ones(3)}

    def load_state_dict(self, state):
        assert state["sum"].tolist() == [1, 1, 1]
