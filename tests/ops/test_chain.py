"""Convolution with what follows it, in one operation: whichever way it is computed."""

from contextlib import contextmanager

import numpy as np
import pytest
from gradcheck import laid_out
from hypothesis import given, strategies as st
from references import avg_pool2d_reference, conv2d_reference, max_pool2d_reference
from strategies import Convolution, convolutions, normal, orders, pairs, seeds

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.functional.layers import conv2d_chain, linear_chain
from tinycompress.ops import activations, conv, pool, products
from tinycompress.ops.columns import WidthColumns
from tinycompress.ops.depthwise import Depthwise
from tinycompress.ops.geometry import first_to_arrive
from tinycompress.ops.steps import BIAS, Step, arranged
from tinycompress.ops.tap_rows import TapRows
from tinycompress.tensor import apply

RELU = Step("relu", activations.relu, monotone=True)
TANH = Step("tanh", activations.tanh, monotone=True)
SILU = Step("silu", activations.silu)
LEAKY = Step("leaky_relu", activations.leaky_relu, {"slope": 0.1}, monotone=True)
NO_PADDING = {"padding": (0, 0), "ceil_mode": False}


def largest_of(window):
    sizes = {"kernel": window, "stride": window, **NO_PADDING}
    return Step("max_pool2d", pool.max_pool2d, sizes, window=window)


def mean_of(window):
    sizes = {"kernel": window, "stride": window, **NO_PADDING, "count_include_pad": True}
    return Step("avg_pool2d", pool.avg_pool2d, sizes, window=window)


elementwise = st.lists(st.sampled_from([RELU, TANH, SILU, LEAKY]), max_size=2)


@st.composite
def chains(draw):
    """A convolution and steps that fit it: up to one window, of any size, anywhere in the chain."""
    c = draw(convolutions())
    sizes = zip(c.x[2:], c.w[2:], c.stride, c.padding, c.dilation, strict=True)
    most = [conv.output_size(*size) for size in sizes]
    window = tuple(min(v, n) for v, n in zip(draw(pairs(1, 3)), most, strict=True))
    windows = draw(st.sampled_from([[], [largest_of(window)], [mean_of(window)]]))
    return c, tuple(draw(elementwise) + windows + draw(elementwise))


def by_the_definition(x, w, b, c, steps):
    y = conv2d_reference(x, w, b, *c[2:])
    for step in steps:
        if step.op is pool.max_pool2d:
            y = max_pool2d_reference(y, step.window, step.window, (0, 0), False)[0]
        elif step.op is pool.avg_pool2d:
            y = avg_pool2d_reference(y, step.window, step.window, (0, 0), False, True)
        else:
            y = step.op(y, **step.params)[0]
    return y


def one_by_one(x, w, b, c, steps):
    """The same network, one operation after the other."""
    y = F.conv2d(x, w, b, **c.options())
    for step in steps:
        y = apply(step.op, y, **step.params)
    return y


def chained(x, w, b, c, steps):
    return conv2d_chain(x, w, b, c.stride, c.padding, c.dilation, c.groups, steps)


def gradients(f, arrays, c, steps, dtype=np.float64):
    leaves = [tc.tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves, c, steps)
    g = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    return y.data, tc.grad(y, leaves, g)


# ----------------------------------------------------------------------------- the chain as such


@given(chains(), orders, seeds)
def test_a_chain_is_its_definition(chain, order, seed):
    c, steps = chain
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    y = chained(laid_out(x, order), w, b, c, steps)
    expected = by_the_definition(x, w, b, c, steps)
    np.testing.assert_allclose(y.data, expected, rtol=1e-11, atol=1e-12)


@given(chains(), orders, seeds)
def test_a_chain_has_the_derivatives_of_its_parts(chain, order, seed):
    c, steps = chain
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    _, expected = gradients(one_by_one, (x, w, b), c, steps)
    _, found = gradients(chained, (laid_out(x, order), w, b), c, steps)
    for d, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(d, e, rtol=1e-9, atol=1e-10)


@given(chains(), seeds)
def test_single_precision_agrees_with_the_parts(chain, seed):
    c, steps = chain
    arrays = normal(seed, c.x, c.w, c.w[:1], dtype=np.float32)
    y, found = gradients(chained, arrays, c, steps, np.float32)
    expected_y, expected = gradients(one_by_one, arrays, c, steps, np.float32)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected_y, rtol=1e-4, atol=1e-4)
    for d, e in zip(found, expected, strict=True):
        assert d.dtype == np.float32
        np.testing.assert_allclose(d, e, rtol=1e-3, atol=1e-3 * max(1, np.abs(e).max()))


