"""Pruning in rounds: what one would write by hand, with retraining and with rewinding."""

from itertools import pairwise

import numpy as np
import pytest
from test_gradual import SGD, Zeros, assert_same_bits, net_of, trained
from test_prune_masks import blobs, net
from test_surgery import gradient, problem

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.prune import (
    StartAt,
    Ticket,
    apply_masks,
    exponential,
    linear,
    lottery_ticket,
    prune,
    prune_iteratively,
    sparsity_report,
)
from tinycompress.data import Dataset
from tinycompress.train import Callback, fit

OPTIONS = {"optimizer": SGD, "batch_size": 16, "workers": 1}
both = pytest.mark.parametrize("verb", [prune_iteratively, lottery_ticket])


# -------------------------------------------------------------------------------- prune, retrain


@pytest.mark.parametrize(("name", "schedule"), [("exponential", exponential), ("linear", linear)])
def test_rounds_are_the_loop_that_one_would_write(name, schedule):
    start = net_of(3)
    theirs = start
    for k in (1, 2, 3):
        theirs = prune(theirs, schedule(k / 3, 0.9))
        fit(theirs, blobs(128), 2, SGD(theirs.parameters()), batch_size=16, workers=1)
    ours = prune_iteratively(start, 0.9, 3, blobs(128), 2, schedule=name, **OPTIONS)
    assert_same_bits(ours, theirs)
    assert_same_bits(start, net_of(3))


def test_importance_is_taken_on_the_training_data_unless_told_otherwise():
    options = {"importance": "taylor", **OPTIONS}
    ours = prune_iteratively(net_of(3), 0.7, 2, blobs(128), 1, **options)
    theirs = net_of(3)
    for k in (1, 2):
        theirs = prune(theirs, exponential(k / 2, 0.7), "taylor", data=blobs(128))
        fit(theirs, blobs(128), 1, SGD(theirs.parameters()), batch_size=16, workers=1)
    assert_same_bits(ours, theirs)
    other = prune_iteratively(net_of(3), 0.7, 2, blobs(128), 1, data=blobs(64, 7), **options)
    assert (other.get_submodule("fc").weight.mask != ours.get_submodule("fc").weight.mask).any()


def test_learning_rates_begin_anew_in_each_round():
    seen = []

    class Rates(Callback):
        def on_step_end(self, run):
            seen.append(run.optimizer.param_groups[0]["lr"])

    prune_iteratively(
        net_of(3),
        0.5,
        2,
        blobs(64),
        3,
        rates=lambda optimizer: optim.StepLR(optimizer, 1, 0.5),
        callbacks=[Rates()],
        **OPTIONS | {"batch_size": 64},
    )
    assert seen == pytest.approx([0.05, 0.025, 0.0125] * 2)


@pytest.mark.parametrize(
    ("sparsity", "options", "rounds"),
    [(0.2, {}, 1), (0.36, {}, 2), (0.5, {}, 4), ({"fc": 0.67, "conv": 0.1}, {}, 5)],
)
def test_without_a_number_no_round_takes_more_than_a_fifth_of_the_rest(sparsity, options, rounds):
    runs = []

    class Count(Callback):
        def on_fit_begin(self, run):
            runs.append(sparsity_report(run.model))

    prune_iteratively(
        net_of(1), sparsity, None, blobs(16), 1, callbacks=[Count()], **OPTIONS, **options
    )
    assert len(runs) == rounds
    if not isinstance(sparsity, dict):
        left = [216, *(216 - r.zeros for r in runs)]
        assert all(b >= 0.79 * a for a, b in pairwise(left))


def test_rounds_of_other_structures():
    rows = prune_iteratively(net_of(1), 0.4, 2, blobs(32), 1, structure="row", **OPTIONS)
    mask = rows.get_submodule("fc").weight.mask
    assert (mask.any(axis=1) == mask.all(axis=1)).all()
    groups = prune_iteratively(net_of(1), None, 2, blobs(32), 1, structure="2:4", **OPTIONS)
    assert sparsity_report(groups)["fc"].zeros == 90


# -------------------------------------------------------------------------------------- rewinding


