"""Students by rule: sizes, costs, and what a budget chooses."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

import tinycompress as tc
from tinycompress.compress.distill import FamilyMember, Scale, largest_within, scaled_student
from tinycompress.data import Dataset
from tinycompress.students import student_within_budget


def digits(n=60, classes=10):
    rng = np.random.default_rng(0)
    images = rng.random((n, 1, 28, 28)).astype(np.float32)
    return Dataset(images, rng.integers(0, classes, n))


def counted(depth, width, resolution, classes=10, channels=1):
    """Parameters and multiplications by hand."""
    parameters = macs = 0
    side = resolution
    for outputs in (width, 2 * width):
        for _ in range(depth):
            parameters += outputs * (9 * channels + 1)
            macs += outputs * 9 * channels * side * side
            channels = outputs
        side //= 2
    features = channels * side * side
    return parameters + classes * (features + 1), macs + classes * features


@given(st.integers(1, 3), st.integers(1, 6), st.integers(4, 28))
def test_a_student_has_the_sizes_that_it_was_given(depth, width, resolution):
    model = scaled_student(depth, width, resolution)
    costs = tc.summary(model)
    assert (costs.parameters, costs.macs) == counted(depth, width, resolution)
    assert model(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)
    shapes = {layer.name: layer.output_shape for layer in costs.layers}
    assert shapes["conv1_1"] == (width, resolution, resolution)
    assert shapes["conv2_1"] == (2 * width, resolution // 2, resolution // 2)


def test_phi_multiplies_depth_width_and_resolution_by_powers():
    scale = Scale(depth=4, width=64, resolution=64)
    for phi in (0, -1, -2.5, 3):
        assert scale.at(phi) == tuple(
            round(base * factor**phi) for base, factor in ((4, 1.2), (64, 1.1), (64, 1.15))
        )
    assert scale.at(-100) == (1, 1, 4)


def test_one_phi_more_about_doubles_the_multiplications():
    """Where rounding matters little: with large sizes."""
    scale = Scale(depth=60, width=300, resolution=600)
    work = [depth * width**2 * side**2 for depth, width, side in map(scale.at, range(-6, 1))]
    growth = np.array(work[1:]) / np.array(work[:-1])
    np.testing.assert_allclose(growth, 1.2 * 1.1**2 * 1.15**2, rtol=0.05)
    assert 1.8 < growth.mean() < 2.2


def test_the_family_goes_from_large_to_small_with_the_costs_of_its_files(tmp_path):
    family = tc.student_family()
    assert len(family) == len({(m.depth, m.width, m.resolution) for m in family}) > 10
    for costs in (
        [m.macs for m in family], [m.parameters for m in family], [m.bytes for m in family]
    ):  # fmt: skip
        assert costs == sorted(costs, reverse=True)
    member = family[-3]
    file = tmp_path / "student.tcz"
    tc.save(member.make(), file)
    assert file.stat().st_size == member.bytes
    loaded = tc.load(file)
    assert (tc.summary(loaded).parameters, tc.summary(loaded).macs) == (
        member.parameters, member.macs,
    )  # fmt: skip


def test_the_largest_member_within_all_budgets_is_chosen():
    family = tc.student_family()
    for budget in (5_000, 20_000, 100_000):
        chosen = largest_within(family, budget_bytes=budget)
        assert chosen.bytes <= budget
        assert all(m.bytes > budget for m in family if m.macs > chosen.macs)
    both = largest_within(family, budget_bytes=100_000, budget_parameters=1_000)
    assert both.parameters <= 1_000
    with pytest.raises(ValueError, match=r"the smallest needs [\d,]+ bytes for a budget of 100"):
        largest_within(family, budget_bytes=100)
    with pytest.raises(ValueError, match="budget_bytes or budget_parameters"):
        largest_within(family)


def member(macs, parameters):
    return FamilyMember(0, 1, 1, 4, parameters, macs, None, (1, 28, 28), 10)


def test_the_largest_has_most_multiplications_and_then_most_parameters():
    family = [member(10, 9), member(20, 5), member(20, 6), member(30, 99)]
    assert largest_within(family, budget_parameters=20) == member(20, 6)
    with pytest.raises(ValueError, match="are not measured"):
        largest_within(family, budget_bytes=1000)
    with pytest.raises(ValueError, match="no members"):
        largest_within([], budget_parameters=20)


def test_a_network_that_comes_twice_has_the_phi_that_was_asked_for_first():
    family = tc.student_family([-16, -16.001, -8])
    assert [m.phi for m in family] == [-16, -8]


def test_in_float64_a_budget_makes_a_float64_student():
    images = np.random.default_rng(0).random((20, 1, 8, 8))
    data = Dataset(images, np.arange(20) % 5)
    teacher = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(64, 5)).to(np.float64)
    small = tc.distill(teacher, data=data, budget_parameters=1_000, epochs=1)
    assert {p.dtype for p in small.parameters()} == {np.dtype(np.float64)}


def test_distill_takes_a_budget_in_the_place_of_a_student(tmp_path):
    data, teacher = digits(), tc.models.LeNet300100()
    small = tc.distill(teacher, data=data, budget_bytes=12_000, epochs=1, temperature=2.0)
    file = tmp_path / "student.tcz"
    tc.save(small, file)
    assert 6_000 < file.stat().st_size <= 12_000
    few = tc.distill(teacher, data=data, budget_parameters=900, epochs=1)
    assert 450 < sum(p.size for p in few.parameters()) <= 900


def test_a_budget_on_a_gpu_and_for_other_images(device):
    rng = np.random.default_rng(0)
    images = rng.random((20, 3, 16, 20)).astype(np.float32)
    data = Dataset(images, rng.integers(0, 7, 20))
    teacher = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(960, 7)).to(device)
    small = tc.distill(teacher, data=data, budget_parameters=2_000, epochs=1)
    assert small.device == teacher.device
    assert small(data.to(small.device).images).shape == (20, 7)


def test_student_and_budget_exclude_each_other():
    data, teacher, student = digits(), tc.models.LeNet300100(), tc.models.TinyCNN()
    with pytest.raises(TypeError, match="a student or budget_bytes, not both"):
        tc.distill(teacher, student, data, budget_bytes=5_000, epochs=1)
    with pytest.raises(TypeError, match="give a student, or budget_bytes"):
        tc.distill(teacher, data=data, epochs=1)
    with pytest.raises(TypeError, match="without a student, write data="):
        tc.distill(teacher, data, budget_bytes=5_000, epochs=1)
    with pytest.raises(TypeError, match="make the student first"):
        tc.distill(teacher, data=data, budget_bytes=5_000, epochs=1, optimizer=None)
    with pytest.raises(ValueError, match="the smallest needs"):
        tc.distill(teacher, data=data, budget_bytes=50, epochs=1)


def test_what_a_budget_cannot_be_spent_on_is_named():
    data, teacher = digits(), tc.models.LeNet300100()
    with pytest.raises(TypeError, match="scale is of the family that a budget chooses from"):
        tc.distill(teacher, tc.models.TinyCNN(), data, scale=Scale(), epochs=1)
    other = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(9, 5))
    with pytest.raises(ValueError, match="the teacher does not take these images, float32"):
        tc.distill(other, data=data, budget_bytes=9_000, epochs=1)
    with pytest.raises(TypeError, match=r"data must be a tc.data.Dataset, got ndarray"):
        student_within_budget(teacher, data.images, budget_bytes=9_000)
    for phi, kind in [("1", TypeError), (None, TypeError), (1e5, ValueError)]:
        with pytest.raises(kind, match="phi must be"):
            tc.student_family([phi])
    with pytest.raises(TypeError, match="phis must be numbers in a list, got -4"):
        tc.student_family(-4)
    with pytest.raises(TypeError, match="scale must be a Scale, got 2"):
        tc.student_family([0], scale=2)


def test_scales_that_break_the_rule_are_refused():
    with pytest.raises(ValueError, match="must be about 2"):
        Scale(alpha=2.0)
    with pytest.raises(ValueError, match="resolution must be ≥ 4"):
        Scale(resolution=3)
    with pytest.raises(ValueError, match="width"):
        Scale(width=0)
    with pytest.raises(ValueError, match="above that of images"):
        tc.student_family([1])
    with pytest.raises(ValueError, match="phi must be a finite number"):
        tc.student_family([float("nan")])
    for shape in ((784,), (1, 3, 28)):
        with pytest.raises(ValueError, match=r"of 4×4 pixels or more"):
            tc.student_family([0], image_shape=shape)
    small = Dataset(np.zeros((8, 1, 3, 3), np.float32), np.zeros(8, int))
    teacher = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(9, 5))
    with pytest.raises(ValueError, match=r"got \(1, 3, 3\)"):
        tc.distill(teacher, data=small, budget_bytes=9_000, epochs=1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3, 8), "depth must be an integer ≥ 1"),
        ((1, 3, 3), "resolution must be an integer ≥ 4"),
        ((1, 3, 29), "above that of images"),
    ],
    ids=["depth", "poolings", "pixels"],
)
def test_students_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        scaled_student(*sizes)
