"""The article's min–max formula, and why it is not the default."""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from quantize_cases import float_arrays, ordinary

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import (
    article_dequantize,
    article_quantize,
    article_zero,
    zero_preserving,
)

bits = st.integers(1, 16)


def test_it_is_the_formula(device):
    x = np.float32([-0.5, 0.0, 0.2, 0.9])
    q = article_quantize(to_device(x, device), 2)
    assert list(to_numpy(q.codes)) == [0, 1, 2, 3]  # 0, 1.07, 1.5 and 3 before rounding
    assert (q.minimum, q.maximum, q.bits) == (-0.5, float(np.float32(0.9)), 2)
    meaning = -0.5 + 1.4 / 3 * np.arange(4)
    np.testing.assert_allclose(to_numpy(article_dequantize(q)), meaning, rtol=1e-6)


@given(float_arrays(shape=9), bits)
def test_the_ends_are_the_first_and_the_last_code_and_come_back(device, x, b):
    assume(x.min() < x.max())
    q = article_quantize(to_device(x, device), b)
    codes, back = to_numpy(q.codes), to_numpy(article_dequantize(q))
    assert codes.dtype == (np.uint8 if b <= 8 else np.uint16)
    assert (codes.min(), codes.max()) == (0, 2**b - 1)
    np.testing.assert_array_equal(back[x == x.min()], x.min())
    span = float(x.max()) - float(x.min())
    np.testing.assert_allclose(back[x == x.max()], x.max(), rtol=1e-6, atol=1e-14 * span)


@given(float_arrays(shape=9, elements=ordinary), bits)
def test_the_error_is_at_most_half_a_step(x, b):
    assume(x.min() < x.max())
    q = article_quantize(x, b)
    step = (q.maximum - q.minimum) / (2**b - 1)
    error = np.abs(article_dequantize(q).astype(np.float64) - x)
    assert error.max() <= step / 2 * (1 + 1e-9) + 4 * 2.0**-24  # the result is float32


def test_zero_does_not_come_back_as_zero():
    x = np.float32([-0.5, 0.0, 0.0, 0.2, 0.9])
    assert article_zero(x, 2) == pytest.approx(-0.5 + 1.4 / 3)
    np.testing.assert_array_equal(
        article_dequantize(article_quantize(x, 2))[1:3], article_zero(x, 2)
    )
    assert article_zero(np.float32([0.1, 0.9]), 8) == pytest.approx(0.1)  # padding, say


@given(float_arrays(shape=9, elements=ordinary), st.integers(2, 16))
def test_by_the_default_it_does(device, x, b):
    x[3] = 0
    assert to_numpy(zero_preserving(to_device(x, device), b))[3] == 0


def test_what_the_default_costs():
    """Data of one sign: part of the codes goes to numbers that do not occur."""
    x = np.linspace(0.1, 0.9, 100).astype("f")
    error = lambda y: np.abs(y - x).max()  # noqa: E731
    assert error(article_dequantize(article_quantize(x, 4))) == pytest.approx(0.8 / 15 / 2, rel=0.1)
    assert error(zero_preserving(x, 4)) == pytest.approx(0.9 / 15 / 2, rel=0.1)


def test_it_divides_by_zero_where_all_numbers_are_equal():
    with pytest.raises(ValueError, match=r"every number is 2\.0"):
        article_quantize(np.full(3, 2, np.float32))
    with pytest.raises(ValueError, match="bits must be"):
        article_quantize(np.float32([0, 1]), 0)
    with pytest.raises(ValueError, match="holds NaN"):
        article_quantize(np.float32([0, np.nan]))
