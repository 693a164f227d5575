"""The loss of distillation against its formula in float64, its limits, and its derivative."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import approx_fprime
from scipy.special import log_softmax, softmax

import tinycompress as tc
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.distill import (
    attention_transfer_loss,
    decoupled_loss,
    distillation_loss,
    hint_loss,
    logit_matching_loss,
    soft_target_loss,
)
from tinycompress.tensor import Tensor

temperatures = st.floats(0.5, 50)
shares = st.floats(0, 1)
shapes = st.tuples(st.integers(1, 6), st.integers(2, 7))
seeds = st.integers(0, 10_000)


def reference(z_s, z_t, y, T, alpha):
    """NUMERICS, written out: sums over classes, means over samples."""
    p = softmax(z_t / T, axis=1)
    kl = (p * (log_softmax(z_t / T, axis=1) - log_softmax(z_s / T, axis=1))).sum(axis=1).mean()
    ce = -log_softmax(z_s, axis=1)[np.arange(len(y)), y].mean()
    return alpha * T**2 * kl + (1 - alpha) * ce


def draw(seed, shape, scale=3.0):
    rng = np.random.default_rng(seed)
    z_s, z_t = rng.normal(0, scale, (2, *shape))
    return z_s, z_t, rng.integers(0, shape[1], shape[0])


def derivative(z_s, z_t, y, T, alpha):
    leaf = Tensor(z_s.copy(), requires_grad=True)
    distillation_loss(leaf, z_t, y, T, alpha).backward()
    return leaf.grad


# ------------------------------------------------------------------------------- its value


@given(seeds, shapes, temperatures, shares)
def test_it_is_the_formula(seed, shape, T, alpha):
    z_s, z_t, y = draw(seed, shape)
    loss = distillation_loss(z_s, z_t, y, T, alpha).item()
    assert loss == pytest.approx(reference(z_s, z_t, y, T, alpha), rel=1e-10, abs=1e-12)


def test_it_is_the_formula_in_float32_on_every_device(device):
    z_s, z_t, y = draw(0, (32, 10))
    put = lambda a: to_device(a, device)  # noqa: E731
    loss = distillation_loss(
        put(z_s.astype(np.float32)), put(z_t.astype(np.float32)), put(y), 4.0, 0.9
    )
    assert loss.dtype == np.float32
    assert loss.device.partition(":")[0] == device
    assert loss.item() == pytest.approx(reference(z_s, z_t, y, 4.0, 0.9), rel=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("T", [0.7, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_value_and_derivative_equal_torch(T, alpha):
    torch = pytest.importorskip("torch")
    z_s, z_t, y = draw(1, (16, 10))
    leaf = torch.tensor(z_s, requires_grad=True)
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(leaf / T, dim=1),
        torch.softmax(torch.tensor(z_t) / T, dim=1),
        reduction="batchmean",
    )
    hard = torch.nn.functional.cross_entropy(leaf, torch.tensor(y))
    loss = alpha * T**2 * soft + (1 - alpha) * hard
    loss.backward()
    assert distillation_loss(z_s, z_t, y, T, alpha).item() == pytest.approx(loss.item(), rel=1e-10)
    np.testing.assert_allclose(derivative(z_s, z_t, y, T, alpha), leaf.grad.numpy(), atol=1e-12)


@given(seeds, shapes, temperatures)
def test_the_soft_part_is_zero_where_the_logits_match_and_positive_elsewhere(seed, shape, T):
    z_s, z_t, _ = draw(seed, shape)
    assert soft_target_loss(z_t, z_t, T).item() == 0
    assert soft_target_loss(z_s, z_t, T).item() > 0


@given(seeds, shapes, temperatures)
def test_samples_may_weigh_differently_as_an_array_or_a_tensor(seed, shape, T):
    z_s, z_t, _ = draw(seed, shape)
    weights = np.random.default_rng(seed).random(len(z_s))
    each = [soft_target_loss(z_s[i : i + 1], z_t[i : i + 1], T).item() for i in range(len(z_s))]
    for given_as in (weights, Tensor(weights)):
        loss = soft_target_loss(z_s, z_t, T, given_as).item()
        assert loss == pytest.approx(np.mean(weights * each), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("weights", [np.ones(4), np.ones((3, 1)), np.ones((3, 5))])
def test_weights_that_are_not_one_for_each_sample_are_refused(weights):
    z_s, z_t, _ = draw(0, (3, 5))
    with pytest.raises(ValueError, match=r"one for each sample; got shape"):
        soft_target_loss(z_s, z_t, 4.0, weights)


@pytest.mark.parametrize("T", [0.0, -1.0, float("nan"), float("inf")])
def test_the_soft_part_alone_refuses_what_is_no_temperature(T):
    z_s, z_t, _ = draw(0, (3, 5))
    with pytest.raises(ValueError, match="temperature"):
        soft_target_loss(z_s, z_t, T)


@given(seeds, shapes, temperatures, st.floats(-100, 100), st.floats(-100, 100))
def test_a_constant_added_to_a_samples_logits_changes_nothing(seed, shape, T, a, b):
    z_s, z_t, y = draw(seed, shape)
    plain = distillation_loss(z_s, z_t, y, T, 0.7).item()
    assert distillation_loss(z_s + a, z_t + b, y, T, 0.7).item() == pytest.approx(plain, rel=1e-9)


@given(seeds, shapes, temperatures)
def test_it_is_continuous_in_alpha_up_to_both_ends(seed, shape, T):
    z_s, z_t, y = draw(seed, shape)
    labels_alone = tc.functional.cross_entropy(z_s, y).item()
    teacher_alone = soft_target_loss(z_s, z_t, T).item()
    for end, there in ((0.0, labels_alone), (1.0, teacher_alone)):
        near = abs(end - 1e-9)
        at_end, close = (distillation_loss(z_s, z_t, y, T, a).item() for a in (end, near))
        assert at_end == pytest.approx(there, rel=1e-12)
        assert close == pytest.approx(at_end, abs=1e-8 * (1 + labels_alone + teacher_alone))


def test_without_labels_the_teacher_is_all_there_is():
    z_s, z_t, y = draw(2, (8, 5))
    assert (
        distillation_loss(z_s, z_t, None, 4.0, 1.0).item()
        == distillation_loss(z_s, z_t, y, 4.0, 1.0).item()
    )


def test_large_logits_neither_overflow_nor_vanish():
    z_s = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    z_t = np.array([[-1e4, 1e4, 0.0]], dtype=np.float32)
    loss = distillation_loss(z_s, z_t, np.array([1]), 1.0, 0.5).item()
    assert loss == pytest.approx(2e4)


# -------------------------------------------------------------------------------- its derivative


@given(seeds, shapes, st.floats(0.5, 10), shares)
def test_the_derivative_is_that_of_finite_differences(seed, shape, T, alpha):
    z_s, z_t, y = draw(seed, shape, scale=1.0)
    f = lambda flat: reference(flat.reshape(shape), z_t, y, T, alpha)  # noqa: E731
    expected = approx_fprime(z_s.ravel(), f, 1e-6).reshape(shape)
    np.testing.assert_allclose(derivative(z_s, z_t, y, T, alpha), expected, atol=1e-5)


@given(seeds, shapes, temperatures)
def test_the_soft_derivative_is_T_times_the_difference_of_probabilities(seed, shape, T):
    z_s, z_t, y = draw(seed, shape)
    expected = T * (softmax(z_s / T, axis=1) - softmax(z_t / T, axis=1)) / shape[0]
    np.testing.assert_allclose(derivative(z_s, z_t, y, T, 1.0), expected, atol=1e-12 * T)


@given(seeds, shapes, st.floats(0.1, 1))
def test_at_large_temperatures_the_derivative_is_the_difference_of_logits(seed, shape, alpha):
    """Per sample α (z_s − z_t) / K, where the logits have mean zero: that is what T² is for."""
    z_s, z_t, y = draw(seed, shape)
    z_s, z_t = (z - z.mean(axis=1, keepdims=True) for z in (z_s, z_t))
    N, K = shape
    labels_part = (1 - alpha) * (softmax(z_s, axis=1) - np.eye(K)[y]) / N
    soft_part = derivative(z_s, z_t, y, 1e4, alpha) - labels_part
    np.testing.assert_allclose(soft_part * N, alpha * (z_s - z_t) / K, atol=1e-2)
    closer = derivative(z_s, z_t, y, 1e6, alpha) - labels_part
    np.testing.assert_allclose(closer * N, alpha * (z_s - z_t) / K, atol=1e-4)


def test_at_temperature_one_the_derivative_is_the_difference_of_probabilities():
    z_s, z_t, y = draw(3, (4, 5))
    expected = (softmax(z_s, axis=1) - softmax(z_t, axis=1)) / 4
    np.testing.assert_allclose(derivative(z_s, z_t, y, 1.0, 1.0), expected, atol=1e-14)


def test_the_teachers_logits_get_no_derivative():
    z_s, z_t, y = draw(4, (4, 5))
    teacher = Tensor(z_t, requires_grad=True)
    distillation_loss(Tensor(z_s, requires_grad=True), teacher * 1.0, y).backward()
    assert teacher.grad is None


def test_the_derivative_has_the_students_dtype_on_every_device(device):
    z_s, z_t, y = draw(5, (6, 4))
    leaf = Tensor(to_device(z_s.astype(np.float32), device), requires_grad=True)
    teacher = to_device(z_t.astype(np.float32), device)
    distillation_loss(leaf, teacher, to_device(y, device), 3.0, 0.5).backward()
    assert leaf.grad.dtype == np.float32
    np.testing.assert_allclose(to_numpy(leaf.grad), derivative(z_s, z_t, y, 3.0, 0.5), atol=1e-6)


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("T", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_divides_by_nothing_is_refused(T):
    z_s, z_t, y = draw(6, (2, 3))
    with pytest.raises(ValueError, match="temperature must be a finite number > 0"):
        distillation_loss(z_s, z_t, y, T, 0.5)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    z_s, z_t, y = draw(6, (2, 3))
    with pytest.raises(ValueError, match=r"alpha, the share of the teacher, must lie in \[0, 1\]"):
        distillation_loss(z_s, z_t, y, 4.0, alpha)


def test_logits_that_do_not_fit_are_refused():
    z_s, z_t, y = draw(6, (2, 3))
    for other in (z_t[:, :2], z_t[:1], z_t.ravel()):
        with pytest.raises(ValueError, match=r"must both be \(N, classes\), got"):
            distillation_loss(z_s, other, y)
    with pytest.raises(ValueError, match=r"needs labels; without them, alpha=1"):
        distillation_loss(z_s, z_t, None, alpha=0.9)


def test_a_batch_of_no_samples_has_no_mean():
    """Rather than NaN."""
    for loss, shape in [
        (distillation_loss, (0, 3)), (logit_matching_loss, (0, 3)), (hint_loss, (0, 4)),
        (attention_transfer_loss, (0, 2, 3, 3)),
    ]:  # fmt: skip
        none = np.zeros(shape)
        labels = [np.zeros(0, int)] if loss is distillation_loss else []
        with pytest.raises(ValueError, match="N ≥ 1"):
            loss(none, none, *labels)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_decoupled_wants_one_label_for_each_sample(length):
    """A single one would stand for all of them in silence."""
    z_s, z_t, _ = draw(6, (3, 4))
    with pytest.raises(ValueError, match=rf"labels must be \(3,\) integers, got \({length},\)"):
        decoupled_loss(z_s, z_t, np.zeros(length, int))


@pytest.mark.parametrize("T", [1e-40, 1e-19, 1e19, 1e200])
def test_a_temperature_whose_square_is_no_number_is_refused(T):
    z_s, z_t, y = (a.astype(np.float32) if a.dtype.kind == "f" else a for a in draw(6, (2, 3)))
    for loss in (distillation_loss, decoupled_loss):
        with pytest.raises(ValueError, match=r"temperature must lie in 1e-18 … 1e\+18"):
            loss(z_s, z_t, y, T)
    with pytest.raises(ValueError, match="temperature must lie in"):
        soft_target_loss(z_s, z_t, T)


@pytest.mark.parametrize("T", [1e-18, 1e-6, 1e6, 1e18])
def test_at_extreme_temperatures_loss_and_derivative_are_finite(T):
    z_s, z_t, y = draw(6, (4, 5))
    leaf = Tensor(z_s.astype(np.float32), requires_grad=True)
    loss = distillation_loss(leaf, z_t.astype(np.float32), y, T, 0.5)
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(leaf.grad).all()
