"""Gradual pruning: what a loop that prunes and trains by hand gives, and exactly the target."""

import re

import numpy as np
import pytest
from test_prune_masks import OPTIMIZERS, Watch, blobs, each_optimizer, net

from tinycompress import nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import (
    GradualPruning,
    apply_masks,
    choose_masks,
    cubic,
    exponential,
    linear,
    prune,
    sparsity_report,
)
from tinycompress.data import Dataset
from tinycompress.train import Callback, CheckpointError, Workers, fit

SGD = OPTIMIZERS["momentum"]


def trained(model, callbacks, epochs=3, make=SGD, **options):
    """The model after ``epochs`` of 8 steps."""
    options = {"batch_size": 16, "workers": 1} | options
    fit(model, blobs(128), epochs, make(model.parameters()), callbacks=callbacks, **options)
    return model


def assert_same_bits(one, two):
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert to_numpy(p.data).tobytes() == to_numpy(q.data).tobytes(), name
        assert (p.mask is None) == (q.mask is None), name
        if p.mask is not None:
            np.testing.assert_array_equal(to_numpy(p.mask), to_numpy(q.mask))


class Zeros(Callback):
    """Counts the zeros after every step."""

    def __init__(self):
        self.counts = []

    def on_fit_begin(self, run):
        self.counts = [sparsity_report(run.model).zeros]

    def on_step_end(self, run):
        self.counts.append(sparsity_report(run.model).zeros)


# ------------------------------------------------------------------------ the slow, obvious loop


def by_hand(w, x, y, steps, lr, momentum, sparsity_after):
    """Least squares with momentum SGD in plain loops; prunes after each step that is named."""
    n, inputs = x.shape
    w, kept, v = [float(a) for a in w], [True] * inputs, [0.0] * inputs
    for step in range(1, steps + 1):
        error = [sum(x[i][j] * w[j] for j in range(inputs)) - y[i] for i in range(n)]
        for j in range(inputs):
            g = sum(2 * error[i] * x[i][j] for i in range(n)) / n
            v[j] = (momentum * v[j] + g) if kept[j] else 0.0
            w[j] = (w[j] - lr * v[j]) if kept[j] else 0.0
        if step in sparsity_after:
            count = round(sparsity_after[step] * inputs)
            order = sorted(range(inputs), key=lambda j: (kept[j], abs(w[j]), j))
            for j in order[:count]:
                kept[j], w[j] = False, 0.0
    return w, kept


def test_it_is_the_loop_that_one_would_write():
    rng = np.random.default_rng(3)
    x, target = rng.normal(size=(40, 12)), rng.normal(size=12)
    y = x @ target
    model = nn.Sequential({"fc": nn.Linear(12, 1, bias=False)}).to(np.float64)
    weight = next(iter(model.parameters()))
    start = weight.data.ravel().copy()
    steps = {s: cubic((s - 2) / 12, 0.75, 0.1) for s in (2, 5, 8, 11, 14)}
    expected, kept = by_hand(start, x, y, 20, 0.05, 0.9, steps)

    def squares(model, images, labels):
        outputs = model(images)
        difference = outputs - labels
        return (difference * difference).mean(), outputs

    fit(
        model,
        Dataset(x, y[:, None]),
        20,
        optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        batch_size=40,
        objective=squares,
        callbacks=[GradualPruning(0.75, begin=2, end=14, every=3, initial=0.1)],
    )
    assert weight.mask.ravel().tolist() == kept
    np.testing.assert_allclose(weight.data.ravel(), expected, rtol=1e-9, atol=1e-12)


