"""When callbacks are called, what they see, how they stop a run; and schedules."""

from itertools import pairwise

import numpy as np
import pytest
from problems import bits, blobs, figures, perceptron

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.train import Callback, EarlyStopping, fit

EVENTS = ("on_fit_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_fit_end", "close")


class Log(Callback):
    """Writes down every call, as (its own name, event), into one list."""

    def __init__(self, calls, name=""):
        for event in EVENTS:
            setattr(self, event, lambda run, event=event: calls.append(name + event))


class StopAt(Callback):
    """Stops in one event, once ``run.step`` is what it should be."""

    def __init__(self, event, step=0):
        setattr(self, event, lambda run: run.stop() if run.step == step else None)


def run(epochs=2, callbacks=(), n=64, model=None, optimizer=None, **options):
    """A run of two steps an epoch."""
    if model is None:
        tc.manual_seed(0)
        model = perceptron()
    optimizer = optimizer or optim.SGD(model.parameters(), lr=0.1)
    history = fit(model, blobs(n), epochs, optimizer, batch_size=32, callbacks=callbacks, **options)
    return model, history


# --------------------------------------------------------------------------------------- the order


EPOCH = ["on_epoch_begin", "on_step_end", "on_step_end", "on_epoch_end"]


def test_the_order_of_events():
    calls = []
    run(2, [Log(calls)])
    assert calls == ["on_fit_begin", *EPOCH, *EPOCH, "on_fit_end", "close"]


def test_callbacks_are_called_in_the_order_given():
    calls = []
    run(1, [Log(calls, "a "), Log(calls, "b ")], n=32)
    events = (
        "on_fit_begin",
        "on_epoch_begin",
        "on_step_end",
        "on_epoch_end",
        "on_fit_end",
        "close",
    )
    assert calls == [f"{name} {event}" for event in events for name in "ab"]


def test_what_they_see():
    class Watch(Callback):
        def on_fit_begin(self, run):
            assert (run.epoch, run.batch, run.step, run.loss) == (0, 0, 0, None)
            assert run.steps_per_epoch == 2
            assert run.epochs == 2

        def on_epoch_begin(self, run):
            assert run.batch == run.seen.count == 0
            assert len(run.history) == run.epoch
            assert run.model.training

        def on_step_end(self, run):
            assert run.step == 2 * run.epoch + run.batch
            assert run.seen.count == 32 * run.batch
            assert np.isfinite(run.loss)
            assert all(p.grad is not None for p in run.model.parameters())

        def on_epoch_end(self, run):
            assert run.history[-1].epoch == run.epoch - 1
            assert (run.batch, len(run.history)) == (0, run.epoch)

    run(2, [Watch()])


@pytest.mark.parametrize("event", EVENTS[:-1])
def test_an_error_in_a_callback_arrives_and_all_are_closed(event):
    def fail(run):
        raise ZeroDivisionError(event)

    calls, broken = [], Callback()
    setattr(broken, event, fail)
    with pytest.raises(ZeroDivisionError, match=event):
        run(1, [Log(calls, "a "), broken, Log(calls, "b ")])
    assert calls[-2:] == ["a close", "b close"]
    assert "a on_fit_end" not in calls or event == "on_fit_end"


def test_an_error_while_closing_does_not_keep_the_others_from_it():
    def fail(run):
        raise ZeroDivisionError

    calls, broken = [], Callback()
    broken.close = fail
    with pytest.raises(ZeroDivisionError):
        run(1, [broken, Log(calls)])
    assert calls[-1] == "close"


# -------------------------------------------------------------------------------------------- stop


def test_stop_at_the_end_of_an_epoch():
    calls = []
    model, history = run(5, [StopAt("on_epoch_end", step=4), Log(calls)])
    assert calls == ["on_fit_begin", *EPOCH, *EPOCH, "on_fit_end", "close"]
    assert bits(model) == bits(run(2)[0])
    assert figures(history) == figures(run(2)[1])


def test_stop_inside_an_epoch():
    calls = []
    _, history = run(5, [StopAt("on_step_end", step=3), Log(calls)])
    cut = ["on_epoch_begin", "on_step_end"]
    assert calls == ["on_fit_begin", *EPOCH, *cut, "on_fit_end", "close"]
    assert [e.epoch for e in history] == [0, 1]


def test_stop_after_the_last_step_of_an_epoch_is_the_end_of_that_epoch():
    calls = []
    run(5, [StopAt("on_step_end", step=2), Log(calls)])
    assert calls == ["on_fit_begin", *EPOCH, "on_fit_end", "close"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("on_fit_begin", ["on_fit_begin", "on_fit_end", "close"]),
        ("on_epoch_begin", ["on_fit_begin", "on_epoch_begin", "on_fit_end", "close"]),
    ],
)
def test_stop_before_the_first_step(event, expected):
    calls = []
    model, history = run(5, [StopAt(event), Log(calls)])
    assert calls == expected
    assert len(history) == 0
    tc.manual_seed(0)
    assert bits(model) == bits(perceptron())


def test_a_run_that_was_stopped_inside_an_epoch_goes_on_there(tmp_path):
    file = tmp_path / "run.safetensors"
    whole, history = run(3, validate=blobs(40, seed=2))
    options = {"checkpoint": file, "resume": True, "validate": blobs(40, seed=2)}
    run(3, [StopAt("on_step_end", step=3)], **options)
    model, resumed = run(3, **options)
    assert bits(model) == bits(whole)
    assert figures(resumed) == figures(history)


# ---------------------------------------------------------------------------------- early stopping


