"""Losses: the definitions, the derivatives, and the extremes."""

import math

import numpy as np
import pytest
import scipy.special
import strict_cupy
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from references import cross_entropy_reference
from strategies import normal, seeds

import tinycompress as tc
from tinycompress import functional as F

reductions = st.sampled_from(["mean", "sum", "none"])
smoothings = st.sampled_from([0.0, 0.1, 0.9])


@st.composite
def classifications(draw):
    """Scores (N, K) and labels (N) of any integer type."""
    N, K = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from([np.int64, np.int32, np.uint8, np.int8]))
    return rng.normal(size=(N, K)) * 3, rng.integers(0, K, N).astype(kind)


@given(classifications(), smoothings, reductions)
def test_cross_entropy(case, smoothing, reduction):
    x, labels = case
    expected = np.array(cross_entropy_reference(x, labels, smoothing))
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    y = F.cross_entropy(x, labels, smoothing, reduction)
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-14)
    check_gradients(lambda x: F.cross_entropy(x, labels, smoothing, reduction), x)


@given(classifications(), reductions)
def test_nll_loss_of_log_softmax_is_cross_entropy(case, reduction):
    x, labels = case
    f = lambda x: F.nll_loss(F.log_softmax(x), labels, reduction)  # noqa: E731
    y = F.cross_entropy(x, labels, reduction=reduction)
    np.testing.assert_allclose(f(x).data, y.data, rtol=1e-12, atol=1e-14)
    check_gradients(f, x)
    check_gradients(lambda x: F.nll_loss(x, labels, reduction), x)


@given(seeds, reductions)
def test_mse_loss(seed, reduction):
    x, target = normal(seed, (3, 4), (3, 4))
    expected = (x - target) ** 2
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    np.testing.assert_allclose(F.mse_loss(x, target, reduction).data, expected, rtol=1e-14)
    check_gradients(lambda x, t: F.mse_loss(x, t, reduction), x, target)


@given(seeds, st.booleans())
def test_kl_div(seed, log_target):
    a, b = normal(seed, (3, 5), (3, 5))
    log_q, p = scipy.special.log_softmax(a, axis=1), scipy.special.softmax(b, axis=1)
    each = scipy.special.rel_entr(p, np.exp(log_q))
    target = np.log(p) if log_target else p
    for reduction, expected in (
        ("none", each),
        ("sum", each.sum()),
        ("mean", each.mean()),
        ("batchmean", each.sum() / 3),
    ):
        y = F.kl_div(log_q, target, reduction, log_target)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-14)
        check_gradients(lambda q, t, r=reduction: F.kl_div(q, t, r, log_target), log_q, target)


@given(seeds)
def test_a_distribution_is_no_distance_from_itself(seed):
    (x,) = normal(seed, (3, 5))
    log_p = F.log_softmax(x)
    assert F.kl_div(log_p, log_p.exp(), "batchmean").item() == pytest.approx(0, abs=1e-15)
    assert F.kl_div(log_p, log_p, "batchmean", log_target=True).item() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_target_of_probability_zero_counts_nothing(dtype):
    log_q = np.log(np.array([[0.5, 0.5]], dtype))
    x = tc.tensor(log_q, requires_grad=True)
    y = F.kl_div(x, np.array([[0.0, 1.0]], dtype), "sum")
    assert y.item() == pytest.approx(math.log(2), rel=1e-6)
    np.testing.assert_array_equal(tc.grad(y, [x])[0], [[0, -1]])


def test_a_tiny_probability_counts_what_it_should():
    log_q = np.array([[-1.0, -1.0]])
    p = np.array([[1e-300, 1.0]])
    each = F.kl_div(log_q, p, "none").data[0]
    assert each[0] == pytest.approx(1e-300 * (math.log(1e-300) + 1), rel=1e-12)