def without_address(value):
    """The same in every process, as pytest-xdist wants the names of tests to be."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize(
    ("name", "schedule"), [("cubic", cubic), ("linear", linear), ("exponential", exponential)]
)
def test_after_each_pruning_the_zeros_are_those_of_the_schedule(name, schedule):
    zeros = Zeros()
    ramp = GradualPruning(0.9, schedule=name, begin=4, end=20, every=5, initial=0.2)
    trained(net(), [ramp, zeros])
    expected, s = [], 0.0
    for step in range(25):
        if step in (4, 9, 14, 19, 20):
            s = schedule((step - 4) / 16, 0.9, 0.2)
        expected.append(round(s * 216))
    assert zeros.counts == expected


def test_a_schedule_of_ones_own_and_one_that_falls():
    def bump(t, final, initial):
        return final if t == 1 else 0.5 * final * (0.5 < t < 0.7)

    zeros = Zeros()
    trained(net(), [GradualPruning(0.8, schedule=bump, end=20, every=1), zeros])
    assert zeros.counts[10] == 0
    assert zeros.counts[11] == zeros.counts[19] == round(0.4 * 216)
    assert zeros.counts[20:] == [round(0.8 * 216)] * 5


def test_begin_and_end_may_be_shares_of_the_run():
    zeros, options = Zeros(), {"schedule": "linear", "initial": 0.1}
    ramp = GradualPruning(0.5, begin=0.25, end=0.5, **options)
    trained(net(), [ramp, zeros])
    assert zeros.counts[5] == 0
    assert zeros.counts[6] == round(0.1 * 216)
    assert zeros.counts[11] < zeros.counts[12] == zeros.counts[-1] == 108


def test_pruning_at_one_step_is_one_shot():
    ours = trained(net_of(1), [GradualPruning(0.7, begin=0, end=0)])
    theirs = trained(prune(net_of(1), 0.7), [])
    assert_same_bits(ours, theirs)


def net_of(seed):
    model, rng = net(), np.random.default_rng(seed)
    for p in model.parameters():
        p.data[...] = rng.normal(0, 0.2, p.shape)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.9},
        {"sparsity": 0.8, "scope": "local"},
        {"sparsity": {"fc": 0.95, "c*": 0.5}},
        {"sparsity": {"fc": 0.6}},
        {"sparsity": 0.5, "structure": "kernel"},
        {"sparsity": 0.5, "structure": "row", "scope": "local"},
        {"sparsity": 0.5, "structure": "channel"},
        {"structure": "2:4"},
        {"structure": "1:6"},
        {"sparsity": 0.9, "importance": "random", "seed": 3},
        {"sparsity": 0.9, "importance": "l2", "skip": "conv"},
        {"sparsity": 0.9, "importance": "taylor", "data": blobs(64)},
        {"sparsity": 0.9, "importance": "snip", "data": blobs(64)},
        {"sparsity": 0.9, "importance": lambda w, g: w * w},
    ],
    ids=without_address,
)
def test_the_run_ends_with_exactly_what_one_shot_would_prune(options):
    model = trained(net_of(2), [GradualPruning(**options), Watch() if "fc" in options else Zeros()])
    asked = {k: v for k, v in options.items() if k not in ("importance", "data", "seed")}
    one_shot = prune(net_of(2), **asked)
    here, there = sparsity_report(model), sparsity_report(one_shot)
    if options.get("scope") == "local" or isinstance(options.get("sparsity"), dict):
        assert here == there
    assert here.zeros == there.zeros or options.get("structure") == "row"


def test_n_of_m_falls_one_weight_of_each_group_at_a_time():
    zeros = Zeros()
    trained(net_of(2), [GradualPruning(structure="1:4", end=20, every=1), zeros])
    assert sorted(set(zeros.counts)) == [0, 45, 90, 135], "of 180: 4:4, 3:4, 2:4, 1:4"


def test_what_was_pruned_before_counts():
    model = prune(net_of(1), 0.6)
    zeros = Zeros()
    trained(model, [GradualPruning(0.9, end=20, every=1), zeros])
    assert zeros.counts[0] == round(0.6 * 216)
    assert zeros.counts == sorted(zeros.counts)
    assert zeros.counts[-1] == round(0.9 * 216)


@each_optimizer
def test_masks_hold_from_the_step_they_come(make, device):
    model = net_of(4).to(device)
    ramp = GradualPruning(0.8, begin=1, end=6, every=1, initial=0.3)
    fit(
        model,
        blobs(128),
        1,
        make(model.parameters()),
        batch_size=16,
        callbacks=[HeldAfter(), ramp],
    )
    assert sparsity_report(model).zeros == round(0.8 * 216)


class HeldAfter(Callback):
    """Before this step's pruning: what was pruned is 0, and the momentum with it."""

    def on_step_end(self, run):
        positions = {id(p): k for k, p in enumerate(run.model.parameters())}
        for p in run.model.parameters():
            if p.mask is not None:
                assert not to_numpy(p.data)[~to_numpy(p.mask)].any()
                for array in run.optimizer.state[positions[id(p)]].values():
                    if not isinstance(array, int):
                        assert not to_numpy(array)[~to_numpy(p.mask)].any()


# ------------------------------------------------------------------------- resume, and workers


@pytest.mark.parametrize("stop", [3, 8, 13, 21])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(stop, tmp_path):
    file = tmp_path / "run.safetensors"
    options = {"begin": 2, "end": 20, "every": 2, "importance": "taylor", "data": blobs(64)}
    whole = trained(net_of(5), [GradualPruning(0.9, **options)])
    with pytest.raises(KeyboardInterrupt):
        trained(
            net_of(5),
            [GradualPruning(0.9, **options), Interrupt(stop)],
            checkpoint=file,
            checkpoint_every=1,
        )
    fresh = net_of(6)
    trained(fresh, [GradualPruning(0.9, **options)], checkpoint=file, resume=True)
    assert_same_bits(whole, fresh)


class Interrupt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            run.interrupt.requested = True


def test_a_run_with_more_epochs_keeps_the_ramp_that_it_began(tmp_path):
    file = tmp_path / "run.safetensors"
    model = trained(net_of(5), [GradualPruning(0.8)], epochs=2, checkpoint=file)
    zeros = Zeros()
    trained(model, [GradualPruning(0.8), zeros], epochs=4, checkpoint=file, resume=True)
    assert set(zeros.counts) == {round(0.8 * 216)}


