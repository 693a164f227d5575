"""Dropout: how much is dropped, what is kept, and that the mask is a function of its key."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import normal, seeds

import tinycompress as tc
from tinycompress import functional as F, random


@given(st.floats(0, 1), st.integers(0, 2**32 - 1), seeds)
def test_derivatives(p, key, seed):
    (x,) = normal(seed, (3, 4))
    if p <= 0.9 or p == 1:
        check_gradients(lambda x: F.dropout(x, p, key=key), x)


@given(st.sampled_from([0.1, 0.5, 0.75]), seeds)
def test_what_is_kept_is_scaled_and_the_rest_is_zero(p, key):
    x = tc.tensor(np.full(1000, 3.0), requires_grad=True)
    y = F.dropout(x, p, key=key)
    kept = y.data != 0
    np.testing.assert_allclose(y.data[kept], 3 / (1 - p), rtol=1e-15)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data / 3)


@pytest.mark.parametrize("p", [0.0, 0.02, 0.3, 0.5, 0.99, 1.0])
def test_a_fraction_p_is_dropped(p):
    n = 200_000
    dropped = (F.dropout(np.ones(n), p, key=7).data == 0).mean()
    deviation = np.sqrt(p * (1 - p) / n)
    assert abs(dropped - p) <= 5 * deviation


def test_a_value_whose_bits_are_exactly_p_is_kept():
    bits = random.hash_bits(9, 5, np.zeros(5))
    for i, fraction in enumerate(bits / 2**32):
        assert F.dropout(np.ones(5), float(fraction), key=9).data[i] != 0
        assert F.dropout(np.ones(5), float(fraction) + 2**-32, key=9).data[i] == 0


def test_almost_certain_is_not_out_of_range():
    assert not F.dropout(np.ones(100), 1 - 2**-40, key=1).data.any()


def test_the_mask_depends_on_the_key_and_on_nothing_else(rng):
    x, z = rng.normal(size=(2, 8, 16))
    masks = [F.dropout(a, 0.5, key=k).data != 0 for a in (x, z) for k in (1, 2)]
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[1], masks[3])
    assert (masks[0] != masks[1]).any()


def test_the_order_in_memory_does_not_matter():
    x = np.ones((4, 6))
    y = F.dropout(np.asfortranarray(x), 0.5, key=3)
    np.testing.assert_array_equal(y.data, F.dropout(x, 0.5, key=3).data)


def test_neighbours_and_keys_are_independent():
    """Runs, and the same place under the next key, are dropped as often as chance would have it."""
    masks = np.array([F.dropout(np.ones(5000), 0.5, key=k).data != 0 for k in range(20)])
    n, deviation = masks.size, 0.5 / np.sqrt(masks.size)
    assert abs((masks[:, 1:] == masks[:, :-1]).mean() - 0.5) < 5 * deviation
    assert abs((masks[1:] == masks[:-1]).mean() - 0.5) < 5 * deviation
    assert n == 100_000


def test_without_a_key_each_call_draws_a_fresh_one():
    random.manual_seed(5)
    first, second = (F.dropout(np.ones(64), 0.5).data for _ in range(2))
    assert (first != second).any()
    random.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(np.ones(64), 0.5).data, first)


def test_outside_training_nothing_happens(rng):
    x = tc.tensor(rng.normal(size=5))
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
