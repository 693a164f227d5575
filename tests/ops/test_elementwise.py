"""Arithmetic and elementwise functions: derivatives, kinks, special values."""

import numpy as np
import pytest
from gradcheck import check_gradients, spaced
from hypothesis import given, strategies as st
from strategies import broadcast_pairs, normal, seeds, shapes

import tinycompress as tc

ARITHMETIC = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (b * b + 0.5),
    "power": lambda a, b: (a * a + 0.5) ** b,
    "maximum": tc.maximum,
    "minimum": tc.minimum,
    "where": lambda a, b: tc.where(tc.Tensor(np.array(True)), a, b),
}
UNARY = {
    "negative": lambda x: -x,
    "exp": lambda x: x.exp(),
    "log": lambda x: (x * x + 0.5).log(),
    "sqrt": lambda x: (x * x + 0.5).sqrt(),
    "abs": abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp below": lambda x: x.clamp(min=0.0),
    "clamp above": lambda x: x.clamp(max=0.0),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "inverse": lambda x: (x * x + 0.5) ** -1,
    "fractional power": lambda x: (x * x + 0.5) ** 1.5,
    "power of a number": lambda x: 3.0**x,
    "number over": lambda x: 2.0 / (x * x + 0.5),
    "number minus": lambda x: 2.0 - x,
    "with itself": lambda x: x * x + x / (x * x + 1.0),
}


@pytest.mark.parametrize("f", ARITHMETIC.values(), ids=ARITHMETIC)
@given(broadcast_pairs(), seeds)
def test_derivatives_of_two_operands(f, pair, seed):
    rng = np.random.default_rng(seed)
    values = spaced(rng, sum(int(np.prod(s)) for s in pair))  # all different: no ties
    first = int(np.prod(pair[0]))
    check_gradients(f, values[:first].reshape(pair[0]), values[first:].reshape(pair[1]))


@pytest.mark.parametrize("f", UNARY.values(), ids=UNARY)
@given(shapes(), seeds)
def test_derivatives_of_one_operand(f, shape, seed):
    check_gradients(f, spaced(np.random.default_rng(seed), *shape))


@given(broadcast_pairs(), seeds, seeds)
def test_derivatives_of_where(pair, seed, other_seed):
    a, b = normal(seed, *pair)
    shape = np.broadcast_shapes(*pair)
    condition = np.random.default_rng(other_seed).random(shape) < 0.5
    check_gradients(lambda a, b: tc.where(condition, a, b), a, b)


@given(broadcast_pairs(), seeds)
def test_values_are_numpys(pair, seed):
    a, b = normal(seed, *pair)
    for symbol in ("__add__", "__sub__", "__mul__", "__truediv__", "__lt__", "__ge__", "__eq__"):
        y = getattr(tc.Tensor(a), symbol)(tc.Tensor(b))
        np.testing.assert_array_equal(y.data, getattr(a, symbol)(b))
    np.testing.assert_array_equal(tc.maximum(a, b).data, np.maximum(a, b))
    np.testing.assert_array_equal(tc.minimum(a, b).data, np.minimum(a, b))


def slope(f, x):
    """f's derivative at the number x."""
    leaf = tc.tensor(x, dtype=tc.float64, requires_grad=True)
    return tc.grad(f(leaf), [leaf])[0].item()


KINKS = {
    "abs at 0": (abs, 0.0, 0.0),
    "clamp at its lower end": (lambda x: x.clamp(-1, 1), -1.0, 1.0),
    "clamp at its upper end": (lambda x: x.clamp(-1, 1), 1.0, 1.0),
    "clamp just outside": (lambda x: x.clamp(-1, 1), np.nextafter(1, 2), 0.0),
    "maximum of equals": (lambda x: tc.maximum(x, 2.0), 2.0, 0.5),
    "minimum of equals": (lambda x: tc.minimum(x, 2.0), 2.0, 0.5),
    "maximum of equals, number first": (lambda x: tc.maximum(2.0, x), 2.0, 0.5),
    "maximum with itself": (lambda x: tc.maximum(x, x), 2.0, 1.0),
    "relu at 0": (lambda x: x.relu(), 0.0, 0.0),
    "sqrt at 0": (lambda x: x.sqrt(), 0.0, np.inf),
    "square at 0": (lambda x: x**2, 0.0, 0.0),
    "first power at 0": (lambda x: x**1, 0.0, 1.0),
    "zeroth power at 0": (lambda x: x**0, 0.0, 0.0),
    "zeroth power, floating": (lambda x: x**0.0, 3.0, 0.0),
    "root at 0 by power": (lambda x: x**0.5, 0.0, np.inf),
    "odd power of a negative": (lambda x: x**3, -2.0, 12.0),
    "negative power": (lambda x: x**-2, -2.0, 0.25),
    "0 to the x": (lambda x: 0**x, 2.0, 0.0),
    "0 to the 0": (lambda x: 0**x, 0.0, 0.0),
    "1 to the x": (lambda x: 1**x, 2.0, 0.0),
    "e to the x": (lambda x: np.e**x, 1.0, np.e),
}


@pytest.mark.parametrize(("f", "x", "expected"), KINKS.values(), ids=KINKS)
def test_derivatives_at_kinks_and_special_values(f, x, expected):
    assert slope(f, x) == pytest.approx(expected, rel=1e-15)


def test_tensor_exponents_at_special_values():
    a = tc.tensor([0.0, 0.0, 0.0, 2.0, -2.0], dtype=tc.float64, requires_grad=True)
    b = tc.tensor([0.0, 1.0, 2.0, 0.0, 3.0], dtype=tc.float64, requires_grad=True)
    d_a, d_b = tc.grad((a**b).sum(), [a, b])
    np.testing.assert_array_equal(d_a, [0, 1, 0, 0, 12])
    np.testing.assert_array_equal(d_b[:3], 0)
    assert d_b[3] == np.log(2)
    assert np.isnan(d_b[4]), "(-2)^b is no real function of b"


SELECTIONS = {
    "where": lambda x: tc.where(np.array([True, False]), x, 0.0),
    "where, the other side": lambda x: tc.where(np.array([False, True]), 0.0, x),
    "clamp": lambda x: x.clamp(min=0.0),
    "clamp above": lambda x: -((-x).clamp(max=0.0)),
}


@pytest.mark.parametrize("f", SELECTIONS.values(), ids=SELECTIONS)
def test_an_infinite_gradient_of_what_was_not_selected_is_no_nan(f):
    x = tc.tensor([1.0, -1.0], requires_grad=True)
    d = tc.grad(f(x), [x], np.array([1.0, np.inf], np.float32))[0]
    np.testing.assert_array_equal(d, [1, 0])


@given(st.sampled_from(["exp", "log", "sqrt"]), seeds)
def test_nothing_warns(name, seed):
    x = tc.Tensor(np.array([-np.inf, -1e3, -1.0, 0.0, 1.0, 1e3, np.inf, np.nan], np.float32))
    y = getattr(x, name)()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y.data, getattr(np, name)(x.data))
