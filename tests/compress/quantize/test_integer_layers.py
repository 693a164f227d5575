"""Integer layers compute, to the bit, what their formula says in exact arithmetic."""

from fractions import Fraction

import numpy as np
from hypothesis import given, strategies as st
from strategies import convolutions
from test_integer_products import reference

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize import IntegerRange, QuantConfig
from tinycompress.compress.quantize.fixed_point import multiplier
from tinycompress.compress.quantize.integer import IntegerConv2d
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.weights import QuantizedWeight

U8, U4, S8 = IntegerRange(8, signed=False), IntegerRange(4, signed=False), IntegerRange(8)
CONFIGS = [QuantConfig(), QuantConfig(1), QuantConfig(2), QuantConfig(4, granularity="per_tensor")]


def narrow(bits):
    return 1 if bits == 1 else IntegerRange(bits, narrow=True).qmax


@st.composite
def activation_grids(draw, max_bits=16):
    signed = draw(st.booleans())
    target = IntegerRange(draw(st.integers(2, max_bits)), signed, signed and draw(st.booleans()))
    zero_point = draw(st.integers(target.qmin, target.qmax))
    return Grid(float(np.float32(draw(st.floats(2.0**-10, 4.0)))), zero_point, target)


def some_codes(rng, shape, grid, device="cpu"):
    codes = rng.integers(grid.target.qmin, grid.target.qmax + 1, shape).astype(grid.target.dtype)
    return codes, QTensor(tc.tensor(codes).to(device).data, *grid)


def weight_codes(rng, shape, bits, axis):
    largest = narrow(bits)
    codes = rng.integers(-largest, largest + 1, shape)
    codes[codes == 0] = 1 if bits == 1 else 0
    scale = rng.uniform(1e-3, 1e-1, shape[0] if axis == 0 else 1).astype(np.float32)
    dtype = np.int8 if bits <= 8 else np.int16
    return QuantizedWeight(codes.astype(dtype), scale, np.zeros_like(scale, dtype))


def expected_codes(products, weight, bias, x_grid, y_grid, relu):
    """From sums of products (channels on axis 1 of four, or last), in exact fractions."""
    scale = np.broadcast_to(weight.scale, len(weight.codes)).astype(np.float64) * x_grid.scale
    codes = np.empty(products.shape, np.int64)
    for index in np.ndindex(products.shape):
        o = index[1] if products.ndim == 4 else index[-1]
        acc = int(products[index]) + (0 if bias is None else int(np.rint(bias[o] / scale[o])))
        m, shift = multiplier(float(scale[o] / y_grid.scale))
        code = (Fraction(acc * m, 2**shift) + Fraction(1, 2)).__floor__() + y_grid.zero_point
        low = y_grid.zero_point if relu else y_grid.target.qmin
        codes[index] = min(max(code, low), y_grid.target.qmax)
    return codes


@given(
    shape=convolutions(), bits=st.integers(1, 16), axis=st.sampled_from([0, None]),
    grids=st.tuples(activation_grids(8), activation_grids()), relu=st.booleans(),
    has_bias=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_a_convolution_is_its_formula(device, shape, bits, axis, grids, relu, has_bias, seed):
    rng, (x_grid, y_grid) = np.random.default_rng(seed), grids
    (_, C, _, _), (O, _, *kernel) = shape.x, shape.w
    layer = nn.Conv2d(C, O, tuple(kernel), **shape.options(), bias=has_bias)
    weight = weight_codes(rng, shape.w, bits, axis)
    config = QuantConfig(bits, granularity="per_channel" if axis == 0 else "per_tensor")
    integer = IntegerConv2d.from_codes(layer, weight, config, output=y_grid, relu=relu).to(device)
    codes, x = some_codes(rng, shape.x, x_grid, device)
    y = integer(x)
    products = reference(
        codes.astype(np.int64) - x_grid.zero_point, weight.codes, **shape.options()
    )
    bias = layer.bias.data.astype(np.float64) if has_bias else None
    expected = expected_codes(products, weight, bias, x_grid, y_grid, relu)
    assert (y.grid, y.codes.dtype) == (y_grid, y_grid.target.dtype)
    np.testing.assert_array_equal(to_numpy(y.codes), expected)
    assert y.device.startswith(device)