@given(chains(), seeds)
def test_what_nobody_differentiates_is_the_same_to_the_bit(chain, seed):
    c, steps = chain
    x, w, b = (tc.tensor(a, requires_grad=True) for a in normal(seed, c.x, c.w, c.w[:1]))
    recorded = chained(x, w, b, c, steps)
    with tc.no_grad():
        np.testing.assert_array_equal(chained(x, w, b, c, steps).data, recorded.data)
    assert recorded._node.name == "+".join(["conv2d", *(s.name for s in steps)])


@given(chains(), seeds)
def test_gradients_are_those_asked_for(chain, seed):
    c, steps = chain
    arrays = normal(seed, c.x, c.w, c.w[:1])
    _, all_three = gradients(chained, arrays, c, steps)
    for k in range(3):
        tensors = [tc.tensor(a, requires_grad=i == k) for i, a in enumerate(arrays)]
        y = chained(*tensors, c, steps)
        g = np.random.default_rng(1).normal(size=y.shape)
        np.testing.assert_array_equal(tc.grad(y, [tensors[k]], g)[0], all_three[k])


@given(elementwise, st.booleans(), seeds)
def test_linear_and_its_steps(steps, biased, seed):
    x, w, b = normal(seed, (2, 3, 4), (5, 4), (5,))
    leaves = [tc.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = linear_chain(*leaves[:2], leaves[2] if biased else None, tuple(steps))
    z = F.linear(*leaves[:2], leaves[2] if biased else None)
    for step in steps:
        z = apply(step.op, z, **step.params)
    np.testing.assert_allclose(y.data, z.data, rtol=1e-12)
    g = np.random.default_rng(1).normal(size=y.shape)
    for d, e in zip(tc.grad(y, leaves, g), tc.grad(z, leaves, g), strict=True):
        np.testing.assert_allclose(d, e, rtol=1e-10, atol=1e-12)


def names(steps):
    return [step.name for step in steps]


def test_bias_and_monotone_steps_change_places_with_a_maximum_and_no_others_do():
    window = largest_of((2, 2))
    early, _, late = arranged((RELU, window, TANH))
    assert (names(early), names(late)) == ([], ["bias", "relu", "tanh"])
    early, _, late = arranged((RELU, SILU, TANH, window))
    assert (names(early), names(late)) == (["bias", "relu", "silu"], ["tanh"])
    early, _, late = arranged((RELU, mean_of((2, 2))))
    assert (names(early), names(late)) == (["bias", "relu"], [])
    early, _, late = arranged((mean_of((2, 2)), RELU))
    assert (names(early), names(late)) == ([], ["bias", "relu"])
    assert arranged((RELU,)) == ((), None, (BIAS, RELU))


def test_a_window_must_fit_into_the_output(rng):
    x, w = rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"max_pool2d: a window of \(2, 4\) does not fit .*width"):
        conv2d_chain(x, w, None, 1, 0, 1, 1, (largest_of((2, 4)),))


def test_a_window_that_holds_no_number_gives_the_image_no_gradient(rng):
    x = rng.normal(size=(1, 1, 5, 5))
    x[0, 0, :3, :3] = np.nan
    w = rng.normal(size=(2, 1, 2, 2))
    c = Convolution(x.shape, w.shape, (1, 1), (0, 0), (1, 1), 1)
    for steps in ((largest_of((2, 2)),), (RELU, largest_of((2, 2)))):
        (y, found), (expected_y, expected) = (
            gradients(f, (x, w, np.zeros(2)), c, steps) for f in (chained, one_by_one)
        )
        np.testing.assert_array_equal(y, expected_y)
        assert np.isnan(y).any()
        for d, e in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(d, e, rtol=1e-12)


# ------------------------------------------------------------------------- the ways to compute it


