"""Sums, concatenations, pools and means of codes: exact, and rounded once."""

from fractions import Fraction

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import broadcast_pairs, poolings
from test_integer_layers import activation_grids, some_codes

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import IntegerRange
from tinycompress.compress.quantize.fixed_point import common_multipliers
from tinycompress.compress.quantize.integer import (
    IntegerAdaptiveAvgPool2d,
    IntegerAdd,
    IntegerAvgPool2d,
    IntegerConcat,
    IntegerFlatten,
    IntegerIdentity,
    IntegerMaxPool2d,
    IntegerReLU,
    OnFloats,
)
from tinycompress.compress.quantize.means import rounded_adaptive_avg_pool2d, rounded_avg_pool2d
from tinycompress.compress.quantize.qtensor import Grid, QTensor

U8 = IntegerRange(8, signed=False)
seeds = st.integers(0, 2**31)


def rounded_to(grid, exactly, low=None):
    """The code of an exact number of steps."""
    code = (exactly + Fraction(1, 2)).__floor__() + grid.zero_point
    return min(max(code, grid.target.qmin if low is None else low), grid.target.qmax)


@given(
    broadcast_pairs(), st.lists(activation_grids(), min_size=3, max_size=3), st.booleans(), seeds
)
def test_a_sum_is_rounded_once(device, shapes, grids, relu, seed):
    rng, (a_grid, b_grid, y_grid) = np.random.default_rng(seed), grids
    (a, qa), (b, qb) = (
        some_codes(rng, shape, grid, device)
        for shape, grid in zip(shapes, (a_grid, b_grid), strict=True)
    )
    y = to_numpy(IntegerAdd.on(y_grid, relu=relu).to(device)(qa, qb).codes)
    (ma, mb), shift = common_multipliers([g.scale / y_grid.scale for g in (a_grid, b_grid)])
    a, b = np.broadcast_arrays(a.astype(int) - a_grid.zero_point, b.astype(int) - b_grid.zero_point)
    assert (y.shape, y.dtype) == (a.shape, y_grid.target.dtype)
    for index in np.ndindex(a.shape):
        exactly = Fraction(ma * int(a[index]) + mb * int(b[index]), 2**shift)
        assert y[index] == rounded_to(y_grid, exactly, y_grid.zero_point if relu else None)


def test_rounding_each_operand_first_would_be_a_step_off():
    a = b = QTensor(np.array([1], np.uint8), 0.45, 0, U8)
    grid = Grid(1.0, 0, U8)
    assert IntegerAdd.on(grid)(a, b).codes.tolist() == [1]  # 0.9; 0.45 alone is 0, twice
    c = QTensor(np.array([1], np.uint8), 0.5, 0, U8)
    assert IntegerAdd.on(grid)(c, c).codes.tolist() == [1]  # 1.0; halves alone are 1 each: 2


def test_a_sum_is_that_of_the_numbers_to_half_a_step():
    rng = np.random.default_rng(0)
    grids = Grid(0.031, 7, U8), Grid(0.0021, 200, U8), Grid(0.04, 60, U8)
    (_, a), (_, b) = (some_codes(rng, (2, 3, 4, 4), grid) for grid in grids[:2])
    y = IntegerAdd.on(grids[2])(a, b)
    want = (a.dequantize() + b.dequantize()).data
    low, high = (0.04 * n for n in grids[2].steps)
    assert np.abs(y.dequantize().data - want.clip(low, high)).max() <= 0.02 * 1.001


@given(st.lists(activation_grids(), min_size=1, max_size=3), activation_grids(), seeds)
def test_a_concatenation_moves_each_part_to_the_grid(device, grids, y_grid, seed):
    rng = np.random.default_rng(seed)
    parts = [some_codes(rng, (2, k + 1, 3), grid, device) for k, grid in enumerate(grids)]
    concat = IntegerConcat.on(1, y_grid).to(device)
    y = to_numpy(concat(*(q for _, q in parts)).codes)
    start = 0
    for (codes, _), grid in zip(parts, grids, strict=True):
        (m,), shift = common_multipliers([grid.scale / y_grid.scale])
        for index in np.ndindex(codes.shape):
            exactly = Fraction(m * (int(codes[index]) - grid.zero_point), 2**shift)
            assert y[index[0], start + index[1], index[2]] == rounded_to(y_grid, exactly)
        start += codes.shape[1]
    assert y.shape == (2, start, 3)


