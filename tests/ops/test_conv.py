"""Convolution: its values are those of the definition, its derivatives those of differences."""

import numpy as np
import pytest
import scipy.signal
from gradcheck import check_gradients, laid_out
from hypothesis import given
from references import conv2d_reference
from strategies import convolutions, normal, orders, seeds

import tinycompress as tc
from tinycompress import functional as F

EXTREMES = {
    "1x1": ((2, 3, 4, 5), (2, 3, 1, 1), {}),
    "1x1, stride 2": ((2, 3, 5, 4), (2, 3, 1, 1), {"stride": 2}),
    "kernel as large as the image": ((2, 2, 3, 4), (3, 2, 3, 4), {}),
    "kernel larger than the image, padded": ((1, 2, 2, 2), (2, 2, 4, 3), {"padding": (1, 1)}),
    "one row": ((2, 2, 1, 6), (2, 2, 1, 3), {}),
    "one column": ((2, 2, 6, 1), (2, 2, 3, 1), {}),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "one image, one channel": ((1, 1, 5, 5), (1, 1, 3, 3), {}),
    "padding wider than the kernel": ((1, 1, 2, 2), (1, 1, 2, 2), {"padding": 3}),
    "stride larger than the kernel": ((1, 2, 7, 7), (1, 2, 2, 2), {"stride": 4}),
    "dilated past the middle": ((1, 1, 7, 7), (1, 1, 2, 2), {"dilation": 6}),
    "dilated past some rows": ((2, 2, 4, 4), (3, 2, 3, 3), {"padding": (2, 0), "dilation": (3, 1)}),
    "dilated past all rows": ((1, 1, 1, 5), (2, 1, 2, 3), {"padding": (1, 1), "dilation": (2, 1)}),
    "dilated past some rows, depthwise": (
        (1, 2, 4, 4),
        (2, 1, 3, 3),
        {"padding": (2, 0), "dilation": (3, 1), "groups": 2},
    ),
    "dilated past some outputs": (
        (1, 2, 2, 3),
        (2, 2, 5, 2),
        {"padding": (7, 0), "dilation": (3, 1)},
    ),
    "one channel per group": ((2, 4, 4, 4), (4, 1, 3, 3), {"groups": 4}),
    "two outputs per group": ((2, 3, 4, 4), (6, 1, 2, 2), {"groups": 3, "padding": 1}),
    "different in both directions": (
        (2, 2, 9, 6),
        (2, 2, 3, 2),
        {"stride": (1, 2), "padding": (2, 0), "dilation": (3, 1)},
    ),
}
each_extreme = pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES)


def both(size):
    return size if isinstance(size, tuple) else (size, size)


@given(convolutions(), orders, seeds)
def test_values_are_those_of_the_definition(c, order, seed):
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    y = F.conv2d(laid_out(x, order), w, b, **c.options())
    np.testing.assert_allclose(y.data, conv2d_reference(x, w, b, *c[2:]), rtol=1e-12, atol=1e-12)


@given(convolutions(), orders, seeds)
def test_derivatives(c, order, seed):
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    check_gradients(lambda *p: F.conv2d(*p, **c.options()), laid_out(x, order), w, b)


@each_extreme
def test_extreme_shapes(case, rng):
    x, w = (rng.normal(size=shape) for shape in case[:2])
    sizes = {name: both(size) for name, size in case[2].items() if name != "groups"}
    expected = conv2d_reference(x, w, **sizes, groups=case[2].get("groups", 1))
    np.testing.assert_allclose(F.conv2d(x, w, **case[2]).data, expected, rtol=1e-12, atol=1e-12)
    check_gradients(lambda x, w: F.conv2d(x, w, **case[2]), x, w)


@given(convolutions(), seeds)
def test_backward_is_the_transpose_of_forward(c, seed):
    """⟨conv(x), g⟩ = ⟨x, convᵀ(g)⟩ for both of its linear arguments: to rounding, not to h²."""
    x, w = normal(seed, c.x, c.w)
    x, w = tc.tensor(x, requires_grad=True), tc.tensor(w, requires_grad=True)
    y = F.conv2d(x, w, **c.options())
    g = np.random.default_rng(seed).normal(size=y.shape)
    for leaf, d in zip((x, w), tc.grad(y, [x, w], g), strict=True):
        assert (leaf.data * d).sum() == pytest.approx((y.data * g).sum(), rel=1e-10, abs=1e-10)


def test_it_is_scipys_correlation(rng):
    x, w = rng.normal(size=(9, 8)), rng.normal(size=(3, 4))
    y = F.conv2d(x[None, None], w[None, None])
    expected = scipy.signal.correlate2d(x, w, mode="valid")
    np.testing.assert_allclose(y.data[0, 0], expected, rtol=1e-12, atol=1e-12)


def test_groups_are_separate_convolutions(rng):
    x, w = rng.normal(size=(2, 6, 5, 5)), rng.normal(size=(4, 3, 3, 3))
    halves = [F.conv2d(x[:, i * 3 : i * 3 + 3], w[i * 2 : i * 2 + 2]) for i in (0, 1)]
    np.testing.assert_allclose(F.conv2d(x, w, groups=2).data, tc.cat(halves, 1).data, rtol=1e-12)


def test_a_moved_image_gives_a_moved_output(rng):
    x, w = rng.normal(size=(1, 2, 8, 8)), rng.normal(size=(3, 2, 3, 3))
    moved = F.conv2d(x[:, :, 1:, 2:], w)
    np.testing.assert_allclose(moved.data, F.conv2d(x, w).data[:, :, 1:, 2:], rtol=1e-12)


def test_an_empty_batch_stays_empty(device):
    x = tc.tensor(np.zeros((0, 3, 5, 5), np.float32), device=device, requires_grad=True)
    w = tc.tensor(np.ones((4, 3, 3, 3), np.float32), device=device, requires_grad=True)
    b = tc.tensor(np.ones(4, np.float32), device=device, requires_grad=True)
    y = F.conv2d(x, w, b)
    assert y.shape == (0, 4, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape
    for leaf in (w, b):
        assert not tc.Tensor(leaf.grad).numpy().any()


@given(convolutions(), seeds)
def test_single_precision_errs_by_roundings_only(c, seed):
    x, w, b = normal(seed, c.x, c.w, c.w[:1], dtype=np.float32)
    y = F.conv2d(x, w, b, **c.options())
    assert y.dtype == np.float32
    wide = [a.astype(np.float64) for a in (x, w, b)]
    summands = F.conv2d(*map(np.abs, wide), **c.options()).data
    terms = w[0].size + 1
    error = np.abs(y.data - F.conv2d(*wide, **c.options()).data)
    assert (error <= terms * np.finfo(np.float32).eps * summands).all()
