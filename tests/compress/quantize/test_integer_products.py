"""Accumulators are exact, however they are computed, and what int32 cannot hold is refused."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from strategies import Convolution, convolutions

from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import IntegerRange, exact
from tinycompress.compress.quantize.exact import Product, check_accumulator


def reference(x, w, stride, padding, dilation, groups):
    """Six loops, in int64."""
    (N, _, H, W), (O, Cg, kh, kw) = x.shape, w.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    oh = (H + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (W + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((N, O, oh, ow), np.int64)
    for o, p, q, c, i, j in np.ndindex(O, oh, ow, Cg, kh, kw):
        row, column = p * sh + i * dh - ph, q * sw + j * dw - pw
        if 0 <= row < H and 0 <= column < W:
            channel = o // (O // groups) * Cg + c
            y[:, o, p, q] += x[:, channel, row, column].astype(np.int64) * int(w[o, c, i, j])
    return y


def steps_of(bits, zero_share):
    """The ends of an unsigned range of ``bits``, seen from a zero point."""
    largest = (1 << bits) - 1
    zero_point = round(zero_share * largest)
    return -zero_point, largest - zero_point


def draw_whole(rng, shape, low, high, extreme):
    """Whole numbers in a range; or only its ends, so that sums are as large as they can be."""
    return rng.choice([low, high], shape) if extreme else rng.integers(low, high + 1, shape)


def narrow(bits):
    return 1 if bits == 1 else IntegerRange(bits, narrow=True).qmax


CASES = {
    "shape": convolutions(),
    "a_bits": st.integers(2, 16),
    "w_bits": st.integers(1, 16),
    "zero_share": st.floats(0, 1),
    "extreme": st.booleans(),
    "bias_bits": st.integers(0, 30),
    "seed": st.integers(0, 2**31),
}


@given(**CASES)
def test_a_convolution_is_exact_whatever_its_shape_and_bits(device, **case):
    shape, rng = case["shape"], np.random.default_rng(case["seed"])
    steps, largest = steps_of(case["a_bits"], case["zero_share"]), narrow(case["w_bits"])
    x = draw_whole(rng, shape.x, *steps, case["extreme"])
    w = draw_whole(rng, shape.w, -largest, largest, case["extreme"])
    bias = rng.integers(-(1 << case["bias_bits"]), (1 << case["bias_bits"]) + 1, len(w))
    expected = reference(x, w, **shape.options()) + bias[:, None, None]
    try:
        check_accumulator("conv", w, steps, bias)
    except ValueError:
        return  # another test looks at what is refused
    product = Product(w, bias, steps, device, shape.options())
    y = to_numpy(product(to_device(x.astype(np.float32), device)))
    np.testing.assert_array_equal(y, expected)
    assert np.abs(expected).max() <= exact.INT32_LARGEST


@given(
    rows=st.integers(1, 3),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 4),
    **{k: v for k, v in CASES.items() if k != "shape"},
)
def test_a_linear_layer_is_exact(device, rows, inputs, outputs, **case):
    rng = np.random.default_rng(case["seed"])
    steps, largest = steps_of(case["a_bits"], case["zero_share"]), narrow(case["w_bits"])
    x = draw_whole(rng, (2, rows, inputs), *steps, case["extreme"])
    w = draw_whole(rng, (outputs, inputs), -largest, largest, case["extreme"])
    bias = rng.integers(-(1 << case["bias_bits"]), (1 << case["bias_bits"]) + 1, outputs)
    expected = x.astype(np.int64) @ w.astype(np.int64).T + bias
    try:
        check_accumulator("linear", w, steps, bias)
    except ValueError:
        return
    y = to_numpy(Product(w, bias, steps, device)(to_device(x.astype(np.float32), device)))
    np.testing.assert_array_equal(y, expected)


SMALL = Convolution((2, 8, 6, 6), (4, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1)
GROUPED = Convolution((2, 8, 6, 6), (4, 4, 3, 3), (2, 1), (1, 1), (1, 1), 2)
DEPTHWISE = Convolution((2, 4, 6, 6), (8, 1, 3, 3), (1, 1), (1, 1), (1, 2), 4)


@pytest.mark.parametrize(
    "shape", [SMALL, GROUPED, DEPTHWISE], ids=["plain", "grouped", "depthwise"]
)
@pytest.mark.parametrize("a_bits", [8, 12, 13, 16])
def test_every_way_of_adding_is_exact_and_is_taken(device, shape, a_bits):
    """12-bit weights at the ends of their range: one product, blocks of channels, float64."""
    rng = np.random.default_rng(0)
    steps, channels = (0, (1 << a_bits) - 1), shape.w[1]
    w = rng.choice([-(1 << 11) + 1, (1 << 11) - 1], shape.w)
    x = rng.choice(steps, shape.x)
    bias = rng.integers(-1000, 1000, len(w))
    product = Product(w, bias, steps, device, shape.options())
    y = to_numpy(product(to_device(x.astype(np.float32), device)))
    np.testing.assert_array_equal(y, reference(x, w, **shape.options()) + bias[:, None, None])
    taps = 2**11 * 2**a_bits * 9  # of one channel, of one sign or of two
    if taps * channels < 2**24:
        assert (product.at_once, product.dtype) == (True, np.float32)
    if taps * channels > 2**26:
        assert not product.at_once or product.dtype == np.float64
    if taps > 2**26:
        assert product.dtype == np.float64


def test_all_three_ways_occur():
    ways = set()
    for bits in range(1, 17):
        w = np.full((1, 4, 3, 3), 2**7 - 1)
        product = Product(w, None, (0, 2**bits - 1), options={})
        ways.add((product.dtype.name, len(product.blocks) > 1))
    assert ways == {("float32", False), ("float32", True), ("float64", False)}


def test_a_bias_that_float32_cannot_add_is_added_in_int32(device):
    w = np.ones((1, 3), int)
    product = Product(w, np.array([2**24]), (0, 255), device)
    assert (product.at_once, product.blocks) == (False, [slice(0, 3)])
    x = to_device(np.array([[0, 0, 1], [255, 255, 255]], np.float32), device)
    assert to_numpy(product(x)).tolist() == [[2**24 + 1], [2**24 + 765]]


def test_float32_would_be_wrong_without_the_blocks():
    """The limit is not a precaution: one more product, and float32 loses a unit."""
    x = np.full((1, 600), 255, np.float32)
    w = np.full((1, 600), 127)
    w[0, 0] = 126
    exactly = int(255 * w.sum())
    assert exactly > 2**24
    assert int((x @ w.T.astype(np.float32))[0, 0]) != exactly
    assert int(Product(w, None, (0, 255))(x)[0, 0]) == exactly


def test_a_convolution_in_float32_would_be_wrong_without_the_blocks(device):
    w = np.full((1, 70, 3, 3), 127)
    w[0, 0, 0, 0] = 126
    x = np.full((1, 70, 3, 3), 255, np.float32)
    exactly = int(255 * w.sum())
    assert 2**24 < exactly < 2**25
    assert int(x.ravel() @ w.ravel().astype(np.float32)) != exactly
    options = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    y = Product(w, None, (0, 255), device, options)(to_device(x, device))
    assert int(to_numpy(y)[0, 0, 0, 0]) == exactly


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_number_of_int32_is_allowed_and_the_next_one_refused(sign):
    w, steps = np.full((1, 1), sign * 32767), (0, 65535)
    room = 2**31 - 1 - 32767 * 65535
    check_accumulator("fc1", w, steps, np.array([sign * room]))
    with pytest.raises(ValueError, match="can reach 2,147,483,648"):
        check_accumulator("fc1", w, steps, np.array([sign * (room + 1)]))


def extreme_sum(weights, steps, largest):
    """The largest (or smallest) sum of products that any activations give."""
    return sum((max if largest else min)(int(w) * step for step in steps) for w in weights)


@given(st.integers(1, 40), st.integers(2, 16), st.integers(1, 16), st.integers(0, 2**31))
def test_what_is_not_refused_fits_and_what_is_refused_can_be_reached(inputs, a_bits, w_bits, seed):
    rng = np.random.default_rng(seed)
    steps, largest = steps_of(a_bits, rng.random()), narrow(w_bits)
    w = draw_whole(rng, (3, inputs), -largest, largest, rng.random() < 0.5)
    bias = rng.integers(-(2**30), 2**30, 3)
    ends = [[extreme_sum(row, steps, up) for up in (False, True)] for row in w]
    reached = [abs(e + b) for end, bias_o in zip(ends, bias.tolist(), strict=True)
               for e in end for b in (0, bias_o)]  # fmt: skip
    if max(reached) <= 2**31 - 1:
        check_accumulator("fc1", w, steps, bias)
    else:
        with pytest.raises(ValueError, match=r"^fc1: .* int32; use fewer bits"):
            check_accumulator("fc1", w, steps, bias)


def test_a_refusal_says_all_of_it():
    w = np.zeros((2, 70_000), int)
    w[1] = 127
    with pytest.raises(ValueError, match="int32") as error:
        check_accumulator("features.conv2", w, (0, 255), np.array([0, 7]))
    assert str(error.value) == (
        "features.conv2: the sum of 70,000 products of activations 0 … 255 and weights 127 … 127, "
        "with a bias of 7, can reach 2,266,950,007 in output channel 1, beyond the 2,147,483,647 "
        "of int32; use fewer bits for the weights or for the activations"
    )
