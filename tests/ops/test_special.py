"""The error function, against SciPy's and Python's."""

import math

import numpy as np
import scipy.special
from hypothesis import given, strategies as st

from tinycompress.ops.special import erf


@given(st.lists(st.floats(-8, 8), min_size=1))
def test_it_is_the_error_function(values):
    x = np.array(values)
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in values], rtol=4e-16, atol=0)


def test_on_a_fine_grid_across_the_seams():
    x = np.concatenate([np.linspace(-7, 7, 20001), [0.46875, 4.0, 6.0]])
    x = np.concatenate([x, np.nextafter(x, 10), -x])
    np.testing.assert_allclose(erf(x), scipy.special.erf(x), rtol=6e-16, atol=0)


def test_in_single_precision():
    x = np.linspace(-7, 7, 20001, dtype=np.float32)
    y = erf(x)
    assert y.dtype == np.float32
    expected = scipy.special.erf(x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(np.float32).eps)


def test_special_values():
    with np.errstate(all="ignore"):  # as tensor.apply does
        y = erf(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, 5e-324]))
    np.testing.assert_array_equal(y, [0.0, -0.0, 1, -1, np.nan, 1, 5e-324])
    assert np.signbit(y[1])
    assert not np.signbit(y[0])
