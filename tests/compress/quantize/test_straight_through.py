"""Rounding to steps: its values, and the derivative that training sees, by finite differences."""

import numpy as np
import pytest
from gradcheck import check_gradients, spaced
from hypothesis import given, strategies as st
from quantize_cases import cases, float_arrays, ordinary

import tinycompress as tc
from tinycompress.backend import device_of, on_device, to_device, to_numpy
from tinycompress.compress.quantize import fixed_point
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.compress.quantize.straight_through import (
    binary_steps,
    dequantize_steps,
    dequantized,
    learned_scale,
    multiplied,
    quantize_steps,
    requantized,
    summed,
)
from tinycompress.ops import conv, linear
from tinycompress.tensor import apply

TARGETS = [IntegerRange(2, narrow=True), IntegerRange(4), IntegerRange(8, signed=False)]


def ones_by(op, x, *rest, device="cpu", **params):
    """The gradient of the sum of what ``op`` gives, by ``x``."""
    t = tc.tensor(x, device=device, requires_grad=True)
    with on_device(t.data):
        y = apply(op, t, *(to_device(r, device) for r in rest), **params)
    y.backward(to_device(np.ones(y.shape, y.dtype), device))
    return to_numpy(t.grad)


# -------------------------------------------------------------------------------- floats and steps


