"""Matrix products: every combination of vector, matrix and stack, and the linear layer."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import broadcast_pairs, normal, seeds

import tinycompress as tc
from tinycompress import functional as F


@st.composite
def products(draw):
    """The shapes of two operands of ``@``."""
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    left, right = draw(broadcast_pairs())
    a = draw(st.sampled_from([(k,), (*left[-2:], m, k)]))
    b = draw(st.sampled_from([(k,), (*right[-2:], k, n)]))
    return a, b


@given(products(), seeds)
def test_derivatives_of_matmul(pair, seed):
    a, b = normal(seed, *pair)
    check_gradients(lambda a, b: a @ b, a, b)
    np.testing.assert_allclose(tc.matmul(a, b).data, a @ b, rtol=1e-14, atol=1e-14)


@given(st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.integers(1, 4), seeds)
def test_derivatives_of_linear(leading, biased, out, seed):
    x, w, b = normal(seed, (*leading, 5), (out, 5), (out,))
    check_gradients(F.linear, *([x, w, b] if biased else [x, w]))
    expected = np.einsum("...i,oi->...o", x, w) + (b if biased else 0)
    np.testing.assert_allclose(F.linear(x, w, b if biased else None).data, expected, rtol=1e-12)


def test_a_matrix_times_itself(rng):
    check_gradients(lambda a: a @ a, rng.normal(size=(3, 3)))
    check_gradients(lambda a: a @ a.T, rng.normal(size=(2, 3)))


@pytest.mark.parametrize(("m", "k", "n"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_products(m, k, n):
    a = tc.tensor(np.ones((m, k)), requires_grad=True)
    b = tc.tensor(np.ones((k, n)), requires_grad=True)
    y = a @ b
    assert y.shape == (m, n)
    assert not y.data.any()
    y.sum().backward()
    assert (a.grad.shape, b.grad.shape) == (a.shape, b.shape)


def test_an_empty_batch_through_a_layer():
    x = tc.tensor(np.ones((0, 3), np.float32), requires_grad=True)
    w = tc.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    b = tc.tensor(np.ones(2, np.float32), requires_grad=True)
    y = F.linear(x, w, b)
    assert y.shape == (0, 2)
    y.sum().backward()
    assert x.grad.shape == (0, 3)
    assert not w.grad.any()
    assert not b.grad.any()
