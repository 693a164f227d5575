"""Schedules are functions of progress: they begin and end where they say, and only rise."""

from itertools import pairwise

import pytest
from hypothesis import example, given, strategies as st

from tinycompress.compress.prune import cubic, exponential, linear

SCHEDULES = {"linear": linear, "cubic": cubic, "exponential": exponential}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
shares = st.floats(0, 0.999)
progress = st.floats(0, 1)


@each_schedule
@given(a=shares, b=shares)
@example(a=0.2, b=0.9)  # 0.2 + (0.9 − 0.2) is 0.8999999999999999
def test_it_begins_and_ends_exactly_where_it_says(schedule, a, b):
    initial, final = sorted((a, b))
    assert schedule(0, final, initial) == pytest.approx(initial, abs=1e-15)
    assert schedule(0, final) == 0
    assert schedule(1, final, initial) == final


@each_schedule
@given(a=shares, b=shares, t=progress, u=progress)
def test_it_never_falls_and_never_leaves_the_range(schedule, a, b, t, u):
    initial, final = sorted((a, b))
    early, late = (schedule(x, final, initial) for x in sorted((t, u)))
    assert initial <= early <= late + 1e-15 <= final + 1e-15


def test_cubic_is_the_formula_of_zhu_and_gupta():
    assert cubic(0.5, 0.9, 0.1) == pytest.approx(0.9 + (0.1 - 0.9) * 0.5**3)


def test_linear_is_a_straight_line():
    assert linear(0.25, 0.9, 0.1) == pytest.approx(0.3)


def test_exponential_removes_the_same_share_of_the_rest_each_time():
    density = [1 - exponential(k / 5, 1 - 0.8**5) for k in range(6)]
    assert [b / a for a, b in pairwise(density)] == pytest.approx([0.8] * 5)


@each_schedule
@pytest.mark.parametrize(
    ("t", "final", "initial"),
    [
        (-0.1, 0.5, 0),
        (1.1, 0.5, 0),
        (float("nan"), 0.5, 0),
        (0.5, 1.0, 0),
        (0.5, 0.2, 0.3),
        (0.5, 0.5, -0.1),
    ],
)
def test_what_is_out_of_range_is_refused(schedule, t, final, initial):
    with pytest.raises(ValueError, match=r"progress|sparsities"):
        schedule(t, final, initial)
