"""Learning rate schedules: against their formulas, against torch, and over a resumed run."""

import json
import math

import numpy as np
import pytest

from tinycompress import optim
from tinycompress.nn import Parameter


def two_groups(kind=optim.SGD, **options):
    groups = [{"params": [Parameter(np.zeros(2))], "lr": lr} for lr in (0.5, 0.02)]
    return kind(groups, **options)


def rates(schedule, steps):
    """The rates of both groups before the first step and after each."""
    result = [schedule.get_last_lr()]
    for _ in range(steps):
        schedule.step()
        result.append(schedule.get_last_lr())
    return np.array(result)


def warm_up_then_cosine(library, optimizer):
    warm_up = library.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    cosine = library.CosineAnnealingLR(optimizer, T_max=8, eta_min=1e-3)
    return library.SequentialLR(optimizer, [warm_up, cosine], milestones=[4])


def three_in_a_row(library, optimizer):
    parts = [library.StepLR(optimizer, 1, gamma=0.5) for _ in range(3)]
    return library.SequentialLR(optimizer, parts, milestones=[2, 7])


PURE = {
    "step": lambda lib, o: lib.StepLR(o, step_size=3, gamma=0.5),
    "linear": lambda lib, o: lib.LinearLR(o, start_factor=0.25, total_iters=6),
    "linear-down": lambda lib, o: lib.LinearLR(o, 1.0, end_factor=0.0, total_iters=6),
    "cosine": lambda lib, o: lib.CosineAnnealingLR(o, T_max=7, eta_min=0.01),
    "sequential": warm_up_then_cosine,
    "three": three_in_a_row,
    "one-cycle": lambda lib, o: lib.OneCycleLR(o, max_lr=[1.0, 0.1], total_steps=17),
    "one-cycle-epochs": lambda lib, o: lib.OneCycleLR(o, 2.0, epochs=4, steps_per_epoch=5),
    "one-cycle-linear": lambda lib, o: lib.OneCycleLR(
        o, 1.0, 20, anneal_strategy="linear", pct_start=0.45, div_factor=10.0, final_div_factor=5.0
    ),
    "one-cycle-down-only": lambda lib, o: lib.OneCycleLR(o, 1.0, 20, pct_start=0.0),
    "one-cycle-up-only": lambda lib, o: lib.OneCycleLR(o, 1.0, 20, pct_start=1.0),
}
each_pure = pytest.mark.parametrize("make", PURE.values(), ids=PURE)


# ------------------------------------------------------------------------------------- formulas


def test_step():
    schedule = optim.StepLR(two_groups(), step_size=2, gamma=0.1)
    expected = np.array([1, 1, 0.1, 0.1, 0.01])[:, None] * [0.5, 0.02]
    np.testing.assert_allclose(rates(schedule, 4), expected, rtol=1e-14)


def test_linear_warm_up():
    schedule = optim.LinearLR(two_groups(), start_factor=0.2, total_iters=4)
    expected = np.array([0.2, 0.4, 0.6, 0.8, 1, 1, 1])[:, None] * [0.5, 0.02]
    np.testing.assert_allclose(rates(schedule, 6), expected, rtol=1e-14)


def test_cosine():
    schedule = optim.CosineAnnealingLR(two_groups(), T_max=10, eta_min=0.01)
    actual = rates(schedule, 10)
    np.testing.assert_allclose(actual[0], [0.5, 0.02], rtol=1e-14)
    np.testing.assert_allclose(actual[5], [0.255, 0.015], rtol=1e-14)
    np.testing.assert_allclose(actual[10], [0.01, 0.01], rtol=1e-14)
    height = (1 + math.cos(math.pi * 3 / 10)) / 2
    assert actual[3, 0] == pytest.approx(0.01 + 0.49 * height, rel=1e-14)