def rewound_by_hand(k, steps, rounds, target):
    x, y, start = problem()

    def train(w, kept, first):
        v = [0.0] * 10
        for _ in range(first, steps):
            g = gradient(x, y, w)
            for j in range(10):
                v[j] = 0.9 * v[j] + g[j] if kept[j] else 0.0
                w[j] = w[j] - 0.05 * v[j] if kept[j] else 0.0
            if len(kept_at_k) < 10 and _ + 1 == k:
                kept_at_k.extend(w)
        return w

    kept_at_k = list(start) if k == 0 else []
    kept, w = [True] * 10, list(start)
    for r in range(1, rounds + 1):
        w = train(w, kept, 0 if r == 1 else k)
        count = round(exponential(r / rounds, target) * 10)
        order = sorted(range(10), key=lambda j: (kept[j], abs(w[j]), j))
        kept = [j not in order[:count] for j in range(10)]
        w = [kept_at_k[j] if kept[j] else 0.0 for j in range(10)]
    return w, kept


@pytest.mark.parametrize("k", [0, 1, 4])
def test_a_ticket_is_what_the_loop_by_hand_finds(k):
    x, y, start = problem()
    model = nn.Sequential({"fc": nn.Linear(10, 1, bias=False)}).to(np.float64)
    next(iter(model.parameters())).data[...] = start

    def squares(model, images, labels):
        outputs = model(images)
        difference = outputs - labels
        return (difference * difference).mean(), outputs

    ticket = lottery_ticket(
        model,
        0.6,
        3,
        Dataset(x, y[:, None]),
        20,
        rewind_step=k,
        batch_size=30,
        objective=squares,
        optimizer=lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    )
    expected, kept = rewound_by_hand(k, 20, 3, 0.6)
    weight = ticket.model.get_submodule("fc").weight
    assert weight.mask.ravel().tolist() == kept
    np.testing.assert_allclose(weight.data.ravel(), expected, rtol=1e-9, atol=1e-12)
    assert ticket.rewind_step == k


def make_ticket(**options):
    options = {"rewind_step": 3, **OPTIONS, **options}
    return lottery_ticket(net_of(2), 0.7, 2, blobs(128), 1, **options)


def test_a_ticket_tells_its_rounds():
    ticket = make_ticket()
    assert isinstance(ticket, Ticket)
    zeros = [r.sparsity.zeros for r in ticket.rounds]
    assert zeros == [round(exponential(0.5, 0.7) * 216), round(0.7 * 216)]
    assert sparsity_report(ticket.model).zeros == zeros[-1]
    assert [len(r.history) for r in ticket.rounds] == [1, 1]


def test_its_weights_are_those_of_step_k_and_the_model_given_stays():
    model = net_of(2)
    ticket = lottery_ticket(model, 0.7, 2, blobs(128), 1, rewind_step=3, **OPTIONS)
    assert_same_bits(model, net_of(2))
    at_three = net_of(2)

    class Stop(Callback):
        def on_step_end(self, run):
            if run.step == 3:
                run.stop()

    trained(at_three, [Stop()], epochs=1)
    apply_masks(at_three, ticket.masks)
    for p in at_three.parameters():
        p.mask = None if p.mask is None or p.mask.all() else p.mask
    assert_same_bits(at_three, ticket.model)


def test_the_same_mask_on_a_new_initialisation():
    ticket, fresh = make_ticket(), net_of(9)
    control = ticket.on(fresh)
    assert_same_bits(fresh, net_of(9))
    for (name, p), q, f in zip(
        control.named_parameters(),
        ticket.model.parameters(),
        fresh.parameters(),
        strict=True,
    ):
        assert (p.mask is None) == (q.mask is None), name
        if p.mask is not None:
            np.testing.assert_array_equal(p.mask, q.mask)
            np.testing.assert_array_equal(p.data, np.where(q.mask, f.data, 0))
    fit(control, blobs(128), 2, SGD(control.parameters()), batch_size=16, callbacks=[Zeros()])
    assert sparsity_report(control).zeros == round(0.7 * 216)
    ticket.masks["fc.weight"][...] = True
    assert sparsity_report(ticket.on(fresh)).zeros == round(0.7 * 216)
    other = nn.Sequential({"conv": nn.Conv2d(1, 4, 3), "fc": nn.Linear(3, 5)})
    with pytest.raises(ValueError, match=r"fc.*must be bool\(5, 3\)"):
        ticket.on(other)


