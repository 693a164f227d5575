"""Activations: derivatives, definitions, and what happens far out."""

import math

import numpy as np
import pytest
import scipy.special
from gradcheck import check_gradients, spaced
from hypothesis import given, strategies as st
from references import softmax_reference
from strategies import normal, seeds, shape_and_axes, shapes

import tinycompress as tc
from tinycompress import functional as F

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "leaky_relu 0.3": lambda x: F.leaky_relu(x, 0.3),
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}
DEFINITIONS = {
    F.relu: lambda v: max(v, 0.0),
    F.leaky_relu: lambda v: v if v > 0 else 0.01 * v,
    F.sigmoid: lambda v: 1 / (1 + math.exp(-v)),
    F.tanh: math.tanh,
    F.gelu: lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)),
    F.silu: lambda v: v / (1 + math.exp(-v)),
}


@pytest.mark.parametrize("f", ACTIVATIONS.values(), ids=ACTIVATIONS)
@given(shapes(), seeds, st.sampled_from([0.05, 0.5]))
def test_derivatives(f, shape, seed, gap):
    check_gradients(f, spaced(np.random.default_rng(seed), *shape, gap=gap))


@pytest.mark.parametrize("f", DEFINITIONS, ids=lambda f: f.__name__)
def test_values_are_those_of_the_definition(f):
    x = np.linspace(-30, 30, 601)
    expected = [DEFINITIONS[f](v) for v in x]
    # GELU is computed as x/2·(1 + erf), whose rounding is relative to x, not to the tail
    np.testing.assert_allclose(f(x).data, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tails_of_the_sigmoid_are_not_rounded_away(dtype):
    x = np.array([-80.0, -20.0, -1.0, 0.0, 1.0, 20.0], dtype)
    expected = scipy.special.expit(x.astype(np.float64))
    np.testing.assert_allclose(F.sigmoid(x).data, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(F.silu(x).data, x * expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("f", [F.relu, F.sigmoid, F.tanh], ids=lambda f: f.__name__)
def test_infinity_is_no_nan(f):
    x = tc.tensor([-math.inf, math.inf], requires_grad=True)
    y = f(x)
    y.backward(np.ones(2))
    assert not np.isnan(y.data).any()
    assert not np.isnan(x.grad).any()


softmaxes = pytest.mark.parametrize("f", [F.softmax, F.log_softmax], ids=lambda f: f.__name__)


@softmaxes
@given(shape_and_axes(1), seeds)
def test_derivatives_along_an_axis(f, shape_axis, seed):
    shape, axis = shape_axis
    (x,) = normal(seed, shape)
    for along in [axis] if isinstance(axis, int) else axis or [-1]:
        check_gradients(lambda x, a=along: f(x, a), x)


@given(seeds)
def test_softmax_is_its_definition(seed):
    (x,) = normal(seed, (3, 5))
    expected = [softmax_reference(row) for row in x]
    np.testing.assert_allclose(F.softmax(x).data, expected, rtol=1e-14)
    np.testing.assert_allclose(F.log_softmax(x).data, np.log(expected), rtol=1e-13)


@given(shape_and_axes(1), seeds)
def test_softmax_is_scipys(shape_axis, seed):
    shape, axis = shape_axis
    (x,) = normal(seed, shape)
    for along in [axis] if isinstance(axis, int) else axis or [-1]:
        expected = scipy.special.softmax(x * 50, axis=along)
        np.testing.assert_allclose(F.softmax(x * 50, along).data, expected, rtol=1e-12)
        expected = scipy.special.log_softmax(x * 50, axis=along)
        np.testing.assert_allclose(F.log_softmax(x * 50, along).data, expected, rtol=1e-12)


@softmaxes
def test_large_scores_do_not_overflow(f):
    x = np.array([[1e4, -1e4, 0.0]], np.float32)
    expected = np.array([[1.0, 0.0, 0.0]]) if f is F.softmax else np.array([[0, -2e4, -1e4]])
    np.testing.assert_array_equal(f(x).data, expected)


def test_a_score_of_minus_infinity_has_no_probability_and_no_gradient():
    x = tc.tensor([0.0, -math.inf, 0.0], requires_grad=True)
    np.testing.assert_array_equal(F.softmax(x).data, [0.5, 0, 0.5])
    np.testing.assert_array_equal(F.log_softmax(x).data[1], -math.inf)
    for f in (F.softmax, F.log_softmax):
        d = tc.grad(f(x), [x], np.array([1.0, 0.0, 0.0], np.float32))[0]
        assert np.isfinite(d).all()
        assert d[1] == 0