@given(seeds, reductions)
def test_binary_cross_entropy_with_logits(seed, reduction):
    rng = np.random.default_rng(seed)
    x, target = rng.normal(size=(3, 4)) * 3, rng.random((3, 4))
    p = scipy.special.expit(x)
    each = -scipy.special.xlogy(target, p) - scipy.special.xlogy(1 - target, 1 - p)
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    y = F.binary_cross_entropy_with_logits(x, target, reduction)
    np.testing.assert_allclose(y.data, expected, rtol=1e-10)
    check_gradients(lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction), x, target)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_and_wrong_by_a_hundred(dtype):
    x = tc.tensor(np.array([100.0, -100.0, 100.0, -100.0, 1e30, 0.0], dtype), requires_grad=True)
    target = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.5], dtype)
    y = F.binary_cross_entropy_with_logits(x, target, "none")
    expected = [100, 100, 0, 0, 0, math.log(2)]
    np.testing.assert_allclose(y.data, expected, rtol=1e-6, atol=1e-40)
    d = tc.grad(y, [x], np.ones(6, dtype))[0]
    np.testing.assert_allclose(d, [1, -1, 0, 0, 0, 0], atol=1e-40)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_a_logit_of_minus_infinity_elsewhere_does_no_harm(loss):
    x = tc.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    scores = x if loss is F.cross_entropy else F.log_softmax(x)
    y = loss(scores, np.array([0]))
    assert y.item() == pytest.approx(math.log(2))
    np.testing.assert_array_equal(tc.grad(y, [x])[0], [[-0.5, 0, 0.5]])


def test_a_logit_of_minus_infinity_at_the_label_is_infinitely_wrong():
    x = tc.tensor([[0.0, -math.inf]], requires_grad=True)
    y = F.cross_entropy(x, np.array([1]))
    assert y.item() == math.inf
    np.testing.assert_array_equal(tc.grad(y, [x])[0], [[1, -1]])


def test_large_scores_do_not_overflow():
    x = tc.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    y = F.cross_entropy(x, np.array([0, 0]), reduction="none")
    np.testing.assert_array_equal(y.data, [0, 1e4])
    np.testing.assert_array_equal(tc.grad(y.sum(), [x])[0], [[0, 0], [-1, 1]])


def test_more_classes_than_the_labels_type_can_count():
    x = np.zeros((2, 300), np.float32)
    y = F.cross_entropy(x, np.array([1, 255], np.uint8))
    assert y.item() == pytest.approx(math.log(300), rel=1e-6)
    assert F.one_hot(np.array([127], np.int8), 300).shape == (1, 300)


def test_full_smoothing_forgets_the_label(rng):
    x = rng.normal(size=(4, 3))
    a, b = (F.cross_entropy(x, np.full(4, k), 1 - 1e-12).item() for k in (0, 2))
    assert a == pytest.approx(b, abs=1e-10)


def test_one_hot_has_one_one():
    y = F.one_hot(np.array([2, 0]), 4)
    np.testing.assert_array_equal(y.data, [[0, 0, 1, 0], [1, 0, 0, 0]])
    assert y.dtype == np.float32


def test_labels_of_an_empty_batch():
    assert F.one_hot(np.zeros(0, int), 4).shape == (0, 4)
    for loss in (F.cross_entropy, F.nll_loss):
        assert loss(np.zeros((0, 4)), np.zeros(0, int), reduction="sum").item() == 0


def test_on_a_gpu_labels_are_not_waited_for(cupy):
    x = tc.tensor(np.zeros((2, 4), np.float32), device="cuda")
    labels = tc.tensor([1, 3], device="cuda")
    with strict_cupy.no_sync("a loss"):
        F.cross_entropy(x, labels)
        F.nll_loss(x, labels)
        F.one_hot(labels, 4)


def test_on_a_gpu_a_label_out_of_range_makes_the_loss_nan(cupy):
    """Looking at the labels would wait for the device, in every step."""
    x = tc.tensor(np.zeros((3, 4), np.float32), device="cuda", requires_grad=True)
    for labels in ([0, 4, 1], [0, -1, 1]):
        y = F.cross_entropy(x, tc.tensor(labels, device="cuda"), reduction="none")
        assert np.isnan(y.numpy()).tolist() == [False, True, False]
        z = F.nll_loss(x, tc.tensor(labels, device="cuda"), reduction="none")
        assert np.isnan(z.numpy()).tolist() == [False, True, False]