def test_other_settings_are_another_run(tmp_path):
    file = tmp_path / "run.safetensors"
    trained(net_of(5), [GradualPruning(0.8)], epochs=1, checkpoint=file)
    with pytest.raises(CheckpointError, match=r"sparsity=0\.8.* there.*sparsity=0\.9.* here"):
        trained(net_of(5), [GradualPruning(0.9)], epochs=2, checkpoint=file, resume=True)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_workers_see_every_pruning(kind):
    def run(workers):
        ramp = GradualPruning(0.9, end=20, every=1)
        with workers as team:
            return trained(net_of(7), [ramp], workers=team, shard_size=4)

    assert_same_bits(run(Workers(1)), run(Workers(2, kind)))


def test_it_lets_workers_go_on_without_looking_for_changes():
    """It changes numbers in place, and masks, which no worker reads."""
    forks = []

    class Count(Callback):
        only_looks = True

        def on_step_end(self, run):
            forks.append(id(run.workers._processes))

    model = net_of(7)
    with Workers(2, "process") as team:
        ramp = GradualPruning(0.9, end=20, every=1)
        trained(model, [ramp, Count()], workers=team, shard_size=4)
    assert len(set(forks)) == 1
    assert GradualPruning.only_looks


# ------------------------------------------------------------------------------- what is refused


def test_an_end_after_the_last_step_is_refused_before_the_first():
    model, before = net_of(1), net_of(1)
    with pytest.raises(ValueError, match=r"end=25, step 25, lies after the last .* 24 steps"):
        trained(model, [GradualPruning(0.9, end=25)])
    assert_same_bits(model, before)


class Stop(Callback):
    def on_step_end(self, run):
        if run.step == 10:
            run.stop()


def test_a_run_that_is_stopped_short_of_its_target_is_an_error():
    with pytest.raises(RuntimeError, match="stopped after 10 steps and pruning ends at step 18"):
        trained(net_of(1), [GradualPruning(0.9), Stop()])
    trained(net_of(1), [GradualPruning(0.9, end=10), Stop()])


def test_a_mask_that_was_taken_off_is_an_error():
    class Strip(Callback):
        def on_epoch_end(self, run):
            run.model.get_submodule("fc").weight.mask = None

    with pytest.raises(RuntimeError, match="have no mask"):
        trained(net_of(1), [GradualPruning(0.9, end=0.5), Strip()])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sparsity": 1.0}, ValueError, "sparsity must be at least 0 and below 1"),
        ({"sparsity": "0.9"}, TypeError, "sparsity must be a number"),
        ({}, ValueError, "needs a sparsity"),
        ({"sparsity": 0.9, "schedule": "cosine"}, ValueError, "schedule must be one of 'cubic'"),
        ({"sparsity": 0.9, "begin": -1}, ValueError, "begin must not be negative"),
        ({"sparsity": 0.9, "end": 1.5}, ValueError, "end as a float is a share of the run"),
        ({"sparsity": 0.9, "end": "last"}, TypeError, "end must be a step"),
        ({"sparsity": 0.9, "every": 0}, ValueError, "every must be a whole number of steps"),
        ({"sparsity": 0.9, "initial": 0.95}, ValueError, r"initial must be at most .*0\.9"),
        ({"sparsity": 0.9, "scope": "layer"}, ValueError, "scope must be one of"),
        ({"sparsity": 0.9, "structure": "block"}, ValueError, "structure must be one of"),
        (
            {"sparsity": 0.9, "schedule": lambda t, final, initial: t * 0.5},
            ValueError,
            "must end at the sparsity asked for",
        ),
        ({"sparsity": {}}, ValueError, "names no layer"),
    ],
    ids=without_address,
)
def test_what_is_out_of_range_is_refused_at_once(options, error, text):
    with pytest.raises(error, match=text):
        GradualPruning(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sparsity": {"fc9": 0.5}}, "no prunable layer 'fc9'"),
        ({"sparsity": 0.5, "skip": "fc9"}, "no prunable layer 'fc9'"),
        ({"sparsity": 0.5, "importance": "taylor"}, "give data="),
        ({"sparsity": 0.5, "importance": "salience"}, "importance must be one of"),
        ({"sparsity": 0.6, "structure": "2:4"}, "leave it out"),
        ({"sparsity": 0.9, "keep_at_least": 0.3}, "keep_at_least=0.3 wants"),
        ({"sparsity": 0.5, "begin": 20, "end": 10}, "lies before begin=20"),
    ],
    ids=without_address,
)
def test_what_does_not_fit_the_model_is_refused_before_the_first_step(options, text):
    model = net_of(1)
    with pytest.raises(ValueError, match=text):
        trained(model, [GradualPruning(**options)])
    assert_same_bits(model, net_of(1))


def test_a_model_pruned_further_than_the_target_is_refused():
    model = prune(net_of(1), 0.9)
    apply_masks(model, choose_masks(model, 0.92))
    trained(model, [GradualPruning(0.92)])
    with pytest.raises(ValueError, match="pruned already"):
        trained(model, [GradualPruning(0.5)])