def test_a_run_that_starts_at_step_k_is_the_rest_of_a_whole_one():
    """Without momentum nothing but the weights is handed over."""
    for rates in (
        None,
        lambda optimizer: optim.StepLR(optimizer, 1, 0.5),
        lambda optimizer: optim.OneCycleLR(optimizer, 0.2, total_steps=24, cycle_momentum=False),
    ):
        model, at_k = net_of(8), []

        class Look(Callback):
            def __init__(self, kept):
                self.kept = kept

            def on_step_end(self, run):
                if run.step == 11:
                    self.kept.append(run.model.copy())

        def run(model, callback, rates=rates):
            optimizer = optim.SGD(model.parameters(), lr=0.1)
            schedule = None if rates is None else rates(optimizer)
            options = {"batch_size": 16, "schedule": schedule, "callbacks": [callback]}
            fit(model, blobs(128), 3, optimizer, **options)

        run(model, Look(at_k))
        rest = at_k[0]
        run(rest, StartAt(11))
        assert_same_bits(model, rest)


def test_running_statistics_are_rewound_too():
    model = nn.Sequential({"fc": nn.Linear(25, 8), "bn": nn.BatchNorm1d(8), "out": nn.Linear(8, 5)})
    flat = Dataset(blobs(64).images.reshape(64, 25), blobs(64).labels)
    ticket = lottery_ticket(model, 0.5, 1, flat, 1, **OPTIONS)
    for name, buffer in ticket.model.state_dict().items():
        if "running" in name:
            np.testing.assert_array_equal(buffer, model.state_dict()[name])


def test_on_the_gpu(cupy):
    on_cpu = make_ticket()
    ticket = lottery_ticket(net_of(2).to("cuda"), 0.7, 2, blobs(128), 1, rewind_step=3, **OPTIONS)
    assert sparsity_report(ticket.model).zeros == sparsity_report(on_cpu.model).zeros
    thin = prune_iteratively(net_of(2).to("cuda"), 0.7, 2, blobs(64), 1, **OPTIONS)
    assert sparsity_report(thin).zeros == round(0.7 * 216)


# -------------------------------------------------------------------------------- what is refused


@both
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
        ({"rounds": 1.5}, TypeError, "rounds must be a whole number"),
        ({"sparsity": 1.0}, ValueError, "sparsity must be at least 0 and below 1"),
        ({"sparsity": {"fc9": 0.5}}, ValueError, "no prunable layer 'fc9'"),
        ({"importance": "movement"}, ValueError, "while the network is trained"),
        ({"checkpoint": "run.safetensors"}, ValueError, "checkpoint= is not for runs in rounds"),
        ({"resume": True}, ValueError, "resume= is not for runs in rounds"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(verb, change, error, text):
    class Never(Callback):
        def on_fit_begin(self, run):
            raise AssertionError

    model = net()
    given = {"sparsity": 0.5, "rounds": 2, "callbacks": [Never()]} | change
    with pytest.raises(error, match=text):
        verb(model, given.pop("sparsity"), given.pop("rounds"), blobs(64), 1, **given)


def test_a_step_to_go_back_to_that_no_run_reaches():
    with pytest.raises(ValueError, match="at least 0, before the last of 8, got 8"):
        make_ticket(rewind_step=8)
    with pytest.raises(TypeError, match="must be a whole number"):
        make_ticket(rewind_step=0.5)
    with pytest.raises(ValueError, match="before the last of 24, got 24"):
        trained(net(), [StartAt(24)])

    model = net()
    optimizer = SGD(model.parameters())
    plateau = optim.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="ReduceLROnPlateau follows the losses"):
        fit(model, blobs(64), 2, optimizer, schedule=plateau, callbacks=[StartAt(1)])


def test_a_run_that_loses_a_mask_is_an_error():
    class Strip(Callback):
        def on_fit_end(self, run):
            run.model.get_submodule("fc").weight.mask = None

    with pytest.raises(RuntimeError, match="have no mask"):
        prune_iteratively(net_of(1), 0.5, 2, blobs(64), 1, callbacks=[Strip()], **OPTIONS)


def test_the_verbs_are_at_the_top():
    assert tc.prune_iteratively is prune_iteratively
    assert tc.lottery_ticket is lottery_ticket