@given(activation_grids(), seeds)
def test_codes_that_are_on_the_grid_stay(grid, seed):
    codes, q = some_codes(np.random.default_rng(seed), (2, 3), grid)
    y = IntegerConcat.on(-1, grid)(q, q)
    np.testing.assert_array_equal(y.codes, np.concatenate([codes, codes], axis=1))
    twice = IntegerAdd.on(Grid(2 * grid.scale, grid.zero_point, grid.target))(q, q)
    np.testing.assert_array_equal(twice.codes, codes)


def test_without_an_output_grid_they_give_floats_and_floats_get_a_grid(device):
    a, b = (QTensor(to_device(np.array([[1, 5]], np.uint8), device), s, 2, U8) for s in (0.5, 0.25))
    np.testing.assert_array_equal(IntegerAdd()(a, b).numpy(), [[-0.75, 2.25]])
    np.testing.assert_array_equal(IntegerAdd(relu=True)(a, b).numpy(), [[0, 2.25]])
    np.testing.assert_array_equal(IntegerConcat()(a, b).numpy(), [[-0.5, 1.5, -0.25, 0.75]])
    x = tc.tensor([[0.26, 9.0]], device=device)
    add = IntegerAdd.on(Grid(0.5, 0, U8), input=Grid(0.01, 0, U8)).to(device)
    np.testing.assert_array_equal(to_numpy(add(x, b).codes), [[0, 7]])  # 0.26 − 0.25; 2.55 + 0.75
    with pytest.raises(TypeError, match="IntegerAdd takes codes"):
        IntegerAdd()(a, x)
    with pytest.raises(ValueError, match=r"add: shapes \(1, 2\) and \(3,\) do not broadcast"):
        IntegerAdd.on(Grid(1.0, 0, U8))(a, QTensor(np.zeros(3, np.uint8), 1.0, 0, U8))


# ------------------------------------------------------------------------------------- passing


def mean_by_fractions(x, counted, rows, columns):
    """Round half to even of an exact mean."""
    window = x[max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop]
    return round(Fraction(int(window.sum()), counted))


@given(poolings(), st.booleans(), activation_grids(), seeds)
def test_a_mean_is_exact_and_ties_go_to_even(device, shape, include_pad, grid, seed):
    codes, q = some_codes(np.random.default_rng(seed), shape.x, grid, device)
    layer = IntegerAvgPool2d(
        shape.kernel, shape.stride, shape.padding, shape.ceil_mode, include_pad
    )
    y = layer(q)
    assert y.grid == grid
    got = to_numpy(y.codes).astype(int) - grid.zero_point
    steps, (kh, kw), (H, W) = codes.astype(int) - grid.zero_point, shape.kernel, shape.x[2:]
    (sh, sw), (ph, pw) = shape.stride, shape.padding
    for n, c, p, r in np.ndindex(got.shape):
        rows = slice(p * sh - ph, min(p * sh - ph + kh, H + ph))
        columns = slice(r * sw - pw, min(r * sw - pw + kw, W + pw))
        whole = (rows.stop - rows.start) * (columns.stop - columns.start)
        inside = (min(rows.stop, H) - max(rows.start, 0)) * (
            min(columns.stop, W) - max(columns.start, 0)
        )
        counted = whole if include_pad else inside
        assert got[n, c, p, r] == mean_by_fractions(steps[n, c], counted, rows, columns)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 9), st.integers(1, 9),
       activation_grids(), seeds)  # fmt: skip
