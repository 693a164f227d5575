"""Pooling: values from the definition, ties to the first, derivatives from differences."""

import numpy as np
import pytest
from gradcheck import check_gradients, laid_out, spaced
from hypothesis import given, strategies as st
from references import (
    adaptive_avg_pool2d_reference,
    avg_pool2d_reference,
    max_pool2d_reference,
    pooled_sizes,
)
from strategies import normal, orders, pairs, poolings, seeds

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.ops.pool import Windows, pooled_size

adaptive = st.tuples(pairs(1, 3), pairs(1, 7), pairs(1, 7))


@given(poolings(), orders, seeds)
def test_the_largest_value_of_each_window(p, order, seed):
    (x,) = normal(seed, p.x)
    y = F.max_pool2d(laid_out(x, order), *p[1:])
    np.testing.assert_array_equal(y.data, max_pool2d_reference(x, *p[1:])[0])


@given(poolings(), seeds)
def test_ties_give_the_gradient_to_the_first_of_the_window(p, seed):
    rng = np.random.default_rng(seed)
    x = tc.tensor(rng.integers(0, 2, p.x).astype(np.float64), requires_grad=True)
    y = F.max_pool2d(x, *p[1:])
    g = rng.normal(size=y.shape)
    expected = np.zeros(p.x)
    for (n, c, *_), place, value in zip(
        np.ndindex(y.shape),
        max_pool2d_reference(x.data, *p[1:])[1].reshape(-1, 2),
        g.flat,
        strict=True,
    ):
        expected[n, c, *place] += value
    np.testing.assert_allclose(tc.grad(y, [x], g)[0], expected, rtol=1e-12, atol=1e-12)


@given(poolings(), orders, seeds)
def test_derivatives_of_max_pool2d(p, order, seed):
    x = spaced(np.random.default_rng(seed), *p.x)
    check_gradients(lambda x: F.max_pool2d(x, *p[1:]), laid_out(x, order))


@given(poolings(), st.booleans(), orders, seeds)
def test_the_mean_of_each_window(p, count_include_pad, order, seed):
    (x,) = normal(seed, p.x)
    y = F.avg_pool2d(laid_out(x, order), *p[1:], count_include_pad)
    expected = avg_pool2d_reference(x, *p[1:], count_include_pad)
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)


@given(poolings(), st.booleans(), orders, seeds)
def test_derivatives_of_avg_pool2d(p, count_include_pad, order, seed):
    (x,) = normal(seed, p.x)
    check_gradients(lambda x: F.avg_pool2d(x, *p[1:], count_include_pad), laid_out(x, order))


@given(adaptive, orders, seeds)
def test_means_that_cover_the_image(sizes, order, seed):
    (N, C), image, output = sizes
    (x,) = normal(seed, (N, C, *image))
    y = F.adaptive_avg_pool2d(laid_out(x, order), output)
    np.testing.assert_allclose(y.data, adaptive_avg_pool2d_reference(x, output), rtol=1e-12)


@given(adaptive, orders, seeds)
def test_derivatives_of_adaptive_avg_pool2d(sizes, order, seed):
    (N, C), image, output = sizes
    (x,) = normal(seed, (N, C, *image))
    check_gradients(lambda x: F.adaptive_avg_pool2d(x, output), laid_out(x, order))


@given(*[st.integers(1, 30)] * 3, st.integers(0, 5), st.booleans())
def test_the_number_of_windows(size, kernel, stride, padding, ceil_mode):
    if 2 * padding > kernel or size + 2 * padding < kernel:
        return
    n = pooled_size(size, kernel, stride, padding, ceil_mode)
    expected = pooled_sizes((size, 1), (kernel, 1), (stride, 1), (padding, 0), ceil_mode)
    assert n == expected[0]
    assert (n - 1) * stride - padding < size, "the last window starts outside the image"


@given(poolings())
def test_no_more_is_padded_than_windows_reach(p):
    windows = Windows(np.zeros(p.x), *p[1:])
    image = windows.padded(np.zeros(p.x), 0.0)
    for axis, (n, k, s, pad, o) in enumerate(
        zip(p.x[2:], p.kernel, p.stride, p.padding, windows.output, strict=True)
    ):
        assert image.shape[2 * axis] == max(n + 2 * pad, (o - 1) * s + k)


def test_padding_never_wins_a_maximum():
    x = np.full((1, 1, 2, 2), -5.0)
    assert (F.max_pool2d(x, 2, padding=1).data == -5).all()


def test_one_window_over_everything_is_the_mean(rng):
    x = rng.normal(size=(2, 3, 5, 7))
    np.testing.assert_allclose(F.adaptive_avg_pool2d(x, 1).data[..., 0, 0], x.mean(axis=(2, 3)))


def test_a_grid_as_fine_as_the_image_is_the_image(rng):
    x = rng.normal(size=(2, 3, 5, 7))
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, (5, 7)).data, x)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d])
def test_an_empty_batch_stays_empty(pool, device):
    x = tc.tensor(np.zeros((0, 3, 4, 4), np.float32), device=device, requires_grad=True)
    y = pool(x, 2)
    assert y.shape == (0, 3, 2, 2)
    y.sum().backward()
    assert x.grad.shape == x.shape
