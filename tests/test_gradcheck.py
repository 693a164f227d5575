"""The gradient check itself: it passes what is right and finds what is wrong."""

import numpy as np
import pytest
from gradcheck import NotSmoothError, check_gradients, laid_out, spaced

import tinycompress as tc
from tinycompress.tensor import apply

RIGHT = {
    "constant": lambda x: x * 0.0 + 3.0,
    "linear": lambda x: x * 3.0,
    "quintic": lambda x: x**5,
    "exponential": lambda x: (x * 3.0).exp(),
    "large values": lambda x: x + 1e6,
    "one number": lambda x: (x * x).sum(),
}


@pytest.mark.parametrize("f", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_right_derivatives_pass(f, size, rng):
    check_gradients(f, rng.normal(size=size))


def wrong(value, derivative):
    """An operation with this derivative, right or wrong."""

    def op(x):
        return value(x), (lambda g: g * derivative(x),)

    return lambda x: apply(op, x)


def one_place(x):
    mistake = np.ones_like(x)
    mistake.flat[x.size // 2] = 1.0001
    return mistake


WRONG = {
    "sign": wrong(lambda x: x**2, lambda x: -2 * x),
    "factor": wrong(np.exp, lambda x: np.exp(x) * 2),
    "forgotten": wrong(np.sin, lambda x: 0 * x),
    "a part in 100,000": wrong(np.exp, lambda x: np.exp(x) * (1 + 1e-5)),
    "one place of many by a part in 10,000": wrong(lambda x: 3 * x, lambda x: 3 * one_place(x)),
    "the wrong point": wrong(np.tanh, lambda x: 1 - np.tanh(x + 1e-4) ** 2),
}


@pytest.mark.parametrize("f", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("size", [1, 7, 100])
def test_wrong_derivatives_are_found(f, size, rng):
    with pytest.raises(AssertionError, match="the derivative is"):
        check_gradients(f, rng.normal(size=size))


def test_swapped_derivatives_are_found(rng):
    def op(a, b):
        return a * b, (lambda g: g * a, lambda g: g * b)

    with pytest.raises(AssertionError, match="the derivative is"):
        check_gradients(lambda a, b: apply(op, a, b), rng.normal(size=3), rng.normal(size=3))


def test_a_forgotten_path_is_found(rng):
    with pytest.raises(AssertionError, match="the derivative is"):
        check_gradients(lambda x: x * x.detach(), rng.normal(size=5))


def test_a_kink_is_no_proof_of_anything():
    with pytest.raises(NotSmoothError):
        check_gradients(abs, np.array([1.0, 5e-6]))


def test_a_function_that_changes_its_input_is_found():
    def op(x):
        x += 1
        return x.copy(), (lambda g: g,)

    with pytest.raises(AssertionError, match="changed its input"):
        check_gradients(lambda x: apply(op, x), np.ones(2))


def test_single_precision_gradients_are_found():
    def op(x):
        return x.astype(np.float32), (lambda g: g,)

    with pytest.raises(AssertionError):
        check_gradients(lambda x: apply(op, x), np.full(3, 0.1))


def test_spaced_values_are_apart(rng):
    for shape in [(), (1,), (2, 3), (40,)]:
        x = spaced(rng, *shape)
        assert x.shape == shape
        assert (np.abs(x) >= 0.0125 - 1e-12).all()
        assert (np.diff(np.sort(x.ravel())) >= 0.025 - 1e-12).all()


def test_laid_out_changes_memory_only(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    y = laid_out(x, (2, 0, 3, 1))
    np.testing.assert_array_equal(x, y)
    assert y.transpose(2, 0, 3, 1).flags.c_contiguous
    assert tc.tensor(y).data.strides == y.strides
