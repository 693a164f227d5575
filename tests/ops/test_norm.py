"""Batch norm and layer norm: the formula, derivatives through the statistics, invariances."""

import numpy as np
import pytest
from gradcheck import check_gradients, laid_out
from hypothesis import given, strategies as st
from references import batch_norm_reference, layer_norm_reference
from strategies import normal, orders, seeds

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.functional.layers import batch_norm_training
from tinycompress.ops import norm

EPS = 1e-3  # larger than usual, so that a channel of two close values is not all curvature


@st.composite
def images(draw):
    """(N, C), (N, C, L) or (N, C, H, W) with several values per channel."""
    sizes = draw(st.lists(st.integers(1, 3), max_size=2))
    return (draw(st.integers(3, 5)), draw(st.integers(1, 3)), *sizes)


@given(images(), seeds, st.booleans())
def test_batch_norm_is_its_definition(shape, seed, training):
    x, w, b, mean, log_var = normal(seed, shape, *[shape[1:2]] * 4)
    var = np.exp(log_var)
    y = F.batch_norm(x, mean, var, w, b, training, EPS)
    given_ones = None if training else (mean, var)
    expected = batch_norm_reference(x, w, b, EPS, given_ones)
    np.testing.assert_allclose(y.data, expected, rtol=1e-11, atol=1e-12)


@given(images(), seeds, st.booleans(), st.sampled_from(["both", "weight", "bias", "none"]))
def test_derivatives_of_batch_norm(shape, seed, training, affine):
    x, w, b, mean, log_var = normal(seed, shape, *[shape[1:2]] * 4)
    var = np.exp(log_var)

    def f(x, w=None, b=None):
        return F.batch_norm(x, mean, var, w, b, training, EPS)

    {
        "both": lambda: check_gradients(f, x, w, b),
        "weight": lambda: check_gradients(f, x, w),
        "bias": lambda: check_gradients(lambda x, b: f(x, None, b), x, b),
        "none": lambda: check_gradients(f, x),
    }[affine]()


@given(orders, seeds)
def test_the_order_in_memory_does_not_matter(order, seed):
    x, w, b = normal(seed, (3, 2, 3, 4), (2,), (2,))
    f = lambda x, w, b: F.batch_norm(x, None, None, w, b, True, EPS)  # noqa: E731
    check_gradients(f, laid_out(x, order), w, b)
    np.testing.assert_allclose(f(laid_out(x, order), w, b).data, f(x, w, b).data, atol=1e-13)


def test_statistics_come_with_the_output(rng):
    x = rng.normal(2, 3, size=(4, 3, 5, 5))
    y, (mean, var, count) = batch_norm_training(x, None, None, 1e-5)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(var, x.var(axis=(0, 2, 3)), rtol=1e-12)
    assert count == 100
    np.testing.assert_allclose(y.data.mean(axis=(0, 2, 3)), 0, atol=1e-14)
    np.testing.assert_allclose(y.data.var(axis=(0, 2, 3)), var / (var + 1e-5), rtol=1e-12)


def test_training_does_not_see_the_scale_of_its_input(rng):
    """So the derivative along x itself, and along a constant shift, is 0."""
    x = tc.tensor(rng.normal(size=(6, 3)), requires_grad=True)
    y = F.batch_norm(x, training=True, eps=0.0)
    d = tc.grad(y, [x], rng.normal(size=y.shape))[0]
    np.testing.assert_allclose(d.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((d * x.data).sum(axis=0), 0, atol=1e-12)


def test_a_large_mean_costs_no_precision():
    x = np.array([[1e4], [1e4 + 1], [1e4 + 2], [1e4 + 3]], np.float32)
    y = F.batch_norm(x, training=True)
    np.testing.assert_allclose(y.data.ravel(), [-1.3416, -0.4472, 0.4472, 1.3416], rtol=1e-3)


def test_running_statistics_are_not_touched(rng):
    mean, var = np.zeros(3), np.ones(3)
    F.batch_norm(rng.normal(size=(4, 3)), mean, var, training=True)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(var, 1)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data(), seeds)
def test_layer_norm(shape, data, seed):
    axes = data.draw(st.integers(1, len(shape)))
    inner = tuple(shape[-axes:])
    x, w, b = normal(seed, tuple(shape), inner, inner)
    y = F.layer_norm(x, inner, w, b, EPS)
    expected = layer_norm_reference(x, axes, w, b, EPS)
    np.testing.assert_allclose(y.data, expected, rtol=1e-10, atol=1e-11)
    check_gradients(lambda x, w, b: F.layer_norm(x, inner, w, b, EPS), x, w, b)
    check_gradients(lambda x: F.layer_norm(x, inner, eps=EPS), x)


@pytest.mark.parametrize("normalized_shape", [4, np.int64(4), (4,), [4]])
def test_normalized_shape_may_be_one_number(normalized_shape, rng):
    x = rng.normal(size=(2, 4))
    expected = layer_norm_reference(x, 1, np.ones(4), np.zeros(4), 1e-5)
    np.testing.assert_allclose(F.layer_norm(x, normalized_shape).data, expected, rtol=1e-10)


@pytest.mark.parametrize("setting", [{"BLOCK": 1}, {"ROW": 1}, {"ROW": 7, "BLOCK": 20}])
@given(shape=images(), seed=seeds, training=st.booleans())
def test_rows_and_blocks_change_nothing(setting, shape, seed, training):
    arrays = normal(seed, shape, *[shape[1:2]] * 2)
    mean, log_var = normal(seed + 1, *[shape[1:2]] * 2)

    def run():
        leaves = [tc.tensor(a, requires_grad=True) for a in arrays]
        x, w, b = leaves
        y = F.batch_norm(x, mean, np.exp(log_var), w, b, training, EPS)
        return y.data, *tc.grad(y, leaves, np.random.default_rng(2).normal(size=y.shape))

    expected = run()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in setting.items():
            patch.setattr(norm, name, value)
        found = run()
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-10)


def test_bits_do_not_depend_on_where_an_array_begins(rng):
    """Rows and blocks are cut by shape, and no sum depends on the place in memory."""
    x = rng.normal(size=(28, 8, 28, 16)).astype(np.float32)
    w, g = rng.normal(size=16).astype(np.float32), rng.normal(size=x.shape).astype(np.float32)
    results = []
    for offset in range(4):
        memory = np.empty(x.size + offset, np.float32)
        moved = memory[offset:].reshape(x.shape)
        moved[...] = x
        leaves = [tc.Tensor(a, requires_grad=True) for a in (moved.transpose(1, 3, 0, 2), w, w + 1)]
        y, (mean, var, _) = batch_norm_training(*leaves, 1e-5)
        results.append([y.data, mean, var, *tc.grad(y, leaves, g.transpose(1, 3, 0, 2))])
    for again in results[1:]:
        for a, b in zip(results[0], again, strict=True):
            np.testing.assert_array_equal(a, b)
