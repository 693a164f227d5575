"""Where the time goes: nothing counts twice, and nothing gets lost."""

import threading
import time

import numpy as np
import pytest
from problems import blobs, perceptron

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.nn import Parameter
from tinycompress.tensor import apply
from tinycompress.train import Callback, fit
from tinycompress.train.profile import Profile, StepProfile, profile, section


class Clock:
    """A clock that stands still, unless it is told how long something took."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def slow(clock, name, forward=0.0, backward=0.0):
    """An operation that doubles, and takes its time; recorded as ``name``."""

    def op(x):
        clock.spend(forward)

        def d_x(g):
            clock.spend(backward)
            return 2 * g

        return 2 * x, (d_x,)

    op.__name__ = name
    return lambda x: apply(op, x)


def numbers(found):
    """The table as ``{name: (calls, forward, backward, beside)}``, rounded."""
    return {
        r.name: (r.calls, *(round(t, 9) for t in (r.forward, r.backward, r.beside)))
        for r in found.table()
    }


# ------------------------------------------------------------------------------------- own time


def test_operations_are_measured_in_both_directions(clock):
    first, second = slow(clock, "first", 3, 1), slow(clock, "second", 5, 7)
    x = Parameter(np.ones(2))
    with profile() as found:
        y = second(second(first(x)))
        clock.spend(0.5)
        y.backward(np.ones(2))
        clock.spend(0.25)
    assert numbers(found) == {
        "second": (2, 10, 14, 0),
        "first": (1, 3, 1, 0),
        "rest": (0, 0, 0, 0.75),
    }
    assert found.seconds == 28.75
    assert [row.name for row in found.table()] == ["second", "first", "rest"]
    assert found.table()[0].seconds == 24
    np.testing.assert_array_equal(x.grad, [8, 8])


def test_a_section_has_the_time_that_nothing_inside_it_has(clock):
    op = slow(clock, "op", 3)
    x = tc.tensor([1.0])
    with profile() as found:
        clock.spend(1)
        with section("outer"):
            clock.spend(10)
            with section("inner"):
                op(x)
                clock.spend(20)
            op(x)
            clock.spend(40)
    assert numbers(found) == {
        "outer": (1, 0, 0, 50),
        "inner": (1, 0, 0, 20),
        "op": (2, 6, 0, 0),
        "rest": (0, 0, 0, 1),
    }


def test_a_section_may_have_the_name_of_an_operation(clock):
    with profile() as found:
        slow(clock, "sum", 1)(tc.tensor([1.0]))
        with section("sum"):
            clock.spend(2)
    assert [(r.name, r.seconds) for r in found.table()] == [("sum", 2), ("sum", 1), ("rest", 0)]


def test_the_table_adds_up_to_the_time_on_the_clock():
    """On the real clock, with real operations: all rows but the rest are within the wall time."""
    model, data = tc.models.TinyCNN(), blobs_of_digits(64)
    began = time.perf_counter()
    with profile() as found:
        for _ in range(3):
            loss = tc.functional.cross_entropy(model(data.images), data.labels)
            loss.backward()
    wall = time.perf_counter() - began
    total = sum(row.seconds for row in found.table())
    assert total == pytest.approx(found.seconds, rel=1e-9)
    assert 0 < found.seconds <= wall
    assert all(row.forward >= 0 and row.backward >= 0 and row.beside >= 0 for row in found.table())


def blobs_of_digits(n):
    rng = np.random.default_rng(0)
    images = rng.random((n, 1, 28, 28)).astype(np.float32)
    return tc.data.Dataset(images, rng.integers(0, 10, n))


# ----------------------------------------------------------------------------- where it measures


def test_time_between_stop_and_start_does_not_count(clock):
    op, x, found = slow(clock, "op", 3), tc.tensor([1.0]), Profile()
    for _ in range(2):
        found.start()
        op(x)
        clock.spend(1)
        found.stop()
        clock.spend(100)
        op(x)
    found.stop()  # once more: nothing to do
    assert numbers(found) == {"op": (2, 6, 0, 0), "rest": (0, 0, 0, 2)}
    assert found.seconds == 8


def test_of_a_section_in_which_it_stops_only_the_inside_is_known(clock):
    op, x, found = slow(clock, "op", 3), tc.tensor([1.0]), Profile()
    found.start()
    with section("callbacks"):
        op(x)
        clock.spend(1)
        found.stop()
        clock.spend(10)
        found.start()
    clock.spend(2)
    found.stop()
    assert numbers(found) == {"op": (1, 3, 0, 0), "rest": (0, 0, 0, 3)}


def test_another_thread_is_not_measured(clock):
    op, x = slow(clock, "op", 3), tc.tensor([1.0])
    with profile() as found:
        thread = threading.Thread(target=op, args=(x,))
        thread.start()
        thread.join()
    assert [row.name for row in found.table()] == ["rest"]


def test_two_profiles_of_one_thread_are_refused(clock):
    op, x = slow(clock, "op", 3), tc.tensor([1.0])
    with profile() as found:
        for other in (profile(), found):
            with pytest.raises(RuntimeError, match="measured already"):
                other.start()
        op(x)
    assert numbers(found)["op"] == (1, 3, 0, 0)
    with profile():
        pass


def test_an_error_ends_it_and_what_was_measured_stays(clock):
    def broken(x):
        clock.spend(2)
        raise ValueError("broken")

    def fail():
        with found, section("around"):
            clock.spend(1)
            apply(broken, x)

    x, found = tc.tensor([1.0]), profile()
    with pytest.raises(ValueError, match="broken"):
        fail()
    assert numbers(found) == {"broken": (1, 2, 0, 0), "around": (1, 0, 0, 1), "rest": (0, 0, 0, 0)}
    before = numbers(found)
    slow(clock, "op", 3)(x)
    with section("outside"):
        clock.spend(1)
    assert numbers(found) == before
    with profile():  # the thread is free again
        pass


def test_results_are_the_same_to_the_bit():
    def gradients():
        tc.manual_seed(3)
        model, data = tc.models.TinyCNN(), blobs_of_digits(8)
        tc.functional.cross_entropy(model(data.images), data.labels).backward()
        return [p.grad for p in model.parameters()]

    plain = gradients()
    with profile():
        measured = gradients()
    for a, b in zip(plain, measured, strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------- of a training


@pytest.mark.parametrize("fused", [False, True])
def test_every_operation_of_the_articles_cnn_is_there(fused):
    """In each of 4 steps 3 shards, over 2 epochs."""
    model, found = tc.models.ArticleCNN(), StepProfile()
    with nn.fusion(fused):
        fit(
            model, blobs_of_digits(48), 2, batch_size=24, shard_size=8, workers=1,
            validate=blobs_of_digits(10), callbacks=[found],
        )  # fmt: skip
    calls = {row.name: row.calls for row in found.profile.table() if row.forward}
    shards = 4 * 3
    once = {"cross_entropy": shards, "reshape": shards, "linear": shards}
    if fused:
        once |= {"conv2d+relu+max_pool2d": 2 * shards, "linear+relu": shards}
    else:
        once |= {"conv2d": 2 * shards, "max_pool2d": 2 * shards, "relu": 3 * shards}
        once["linear"] = 2 * shards
    assert {name: calls[name] for name in once} == once
    assert all(row.backward > 0 for row in found.profile.table() if row.name in once)
    assert found.profile.steps == 4


def test_what_a_step_does_beside_its_operations_is_there():
    """In each of 3 steps 2 shards; the last step's callbacks are not over when it stops."""
    found = StepProfile()
    fit(
        perceptron(), blobs(48), 1, batch_size=16, shard_size=8, workers=1, clip_grad_norm=1.0,
        callbacks=[found],
    )  # fmt: skip
    beside = {row.name: row.calls for row in found.profile.table() if not row.forward}
    assert beside["optimizer"] == beside["clip the gradients"] == 3
    assert beside["gather the samples"] == 3 * 2
    assert beside["callbacks"] == 2
    assert "sum the gradients" in beside


def test_a_trainings_rows_add_up_to_its_steps_and_leave_out_what_is_between_epochs():
    class Idle(Callback):
        def on_epoch_end(self, run):
            time.sleep(0.2)

    found, data = StepProfile(), blobs(60)
    began = time.perf_counter()
    fit(perceptron(), data, 2, batch_size=20, workers=1, callbacks=[found, Idle()])
    wall, measured = time.perf_counter() - began, found.profile
    assert measured.steps == 6
    assert sum(row.seconds for row in measured.table()) == pytest.approx(measured.seconds)
    assert measured.seconds < wall - 0.4


def test_a_training_that_is_stopped_or_fails_leaves_the_thread_free():
    class Stop(Callback):
        def on_step_end(self, run):
            run.stop()

    class Fail(Callback):
        def on_step_end(self, run):
            raise ZeroDivisionError

    data, found = blobs(60), StepProfile()
    fit(perceptron(), data, 2, batch_size=20, workers=1, callbacks=[Stop(), found])
    assert found.profile.steps == 1
    model = perceptron()
    rule = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ZeroDivisionError):
        fit(model, data, 1, rule, batch_size=20, workers=1, callbacks=[StepProfile(), Fail()])
    with profile():
        pass