def losses(values):
    """Callbacks around EarlyStopping that make the validation losses what they should be."""

    class Pretend(Callback):
        def on_epoch_end(self, run):
            epoch = run.history.epochs[-1]
            run.history.epochs[-1] = type(epoch)(**{**vars(epoch), "val_loss": values[epoch.epoch]})

    return Pretend()


@pytest.mark.parametrize(
    ("patience", "min_delta", "values", "epochs"),
    [
        (0, 0.0, [3, 2, 2, 1], 3),
        (1, 0.0, [3, 2, 2, 1, 1, 1, 1], 6),
        (2, 0.0, [3, 4, 4, 4, 4, 4], 4),
        (0, 0.5, [3, 2.6, 1, 1], 2),
        (3, 0.0, [5, 4, 3, 2, 1, 0], 6),
        (1, 0.0, [3, float("nan"), float("nan"), 1], 3),
        (1, 0.0, [float("nan"), 3, 2, 1], 4),
        (0, 0.0, [float("inf"), 1], 1),
    ],
)
def test_early_stopping(patience, min_delta, values, epochs):
    stopping = EarlyStopping(patience, min_delta)
    _, history = run(len(values), [losses(values), stopping], validate=blobs(32))
    assert len(history) == epochs


def test_early_stopping_counts_on_over_a_resume(tmp_path):
    options = {"validate": blobs(32), "checkpoint": tmp_path / "run.safetensors", "resume": True}
    values = [3, 2, 2, 2, 2, 2]
    _, history = run(3, [losses(values), EarlyStopping(2)], **options)
    assert len(history) == 3
    _, history = run(6, [losses(values), EarlyStopping(2)], **options)
    assert len(history) == 5
    _, again = run(6, [losses(values), EarlyStopping(2)], **options)
    assert again == history, "a run that was stopped early is at its end"


def test_early_stopping_needs_something_to_watch():
    with pytest.raises(ValueError, match=r"give fit\(validate=…\)"):
        run(2, [EarlyStopping()])
    with pytest.raises(ValueError, match="patience must be ≥ 0, got -1"):
        EarlyStopping(-1)


# --------------------------------------------------------------------------------------- schedules


class Rates(Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.used = []
        self.next = None

    def on_fit_begin(self, run):
        self.next = run.optimizer.param_groups[0]["lr"]

    def on_step_end(self, run):
        self.used.append(self.next)
        self.next = run.optimizer.param_groups[0]["lr"]

    def on_epoch_end(self, run):
        self.next = run.optimizer.param_groups[0]["lr"]


def rates(make_schedule, epochs=3, **options):
    model, watch = perceptron(), Rates()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    schedule = make_schedule(optimizer)
    _, history = run(
        epochs, [watch], model=model, optimizer=optimizer, schedule=schedule, **options
    )
    return watch.used, [e.lr for e in history]


def test_a_schedule_steps_each_epoch():
    used, in_history = rates(lambda o: optim.StepLR(o, 1, gamma=0.5))
    assert used == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]
    assert in_history == [1e-3, 5e-4, 2.5e-4]


def test_or_each_step_when_asked():
    used, _ = rates(lambda o: optim.StepLR(o, 1, gamma=0.5), schedule_every="step")
    assert used == [1e-3 * 0.5**k for k in range(6)]


def test_one_cycle_steps_each_step_by_itself():
    used, _ = rates(lambda o: optim.OneCycleLR(o, 1e-3, total_steps=6, cycle_momentum=False))
    model = perceptron()
    optimizer = optim.SGD(model.parameters())
    schedule = optim.OneCycleLR(optimizer, 1e-3, total_steps=6, cycle_momentum=False)
    assert used == [schedule.lr_at(k, 1e-3) for k in range(6)]
    assert used[0] < used[1] > used[5]


def test_a_plateau_watches_the_validation_loss():
    watched = []

    class Plateau(optim.ReduceLROnPlateau):
        def step(self, metrics):
            watched.append(metrics)
            super().step(metrics)

    model = perceptron()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    plateau = Plateau(optimizer, threshold=10.0, threshold_mode="abs", patience=0)
    options = {"model": model, "optimizer": optimizer, "schedule": plateau}
    _, history = run(3, validate=blobs(40, seed=2), **options)
    assert watched == [e.val_loss for e in history]
    assert [e.lr for e in history] == [1e-3, 1e-3, 1e-4]
    watched.clear()
    _, history = run(1, **options)
    assert watched == [history[0].loss]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_layer_may_be_frozen_and_freed_in_the_middle_of_an_epoch(workers):
    tc.manual_seed(0)
    model, seen = perceptron(), []
    first, last = (layer for layer in model.modules() if isinstance(layer, nn.Linear))

    class Thaw(Callback):
        def on_step_end(self, run):
            seen.append((first.weight.data.copy(), last.weight.data.copy()))
            first.requires_grad_(run.step not in (2, 3))

    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)  # which would go on by itself
    fit(
        model,
        blobs(96),
        1,
        optimizer,
        batch_size=16,
        shard_size=8,
        callbacks=[Thaw()],
        workers=workers,
    )
    moved = [
        [not np.array_equal(a, b) for a, b in zip(x, y, strict=True)] for x, y in pairwise(seen)
    ]
    assert moved[:5] == [[True, True], [False, True], [False, True], [True, True], [True, True]]


def test_a_model_that_is_frozen_whole_in_the_middle_of_an_epoch_says_so():
    model = perceptron()

    class Freeze(Callback):
        def on_step_end(self, run):
            run.model.requires_grad_(False)

    with pytest.raises(ValueError, match="no parameters that require gradients"):
        fit(model, blobs(96), 1, batch_size=16, callbacks=[Freeze()], workers=1)