def test_one_cycle_rises_falls_and_ends_low():
    optimizer = two_groups(momentum=0.9)
    schedule = optim.OneCycleLR(optimizer, max_lr=1.0, total_steps=11, pct_start=5 / 11)
    momenta = [optimizer.param_groups[0]["momentum"]]
    actual = [schedule.get_last_lr()[0]]
    for _ in range(10):
        schedule.step()
        actual.append(schedule.get_last_lr()[0])
        momenta.append(optimizer.param_groups[1]["momentum"])
    way_up = [(1 - math.cos(math.pi * i / 4)) / 2 for i in range(5)]
    way_down = [(1 - math.cos(math.pi * i / 6)) / 2 for i in range(1, 7)]
    expected = [0.04 + 0.96 * x for x in way_up] + [1 + (0.04e-4 - 1) * x for x in way_down]
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)
    falling = [0.95 - 0.1 * x for x in way_up] + [0.85 + 0.1 * x for x in way_down]
    np.testing.assert_allclose(momenta, falling, rtol=1e-12)


def test_one_cycle_moves_the_first_beta_of_adam():
    optimizer = two_groups(optim.Adam, betas=(0.5, 0.99))
    optim.OneCycleLR(optimizer, max_lr=1.0, total_steps=10).step()
    assert optimizer.param_groups[0]["betas"][1] == 0.99
    assert 0.85 < optimizer.param_groups[0]["betas"][0] < 0.95


def test_one_cycle_can_leave_momentum_alone():
    optimizer = two_groups(momentum=0.7)
    optim.OneCycleLR(optimizer, max_lr=1.0, total_steps=10, cycle_momentum=False).step()
    assert optimizer.param_groups[0]["momentum"] == 0.7


def test_one_cycle_holds_its_end_after_the_last_batch_and_then_refuses():
    schedule = optim.OneCycleLR(two_groups(), 1.0, 10, anneal_strategy="linear")
    actual = rates(schedule, 10)
    np.testing.assert_array_equal(actual[10], actual[9])
    with pytest.raises(ValueError, match="total_steps=10; step 11 is past the cycle's end"):
        schedule.step()


def test_sequential_gives_each_part_its_own_count():
    schedule = warm_up_then_cosine(optim, two_groups())
    alone = optim.CosineAnnealingLR(two_groups(), T_max=8, eta_min=1e-3)
    actual = rates(schedule, 12)
    np.testing.assert_allclose(actual[0], [0.05, 0.002], rtol=1e-14)
    np.testing.assert_array_equal(actual[4:], rates(alone, 8))


# ---------------------------------------------------------------------------------------- torch


def torch_groups(torch, kind, **options):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr} for lr in (0.5, 0.02)]
    return kind(groups, **options)


@pytest.mark.torch
@each_pure
def test_rates_equal_torchs(make):
    torch = pytest.importorskip("torch")
    optimizer = torch_groups(torch, torch.optim.SGD, momentum=0.9)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    expected = [[group["lr"] for group in optimizer.param_groups]]
    momenta = [optimizer.param_groups[0]["momentum"]]
    for _ in range(16):
        optimizer.step()
        schedule.step()
        expected.append([group["lr"] for group in optimizer.param_groups])
        momenta.append(optimizer.param_groups[0]["momentum"])
    ours = two_groups(momentum=0.9)
    schedule = make(optim, ours)
    for step, (lr, momentum) in enumerate(zip(expected, momenta, strict=True)):
        np.testing.assert_allclose(schedule.get_last_lr(), lr, rtol=1e-11, atol=1e-16)
        assert ours.param_groups[0]["momentum"] == pytest.approx(momentum, rel=1e-12)
        if step < 16:
            schedule.step()


@pytest.mark.torch
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"patience": 0, "factor": 0.5, "min_lr": [0.05, 0.01]},
        {"patience": 1, "cooldown": 3, "factor": 0.5},
        {"patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
        {"patience": 1, "threshold": 0.1, "threshold_mode": "rel"},
        {"patience": 1, "mode": "max", "threshold": 0.05},
        {"patience": 1, "mode": "max", "threshold": 0.05, "threshold_mode": "abs"},
        {"patience": 0, "factor": 0.1, "eps": 1e-3},
    ],
)
def test_plateau_equals_torchs(options):
    torch = pytest.importorskip("torch")
    theirs = torch_groups(torch, torch.optim.SGD)
    ours = two_groups()
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    actual = optim.ReduceLROnPlateau(ours, **options)
    for value in np.random.default_rng(5).uniform(0.5, 1.5, size=40):
        expected.step(value)
        actual.step(value)
        lr = [group["lr"] for group in theirs.param_groups]
        np.testing.assert_allclose(actual.get_last_lr(), lr, rtol=1e-14)
    assert actual.get_last_lr() != [0.5, 0.02]