@contextmanager
def forced(**settings):
    """The convolution made to go another way than its shape would have it go."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            for module in (conv, products):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


def can(path, c):
    if path is Depthwise:
        return c.w[1] == 1
    return path is WidthColumns or (c.groups == 1 and c.dilation[0] == 1)


@pytest.mark.parametrize("path", [WidthColumns, TapRows, Depthwise])
@given(chain=chains(), seed=seeds)
def test_every_way_gives_the_same(path, chain, seed):
    c, steps = chain
    if not can(path, c):
        c = Convolution(c.x, c.w, c.stride, c.padding, (1, c.dilation[1]), c.groups)
    if path is TapRows:
        c = c._replace(x=(c.x[0], c.w[1], *c.x[2:]), groups=1)
        if c.w[2] == 1:  # a kernel of one row is nothing for it
            c = c._replace(stride=(1, c.stride[1]))
    if path is Depthwise:
        c = c._replace(w=(c.w[0], 1, *c.w[2:]), x=(c.x[0], c.groups, *c.x[2:]))
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    _, expected = gradients(one_by_one, (x, w, b), c, steps)
    with forced(path_of=lambda g: path):
        y, found = gradients(chained, (x, w, b), c, steps)
    np.testing.assert_allclose(y, by_the_definition(x, w, b, c, steps), rtol=1e-11, atol=1e-12)
    for d, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(d, e, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "setting", [{"BLOCK_BYTES": 1}, {"FLOP_LIMIT": 1}, {"FLOP_LIMIT": 60, "FLATTEST": 1}]
)
@given(chain=chains(), seed=seeds)
def test_blocks_and_pieces_change_nothing(setting, chain, seed):
    c, steps = chain
    arrays = normal(seed, c.x, c.w, c.w[:1])
    expected_y, expected = gradients(chained, arrays, c, steps)
    with forced(**setting):
        y, found = gradients(chained, arrays, c, steps)
    np.testing.assert_allclose(y, expected_y, rtol=1e-11, atol=1e-12)
    for d, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(d, e, rtol=1e-10, atol=1e-10)


SHAPES = {
    "one channel": ((1, 8, 3, 3), 1, TapRows),
    "colours": ((3, 8, 5, 5), 1, TapRows),
    "not quite so few": ((8, 8, 3, 3), 1, TapRows),
    "many channels": ((16, 8, 3, 3), 1, WidthColumns),
    "one pixel": ((16, 8, 1, 1), 1, WidthColumns),
    "one row": ((1, 8, 1, 3), 1, WidthColumns),
    "depthwise": ((16, 16, 3, 3), 16, Depthwise),
    "depthwise, multiplied": ((4, 16, 3, 3), 4, Depthwise),
    "groups": ((16, 16, 3, 3), 4, WidthColumns),
}


@pytest.mark.parametrize(("sizes", "groups", "path"), SHAPES.values(), ids=SHAPES)
def test_the_way_follows_from_the_shape(sizes, groups, path):
    C, O, kh, kw = sizes
    x, w = (2, C, 20, 20), (O, C // groups, kh, kw)
    assert conv.path_of(conv.Geometry(x, w, (1, 1), (0, 0), (1, 1), groups)) is path


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 3)), max_size=4))
def test_writing_where_nobody_was_is_adding(strips):
    """What ``first_to_arrive`` says leads to the same sum as zeros and additions."""
    strips = [slice(a, a + n, step) for a, n, step in strips]
    writes, empty = first_to_arrive(strips, 8)
    found, expected = np.full(8, np.nan), np.zeros(8)
    found[empty] = 0
    for number, (strip, first) in enumerate(zip(strips, writes, strict=True), 1):
        found[strip] = number if first else found[strip] + number
        expected[strip] += number
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_bits_do_not_depend_on_where_an_array_begins(case, rng):
    """Not at a multiple of 64 bytes, not even at one of 8: the same numbers, the same bits."""
    (C, O, kh, kw), groups, _ = case
    shapes = (5, C, 14, 14), (O, C // groups, kh, kw), (O,)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    c = Convolution(*shapes[:2], (1, 1), (1, 1), (1, 1), groups)
    steps = (RELU, largest_of((2, 2)))
    expected_y, expected = gradients(chained, arrays, c, steps, np.float32)
    for offset in (1, 2, 3):
        moved = []
        for a in arrays:
            memory = np.empty(a.size + offset, np.float32)
            moved.append(memory[offset:].reshape(a.shape))
            moved[-1][...] = a
        leaves = [tc.Tensor(a, requires_grad=True) for a in moved]
        y = chained(*leaves, c, steps)
        g = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
        np.testing.assert_array_equal(y.data, expected_y)
        for d, e in zip(tc.grad(y, leaves, g), expected, strict=True):
            np.testing.assert_array_equal(d, e)