@given(cases())
def test_steps_are_codes_minus_zero_point(device, case):
    case = case.with_(device=device)
    scale, zero_point = case.qparams()
    axis, group = case.block
    x = tc.Tensor(case.put(case.x))
    steps = apply(
        quantize_steps, x, scale, zero_point=zero_point, target=case.target, axis=axis, group=group
    )
    values = apply(dequantize_steps, steps, scale, axis=axis, group=group)
    limit = np.finfo(values.dtype).max
    np.testing.assert_array_equal(
        to_numpy(values.data).clip(-limit, limit), case.values(case.codes())
    )


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("zero_point", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_derivative_is_one_over_the_scale_up_to_both_ends(device, target, zero_point, scale):
    low, high = target.qmin - zero_point, target.qmax - zero_point
    inside = [low, high, np.nextafter(low - 0.5, low), np.nextafter(high + 0.5, high)]
    inside += [(e + low + high) / 2 for e in (low, high)]
    outside = [low - 1, high + 1, np.nextafter(low - 0.5, -1e9), np.nextafter(high + 0.5, 1e9)]
    outside += [-1e30, 1e30, -np.inf, np.inf]
    for numbers, expected in ((inside, 1 / scale), (outside, 0)):
        found = ones_by(
            quantize_steps,
            np.array(numbers) * scale,
            np.array([scale]),
            zero_point=zero_point,
            target=target,
            device=device,
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("end", [-1, 1])
def test_a_tie_at_an_end_counts_by_what_it_rounds_to(end):
    """2.5 rounds to 2 and 3.5 to 4: with qmax = 2 the first is inside, with qmax = 3 no tie is."""
    even, odd = IntegerRange(2, narrow=False), IntegerRange(3, narrow=True)  # −2 … 1, −3 … 3
    scale = np.ones(1)

    def at(x, target):
        return ones_by(quantize_steps, np.array([x]), scale, zero_point=0, target=target)

    assert at(-2.5, even) == 1
    assert at(end * 3.5, odd) == 0


def test_the_step_learns_as_lsq_says(rng):
    """Equation 3 of the paper: −v/s + rint(v/s) inside, −Q_N and Q_P outside."""
    s, target = 0.3, IntegerRange(3)
    x = rng.normal(size=200)
    scale = tc.tensor(np.array([s]), requires_grad=True)
    steps = apply(quantize_steps, tc.Tensor(x), scale, zero_point=0, target=target)
    g = rng.normal(size=200)
    apply(dequantize_steps, steps, scale).backward(g)
    v = x / s
    by_paper = np.where(v <= -4, -4, np.where(v >= 3, 3, np.rint(v) - v))
    by_paper = np.where((v < -4) & (np.rint(v) == -4), np.rint(v) - v, by_paper)  # ends included
    by_paper = np.where((v > 3) & (np.rint(v) == 3), np.rint(v) - v, by_paper)
    np.testing.assert_allclose(scale.grad, (g * by_paper).sum(), rtol=1e-10)


def test_where_nothing_is_rounded_the_chain_is_exact(rng):
    """On whole steps x̂ = x, and moving the scale alone moves nothing: inside, n − x/s = 0."""
    scale = tc.tensor(np.array([0.5]), requires_grad=True)
    x = tc.tensor(np.arange(-3.0, 4) / 2, requires_grad=True)
    steps = apply(quantize_steps, x, scale, zero_point=0, target=IntegerRange(4))
    apply(dequantize_steps, steps, scale).backward(np.ones(7))
    np.testing.assert_array_equal(scale.grad, 0)
    np.testing.assert_array_equal(x.grad, 1)


def test_beyond_the_ends_the_value_follows_the_scale():
    """There is no rounding: finite differences say the same."""
    x = np.array([-10.0, 7.0, 12.0])
    check_gradients(
        lambda s: apply(
            dequantize_steps,
            apply(quantize_steps, tc.Tensor(x), s, zero_point=0, target=IntegerRange(3)),
            s,
        ),
        np.array([0.5]),
    )


@given(float_arrays(shape=(3, 4), elements=ordinary), st.sampled_from([None, 0]))
def test_one_bit_is_a_sign_and_passes_where_the_weight_is_within_one(x, axis):
    scale = np.full(1 if axis is None else 3, 0.25, np.float32)
    steps = apply(binary_steps, tc.Tensor(x), scale, axis=axis)
    np.testing.assert_array_equal(steps.data, np.where(x >= 0, 1, -1))
    found = ones_by(binary_steps, x, scale, axis=axis)
    np.testing.assert_array_equal(found, np.where(np.abs(x) <= 1, 4, 0))


def test_a_learned_scale_is_positive_and_a_float32_number():
    step = tc.tensor(np.array([0.1, -0.1, 1e-9]), requires_grad=True)
    scale = apply(learned_scale, step, floor=1e-3, gradient_scale=0.5)
    np.testing.assert_array_equal(scale.data, np.float32([0.1, 0.1, 1e-3]))
    assert scale.dtype == np.float64
    scale.backward(np.ones(3))
    np.testing.assert_array_equal(step.grad, [0.5, -0.5, 0])


# ------------------------------------------------------------------------------- products of steps


def a_layer(rng, kind, bits=4, per_channel=True):
    """Steps and scales of a small layer, in float64."""
    high = (1 << (bits - 1)) - 1
    if kind == "linear":
        x, w, op, options = (5, 7), (3, 7), linear.linear, {}
    else:
        x, w, op = (2, 3, 5, 5), (4, 3, 3, 3), conv.conv2d
        options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    x, w = (rng.integers(-high, high + 1, shape).astype(float) for shape in (x, w))
    s_w = rng.uniform(0.01, 0.02, len(w) if per_channel else 1).astype(np.float32).astype(float)
    b = rng.normal(size=len(w)) * 0.1
    return x, w, b, np.array([0.25]), s_w, op, options


def bias_steps(b, unit):
    return np.rint(b / unit)


def run_requantized(x, w, b, s_x, s_w, s_y, op, options, zero_point, target, low=None):
    """The operation with every input a tensor."""
    unit = s_x.data * s_w.data
    largest = tuple(int(np.abs(t.data).max()) for t in (x, w))
    product = multiplied(x.data, w.data, bias_steps(b.data, unit), largest, op, options)
    return apply(
        requantized,
        *(x, w, b, s_x, s_w, s_y),
        product=product,
        factors=unit / s_y.data,
        low=(target.qmin if low is None else low) - zero_point,
        high=target.qmax - zero_point,
    )


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("relu", [False, True])
def test_requantized_steps_are_those_of_fixed_point_arithmetic(rng, kind, bits, relu):
    """An independent way: the product in int64, then fixed_point.requantize."""
    target = IntegerRange(min(bits, 8), signed=False)
    zero_point = 1
    x, w, b, s_x, s_w, op, options = a_layer(rng, kind, bits)
    s_y = np.array([0.05])
    low = zero_point if relu else None
    y = run_requantized(
        *map(tc.Tensor, (x, w, b, s_x, s_w, s_y)), op, options, zero_point, target, low
    )
    exact = op(x, w, None, **options)[0]
    column = (-1, 1, 1) if kind == "conv2d" else (-1,)
    acc = exact.astype(np.int64) + np.rint(b / (s_x * s_w)).astype(np.int64).reshape(column)
    m, shift = (a.reshape(column) for a in fixed_point.multiplier(s_x * s_w / s_y))
    codes = fixed_point.requantize(acc, m, shift, zero_point, target, low)
    np.testing.assert_array_equal(y.data, codes.astype(int) - zero_point)


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_its_derivative_is_that_of_the_real_number_inside(rng, kind, per_channel):
    """Wide codes, so that none is clipped, and the smooth function ``(s_x s_w (x∘w) + b)/s_y``."""
    x, w, b, s_x, s_w, op, options = a_layer(rng, kind, per_channel=per_channel)
    s_y, g = np.array([0.05]), None
    leaves = [tc.tensor(a, requires_grad=True) for a in (x, w, b, s_x, s_w, s_y)]
    y = run_requantized(*leaves, op, options, 0, IntegerRange(16))
    g = rng.normal(size=y.shape)
    found = tc.grad(y, leaves, g)
    smooth = [tc.tensor(a, requires_grad=True) for a in (x, w, b, s_x, s_w, s_y)]
    column = (-1, 1, 1) if kind == "conv2d" else (-1,)
    products = apply(op, smooth[0], smooth[1], None, **options)
    real = (
        products * (smooth[3] * smooth[4]).reshape(column) + smooth[2].reshape(column)
    ) / smooth[5]
    expected = tc.grad(real, smooth, g)
    for name, a, e in zip(["x", "w", "b", "s_x", "s_w"], found, expected, strict=False):
        np.testing.assert_allclose(a, e, rtol=1e-9, err_msg=name)
    # by s_y the bias counts as the whole number that it was rounded to
    np.testing.assert_allclose(found[5], expected[5], rtol=1e-2)


@pytest.mark.parametrize("low", [None, 0])
def test_clipped_outputs_pass_nothing_and_the_ends_pass(low):
    """s_x = s_w = s_y = 1, so the accumulator is the code: 7 and −8 are ends, 8 and −9 beyond."""
    target = IntegerRange(4)
    x = np.array([[-9.0], [-8], [-1], [0], [3], [7], [8]])
    leaves = [tc.tensor(a, requires_grad=True) for a in (x, np.ones((1, 1)), np.zeros(1))]
    one = tc.Tensor(np.ones(1))
    y = run_requantized(*leaves, one, one, one, linear.linear, {}, 0, target, low)
    y.backward(np.ones((7, 1)))
    lowest = -8 if low is None else 0
    np.testing.assert_array_equal(y.data[:, 0], np.clip(x[:, 0], lowest, 7))
    np.testing.assert_array_equal(leaves[0].grad, (lowest <= x) & (x <= 7))


def test_sums_beyond_float32_are_exact():
    """2²⁴ + 1 is no float32 number."""
    x, w = np.float32([[4096, 1]]), np.float32([[4096, 1]])
    product = multiplied(x, w, np.zeros(1), (4096, 4096), linear.linear, {})
    assert product.sums.dtype == np.float64
    assert product.sums[0, 0] == 2**24 + 1
    small = multiplied(x, w / 4096, np.zeros(1), (4096, 4096), linear.linear, {})
    assert small.sums.dtype == np.float32


def test_floats_out_are_the_accumulators_in_real_numbers(rng):
    x, w, b, s_x, s_w, op, options = a_layer(rng, "linear")
    leaves = [tc.tensor(a, requires_grad=True) for a in (x, w, b, s_x, s_w)]
    unit = s_x * s_w
    product = multiplied(x, w, bias_steps(b, unit), (7, 7), op, options)
    y = apply(dequantized, *leaves, product=product, unit=unit)
    np.testing.assert_array_equal(y.data, (x @ w.T + np.rint(b / unit)) * unit)
    g = rng.normal(size=y.shape)
    found = tc.grad(y, leaves, g)
    smooth = [tc.tensor(a, requires_grad=True) for a in (x, w, b, s_x, s_w)]
    real = apply(op, smooth[0], smooth[1], None) * (smooth[3] * smooth[4]) + smooth[2]
    for a, e in zip(found, tc.grad(real, smooth, g), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9)


def test_a_sum_of_two_grids(rng):
    a, b = rng.integers(-7, 8, (2, 5, 3)).astype(float)
    scales = [np.array([s]) for s in (0.5, 0.125, 0.25)]
    leaves = [tc.tensor(v, requires_grad=True) for v in (a, b, *scales)]
    sums = np.floor(2 * a + 0.5 * b + 0.5)
    y = apply(summed, *leaves, sums=sums, low=-8, high=7)
    np.testing.assert_array_equal(y.data, np.clip(sums, -8, 7))
    g = rng.normal(size=y.shape)
    found = tc.grad(y, leaves, g)
    inside = (sums >= -8) & (sums <= 7)
    real = (leaves[0] * leaves[2] + leaves[1] * leaves[3]) / leaves[4]
    for f, e in zip(found, tc.grad(real, leaves, g * inside), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12)


def test_requantized_on_the_stand_in_gives_the_same_bits(cupy, rng):
    x, w, b, s_x, s_w, op, options = a_layer(rng, "conv2d")
    x, w, b, s_x, s_w, s_y = (a.astype("f") for a in (x, w, b, s_x, s_w, np.array([0.05])))
    unit = s_x.astype(float) * s_w.astype(float)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [tc.tensor(a, device=device, requires_grad=True) for a in (x, w, b, s_x, s_w, s_y)]
        with on_device(leaves[0].data):
            bias = to_device(bias_steps(b, unit), device)
            product = multiplied(leaves[0].data, leaves[1].data, bias, (7, 7), op, options)
        y = apply(
            requantized,
            *leaves,
            product=product,
            factors=unit / s_y.astype(float),
            low=0,
            high=12,
        )
        assert device_of(y.data) == leaves[0].device
        y.backward(to_device(np.ones(y.shape, "f"), device))
        results.append([to_numpy(a) for a in (y.data, *(t.grad for t in leaves))])
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_spaced_inputs_are_what_finite_differences_need(rng):
    """Between two roundings the codes stand still, and the straight-through slope is not theirs."""
    x = spaced(rng, 5)
    with pytest.raises(AssertionError):
        check_gradients(
            lambda t: apply(quantize_steps, t, np.ones(1), zero_point=0, target=IntegerRange(8)), x
        )