# -------------------------------------------------------------------------------------- plateau


def follow(schedule, values):
    """The rate of the first group after each value."""
    result = []
    for value in values:
        schedule.step(value)
        result.append(schedule.get_last_lr()[0])
    return result


def test_plateau_waits_for_its_patience():
    schedule = optim.ReduceLROnPlateau(two_groups(), factor=0.5, patience=2)
    actual = follow(schedule, [1.0, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert actual == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_cools_down():
    schedule = optim.ReduceLROnPlateau(two_groups(), factor=0.5, patience=0, cooldown=2)
    assert follow(schedule, [1.0] * 6) == [0.5, 0.25, 0.25, 0.25, 0.125, 0.125]


def test_plateau_stops_at_the_lowest_rate():
    schedule = optim.ReduceLROnPlateau(two_groups(), factor=0.1, patience=0, min_lr=0.2)
    assert follow(schedule, [1.0] * 4) == [0.5, 0.2, 0.2, 0.2]


def test_plateau_takes_nan_and_infinity_for_no_progress():
    schedule = optim.ReduceLROnPlateau(two_groups(), factor=0.5, patience=0)
    assert follow(schedule, [math.inf, 1.0, math.nan, 0.5]) == [0.25, 0.25, 0.125, 0.125]
    assert schedule.best == 0.5


def test_plateau_knows_better_from_worse_below_zero():
    schedule = optim.ReduceLROnPlateau(two_groups(), factor=0.5, patience=0, threshold=0.1)
    assert follow(schedule, [-1.0, -1.05, -1.2]) == [0.5, 0.25, 0.25]


# ----------------------------------------------------------------------------- saving and loading


@each_pure
def test_a_saved_schedule_continues_to_the_bit(make):
    optimizer = two_groups(momentum=0.9)
    schedule = make(optim, optimizer)
    rates(schedule, 6)
    saved = json.loads(json.dumps([schedule.state_dict(), optimizer.state_dict()]))
    expected = rates(schedule, 8)

    for order in (0, 1):  # the optimizer's state may come before the schedule is made, or after
        fresh = two_groups(momentum=0.9)
        if order == 0:
            fresh.load_state_dict(saved[1])
        resumed = make(optim, fresh)
        resumed.load_state_dict(saved[0])
        if order == 1:
            fresh.load_state_dict(saved[1])
        assert resumed.last_epoch == 6
        np.testing.assert_array_equal(rates(resumed, 8), expected)
        assert fresh.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]


def test_a_saved_plateau_continues_to_the_bit():
    values = np.random.default_rng(1).uniform(size=30).tolist()
    optimizer = two_groups()
    schedule = optim.ReduceLROnPlateau(optimizer, patience=1, cooldown=1, factor=0.7)
    follow(schedule, values[:11])
    saved = json.loads(json.dumps([schedule.state_dict(), optimizer.state_dict()]))
    expected = follow(schedule, values[11:])

    fresh = two_groups()
    fresh.load_state_dict(saved[1])
    resumed = optim.ReduceLROnPlateau(fresh, patience=1, cooldown=1, factor=0.7)
    resumed.load_state_dict(saved[0])
    assert follow(resumed, values[11:]) == expected
    json.dumps(optim.ReduceLROnPlateau(two_groups()).state_dict(), allow_nan=False)


def test_the_state_of_another_schedule_is_refused():
    saved = optim.StepLR(two_groups(), 2).state_dict()
    with pytest.raises(ValueError, match="the state is of 'StepLR', this schedule is a LinearLR"):
        optim.LinearLR(two_groups()).load_state_dict(saved)
    with pytest.raises(ValueError, match="this schedule is a ReduceLROnPlateau"):
        optim.ReduceLROnPlateau(two_groups()).load_state_dict(saved)


# ---------------------------------------------------------------------------------------- errors


class Bare(optim.Optimizer):
    """An optimizer with nothing but a rate."""

    rules = {"lr": lambda name, value: float(value)}  # noqa: RUF012


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: optim.StepLR(None, 2), TypeError, "StepLR: optimizer must be an optim.Opt"),
        (lambda o: optim.ReduceLROnPlateau(3), TypeError, "ReduceLROnPlateau: optimizer must be"),
        (lambda o: optim.StepLR(o, 0), ValueError, "step_size must be an integer ≥ 1, got 0"),
        (lambda o: optim.StepLR(o, 1.5), TypeError, "step_size must be an integer, got 1.5"),
        (lambda o: optim.StepLR(o, 2, gamma=-1), ValueError, "gamma must be a finite number > 0"),
        (lambda o: optim.LinearLR(o, 0.0), ValueError, "start_factor must be a finite number > 0"),
        (lambda o: optim.LinearLR(o, 1.5), ValueError, r"start_factor must lie in \[0, 1\]"),
        (lambda o: optim.LinearLR(o, total_iters=0), ValueError, "total_iters must be"),
        (lambda o: optim.CosineAnnealingLR(o, 0), ValueError, "T_max must be an integer ≥ 1"),
        (lambda o: optim.CosineAnnealingLR(o, 5, -1.0), ValueError, "eta_min must be"),
        (lambda o: optim.OneCycleLR(o, 1.0), ValueError, "give total_steps, or both epochs and"),
        (lambda o: optim.OneCycleLR(o, 1.0, 1), ValueError, "total_steps must be an integer ≥ 2"),
        (lambda o: optim.OneCycleLR(o, [1.0], 9), ValueError, "max_lr has 1 values for 2 param"),
        (lambda o: optim.OneCycleLR(o, 0.0, 9), ValueError, "max_lr must be a finite number > 0"),
        (lambda o: optim.OneCycleLR(o, 1.0, 9, pct_start=2), ValueError, "pct_start must lie in"),
        (
            lambda o: optim.OneCycleLR(o, 1.0, 9, anneal_strategy="steep"),
            ValueError,
            "anneal_strategy must be one of 'cos', 'linear', got 'steep'",
        ),
        (
            lambda o: optim.OneCycleLR(Bare([Parameter(np.ones(1))], lr=1), 1.0, 9),
            ValueError,
            "Bar",
        ),
        (lambda o: optim.ReduceLROnPlateau(o, mode="less"), ValueError, "mode must be one of"),
        (lambda o: optim.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor must be < 1"),
        (lambda o: optim.ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "min_lr has 1 values"),
        (lambda o: optim.SequentialLR(o, [], []), ValueError, "0 schedulers need one milestone"),
        (
            lambda o: optim.SequentialLR(o, [optim.StepLR(o, 1)], [3]),
            ValueError,
            "1 schedulers need one milestone between each two of them, got 1",
        ),
        (
            lambda o: optim.SequentialLR(o, [optim.StepLR(o, 1)] * 3, [3, 3]),
            ValueError,
            r"milestones must rise, got \[3, 3\]",
        ),
        (
            lambda o: optim.SequentialLR(o, [optim.StepLR(two_groups(), 1)], []),
            ValueError,
            "schedulers: item 0 is of another optimizer",
        ),
        (
            lambda o: optim.SequentialLR(o, [optim.ReduceLROnPlateau(o)], []),
            TypeError,
            "item 0, a ReduceLROnPlateau, is no pure schedule",
        ),
    ],
)
def test_arguments_out_of_range_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(two_groups())


def test_a_group_added_after_the_schedule_is_named():
    optimizer = two_groups()
    schedule = optim.StepLR(optimizer, 2)
    optimizer.add_param_group({"params": [Parameter(np.zeros(1))]})
    with pytest.raises(RuntimeError, match="made for 2 parameter groups and the optimizer has 3"):
        schedule.step()
