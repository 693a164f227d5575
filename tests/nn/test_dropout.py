"""Dropout: how much is dropped, which, and that a key decides it on every device."""

import math

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.random import key_stream

ONES = np.ones((200, 250), np.float32)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_p_is_dropped_and_the_mean_stays(p):
    y = nn.Dropout(p)(ONES).data
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - p))}
    n = y.size
    assert abs((y == 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / n)


def test_rows_columns_and_neighbours_are_independent():
    dropped = nn.Dropout(0.5)(ONES).data == 0
    for axis in (0, 1):
        share = dropped.mean(axis)
        assert abs(share - 0.5).max() < 6 * math.sqrt(0.25 / dropped.shape[axis])
        both = np.diff(dropped.astype(int), axis=axis) != 0
        assert abs(both.mean() - 0.5) < 5 * math.sqrt(0.25 / both.size)


def test_calls_differ_and_the_seed_repeats_them():
    def masks():
        tc.manual_seed(9)
        layer = nn.Dropout(0.5)
        return [layer(ONES).data for _ in range(3)]

    first, again = masks(), masks()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    share = [(first[i] == first[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert all(abs(s - 0.5) < 5 * math.sqrt(0.25 / ONES.size) for s in share)


def test_the_key_decides_the_mask_on_every_device(device):
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    for key in (0, 1, 2**32 - 1):
        y = F.dropout(to_device(x, device), 0.3, key=key)
        np.testing.assert_array_equal(to_numpy(y.data), F.dropout(x, 0.3, key=key).data)
    assert (F.dropout(x, 0.3, key=1).data != F.dropout(x, 0.3, key=2).data).any()


def test_the_layer_drops_the_same_on_every_device(device):
    tc.manual_seed(4)
    on_cpu = nn.Dropout(0.5)(ONES).data
    tc.manual_seed(4)
    np.testing.assert_array_equal(to_numpy(nn.Dropout(0.5)(to_device(ONES, device)).data), on_cpu)


def test_within_a_step_the_shard_decides_and_not_the_order():
    layer = nn.Dropout(0.5)

    def masks(order):
        result = {}
        for shard in order:
            with key_stream(77, shard):
                result[shard] = layer(ONES).data, layer(ONES).data
        return result

    forwards, backwards = masks((0, 1, 2)), masks((2, 1, 0))
    for shard in (0, 1, 2):
        for a, b in zip(forwards[shard], backwards[shard], strict=True):
            np.testing.assert_array_equal(a, b)
    assert (forwards[0][0] != forwards[1][0]).any()
    assert (forwards[0][0] != forwards[0][1]).any()


def test_the_memory_order_of_the_input_does_not_matter():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(F.dropout(x, key=3).data, F.dropout(turned, key=3).data)


def test_evaluation_is_the_identity_and_draws_nothing():
    before = tc.random.get_state()
    layer = nn.Dropout(0.5).eval()
    np.testing.assert_array_equal(layer(ONES).data, ONES)
    np.testing.assert_array_equal(nn.Dropout(0.0)(ONES).data, ONES)
    assert tc.random.get_state() == before


def test_gradients_pass_where_values_passed():
    x = tc.tensor(ONES, requires_grad=True)
    y = nn.Dropout(0.25)(x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)


def test_one_drops_everything():
    x = tc.tensor(ONES[:3], requires_grad=True)
    y = nn.Dropout(1.0)(x)
    y.sum().backward()
    assert not y.data.any()
    assert not x.grad.any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_is_a_probability(p):
    with pytest.raises(ValueError, match="Dropout: p must be between 0 and 1, got"):
        nn.Dropout(p)
