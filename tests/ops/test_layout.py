"""Activations lie as (H, N, W, C) in memory from the first convolution to ``flatten``."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from strategies import normal, orders, seeds

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.ops.layout import to_hnwc, to_nchw


def lies_in_hnwc(x: np.ndarray) -> bool:
    return x.transpose(2, 0, 3, 1).flags.c_contiguous


@given(orders, st.tuples(st.integers(0, 2), st.integers(0, 2)), seeds)
def test_there_and_back(order, padding, seed):
    (x,) = normal(seed, (2, 3, 4, 5))
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    y = to_hnwc(x, padding, value=7.0)
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(to_nchw(y, padding), x)
    outside = np.ones(y.shape, bool)
    to_nchw(outside, padding)[...] = False
    assert (y[outside] == 7).all()


def test_nothing_is_copied_where_it_lies_right():
    y = np.zeros((4, 2, 5, 3))
    assert np.shares_memory(to_hnwc(to_nchw(y)), y)


STEPS = {
    "conv2d": lambda x: F.conv2d(x, np.ones((4, 4, 3, 3), np.float32), padding=1),
    "conv2d 1x1": lambda x: F.conv2d(x, np.ones((4, 4, 1, 1), np.float32)),
    "conv2d in groups": lambda x: F.conv2d(x, np.ones((4, 2, 3, 3), np.float32), groups=2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1, True),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "batch_norm": lambda x: F.batch_norm(x, training=True),
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": F.sigmoid,
    "residual sum": lambda x: x + F.relu(x),
    "scale": lambda x: x * 2.0,
    "scale by channel": lambda x: x * tc.tensor(np.ones((1, 4, 1, 1), np.float32)),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "clamp": lambda x: x.clamp(0, 6),
    "to float64": lambda x: x.to(tc.float64),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_step_keeps_the_order(step, rng):
    x = tc.Tensor(to_nchw(rng.normal(size=(8, 2, 8, 4)).astype(np.float32)))
    assert lies_in_hnwc(step(x).data)


def test_a_network_keeps_the_order_forward_and_backward(rng):
    """conv → relu → pool → conv: no step copies into another order, in either direction."""
    w1, w2 = (
        tc.tensor(rng.normal(size=s), requires_grad=True) for s in ((4, 1, 3, 3), (5, 4, 3, 3))
    )
    h0 = F.conv2d(rng.normal(size=(2, 1, 12, 12)), w1)
    h1 = F.relu(h0)
    h2 = F.max_pool2d(h1, 2)
    h3 = F.conv2d(h2, w2)
    assert all(lies_in_hnwc(h.data) for h in (h0, h1, h2, h3))
    gradients = tc.grad((h3 * h3).sum(), [h0, h1, h2])
    assert all(lies_in_hnwc(g) for g in gradients)


def test_flatten_gives_rows_in_channel_order(rng):
    x = to_nchw(rng.normal(size=(3, 2, 4, 5)))
    np.testing.assert_array_equal(
        tc.Tensor(x).flatten(1).data, np.ascontiguousarray(x).reshape(2, -1)
    )