def test_an_adaptive_mean_is_exact(device, size, oh, ow, grid, seed):
    codes, q = some_codes(np.random.default_rng(seed), (2, 1, *size), grid, device)
    y = to_numpy(IntegerAdaptiveAvgPool2d((oh, ow))(q).codes).astype(int) - grid.zero_point
    steps = codes.astype(int) - grid.zero_point
    for n, _, p, r in np.ndindex(y.shape):
        rows = slice(p * size[0] // oh, -(-(p + 1) * size[0] // oh))
        columns = slice(r * size[1] // ow, -(-(r + 1) * size[1] // ow))
        count = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert y[n, 0, p, r] == mean_by_fractions(steps[n, 0], count, rows, columns)


def test_a_mean_of_floats_would_decide_ties_otherwise():
    """Multiplying by 1/count, as floats do, is not dividing by it."""
    sums = np.arange(1, 2000, 2, dtype=np.float32)
    wrong = [
        count for count in range(2, 50, 2)
        if (np.rint(sums * np.float32(1 / count)) != np.rint(sums.astype(float) / count)).any()
    ]  # fmt: skip
    assert wrong
    count = wrong[0]
    x = np.zeros((len(sums), 1, 1, count), np.float32)
    x[:, 0, 0, 0] = sums
    got = rounded_avg_pool2d(x, (1, count), (1, 1), (0, 0), False, True)[0].ravel()
    assert got.tolist() == [round(Fraction(int(s), count)) for s in sums]


def test_the_derivative_of_a_mean_goes_straight_through():
    rng = np.random.default_rng(0)
    x, g = rng.integers(0, 99, (2, 3, 6, 5)).astype(float), rng.normal(size=(2, 3, 3, 2))
    for rounded, plain in [
        (
            rounded_avg_pool2d(x, (2, 3), (2, 2), (0, 0), False, True),
            lambda x: F.avg_pool2d(x, (2, 3), (2, 2)),
        ),
        (rounded_adaptive_avg_pool2d(x, (3, 2)), lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    ]:
        check_gradients(plain, x)
        leaf = tc.tensor(x, requires_grad=True)
        plain(leaf).backward(tc.tensor(g))
        np.testing.assert_array_equal(rounded[1][0](g), leaf.grad)


@given(poolings(), activation_grids(), seeds)
def test_a_maximum_of_codes_is_the_code_of_the_maximum(device, shape, grid, seed):
    codes, q = some_codes(np.random.default_rng(seed), shape.x, grid, device)
    sizes = shape.kernel, shape.stride, shape.padding, shape.ceil_mode
    y = IntegerMaxPool2d(*sizes)(q)
    want = F.max_pool2d(codes.astype(np.float32), *sizes)
    np.testing.assert_array_equal(to_numpy(y.codes), want.data)
    assert y.grid == grid


@given(activation_grids(), seeds)
def test_layers_that_hand_codes_on(grid, seed):
    codes, q = some_codes(np.random.default_rng(seed), (2, 3, 2, 2), grid)
    for layer, expected in [
        (IntegerReLU(), np.maximum(codes, grid.zero_point)),
        (IntegerIdentity(), codes),
        (IntegerFlatten(), codes.reshape(2, 12)),
        (IntegerFlatten(2, 3), codes.reshape(2, 3, 4)),
    ]:
        y = layer(q)
        np.testing.assert_array_equal(y.codes, expected)
        assert (y.grid, y.codes.dtype) == (grid, grid.target.dtype)


LAYERS = [
    (IntegerReLU, nn.ReLU, ()),
    (IntegerIdentity, nn.Identity, ()),
    (IntegerFlatten, nn.Flatten, ()),
    (IntegerMaxPool2d, nn.MaxPool2d, (2,)),
    (IntegerAvgPool2d, nn.AvgPool2d, (2,)),
    (IntegerAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, (1,)),
]


@pytest.mark.parametrize(("kind", "plain", "arguments"), LAYERS)
def test_floats_pass_as_through_the_float_layer(kind, plain, arguments):
    x = tc.tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype("f"))
    np.testing.assert_array_equal(kind(*arguments)(x).data, plain(*arguments)(x).data)
    assert kind(*arguments).config() == plain(*arguments).config()


@pytest.mark.parametrize("kind", [IntegerAvgPool2d, IntegerAdaptiveAvgPool2d, IntegerMaxPool2d])
def test_what_is_no_image_is_refused(kind):
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\) with pixels, got shape \(2, 3\)"):
        kind(2)(QTensor(np.zeros((2, 3), np.uint8), 1.0, 0, U8))
    if kind is not IntegerAdaptiveAvgPool2d:
        with pytest.raises(ValueError, match="does not fit"):
            kind(4)(QTensor(np.zeros((1, 1, 3, 3), np.uint8), 1.0, 0, U8))


def test_a_layer_that_is_not_known_gets_floats():
    _, q = some_codes(np.random.default_rng(0), (2, 3), Grid(0.1, 5, U8))
    y = OnFloats(nn.Sigmoid())(q)
    np.testing.assert_array_equal(y.data, F.sigmoid(q.dequantize()).data)
    both = OnFloats(nn.Add())(q, tc.tensor(np.ones(3, np.float32)))
    np.testing.assert_array_equal(both.data, q.dequantize().data + 1)
    assert "Sigmoid" in repr(OnFloats(nn.Sigmoid()))
