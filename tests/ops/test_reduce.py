"""Reductions over every choice of axes."""

import numpy as np
import pytest
from gradcheck import check_gradients, laid_out, spaced
from hypothesis import given, strategies as st
from strategies import normal, orders, seeds, shape_and_axes

import tinycompress as tc
from tinycompress.graph import unbroadcast

REDUCTIONS = ["sum", "mean", "max", "min"]
each_reduction = pytest.mark.parametrize("name", REDUCTIONS)


@each_reduction
@given(shape_and_axes(), st.booleans(), seeds)
def test_derivatives(name, shape_axis, keepdim, seed):
    shape, axis = shape_axis
    x = spaced(np.random.default_rng(seed), *shape)
    check_gradients(lambda x: getattr(x, name)(axis, keepdim), x)


@given(shape_and_axes(1), st.booleans(), st.integers(0, 1), seeds)
def test_derivatives_of_var(shape_axis, keepdim, correction, seed):
    shape, axis = shape_axis
    (x,) = normal(seed, shape)
    if np.empty(shape).size and _count(shape, axis) > correction:
        check_gradients(lambda x: x.var(axis, keepdim, correction=correction), x)


@each_reduction
@given(shape_and_axes(), st.booleans(), seeds)
def test_values_are_numpys(name, shape_axis, keepdim, seed):
    shape, axis = shape_axis
    (x,) = normal(seed, shape)
    y = getattr(tc.Tensor(x), name)(axis, keepdim)
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdim)
    assert y.shape == np.shape(expected)
    np.testing.assert_array_equal(y.data, expected)


@pytest.mark.parametrize("name", [*REDUCTIONS, "var", "argmax"])
def test_axes_are_reduced_away_unless_kept(name):
    x = tc.tensor(np.arange(6.0).reshape(2, 3))
    reduce = getattr(x, name)
    assert (reduce().shape, reduce(1).shape, reduce(1, True).shape) == ((), (2,), (2, 1))
    assert reduce(keepdim=True).shape == (1, 1)


@given(shape_and_axes(1), st.booleans(), st.integers(0, 1), seeds)
def test_var_is_numpys(shape_axis, keepdim, correction, seed):
    shape, axis = shape_axis
    (x,) = normal(seed, shape)
    if _count(shape, axis) > correction:
        y = tc.Tensor(x).var(axis, keepdim, correction)
        expected = x.var(axis=axis, keepdims=keepdim, ddof=correction)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12)


def _count(shape, axis):
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return int(np.prod([shape[a] for a in axes]))


@given(orders, seeds)
def test_the_order_in_memory_does_not_matter(order, seed):
    x = spaced(np.random.default_rng(seed), 2, 3, 4, 2)
    for axis in (1, (0, 2), (1, 3)):
        check_gradients(lambda x, a=axis: x.max(a) + x.var(a), laid_out(x, order))


@pytest.mark.parametrize(("name", "sign"), [("max", 1), ("min", -1)])
def test_equal_extremes_share_the_gradient_evenly(name, sign):
    x = tc.tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    getattr(x * sign, name)(axis=1).sum().backward()
    expected = np.array([[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    np.testing.assert_array_equal(x.grad, expected * sign)


@given(shape_and_axes(1), seeds)
def test_argmax_is_the_first_largest(shape_axis, seed):
    shape, axis = shape_axis
    axis = None if isinstance(axis, tuple) else axis
    x = np.random.default_rng(seed).integers(0, 3, shape)
    y = tc.Tensor(x).argmax(axis)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.data, x.argmax(axis))
    kept = tc.Tensor(x).argmax(axis, keepdim=True)
    np.testing.assert_array_equal(kept.data, x.argmax(axis, keepdims=True))


def test_booleans_are_counted():
    assert tc.tensor([True, False, True]).sum().item() == 2
    assert tc.tensor([1, 2]).mean().item() == 1.5


@given(st.data(), seeds)
def test_unbroadcast_is_the_transpose_of_broadcasting(data, seed):
    """⟨broadcast(x), g⟩ = ⟨x, unbroadcast(g)⟩, the property that makes it the derivative."""
    full = tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))
    kept = full[data.draw(st.integers(0, len(full))) :]
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in kept)
    x, g = normal(seed, shape, full)
    back = unbroadcast(g, shape)
    assert back.shape == shape
    expected = (np.broadcast_to(x, full) * g).sum()
    np.testing.assert_allclose((x * back).sum(), expected, rtol=1e-10, atol=1e-10)
