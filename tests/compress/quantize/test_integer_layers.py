"""Integer layers compute, to the bit, what their formula says in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st
from strategies import convolutions
from test_integer_products import reference

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize import IntegerRange, QuantConfig, affine
from tinycompress.compress.quantize.fixed_point import multiplier
from tinycompress.compress.quantize.integer import IntegerConv2d, IntegerLinear, QuantizeInput
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


@given(
    rows=st.lists(st.integers(1, 3), max_size=2),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 4)),
    bits=st.integers(1, 16), axis=st.sampled_from([0, None]),
    grids=st.tuples(activation_grids(8), activation_grids()), relu=st.booleans(),
    has_bias=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_a_linear_layer_is_its_formula(
    device, rows, sizes, bits, axis, grids, relu, has_bias, seed
):
    rng, (x_grid, y_grid), (inputs, outputs) = np.random.default_rng(seed), grids, sizes
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    weight = weight_codes(rng, (outputs, inputs), bits, axis)
    config = QuantConfig(bits, granularity="per_channel" if axis == 0 else "per_tensor")
    integer = IntegerLinear.from_codes(layer, weight, config, output=y_grid, relu=relu).to(device)
    codes, x = some_codes(rng, (*rows, inputs), x_grid, device)
    products = (codes.astype(np.int64) - x_grid.zero_point) @ weight.codes.astype(np.int64).T
    bias = layer.bias.data.astype(np.float64) if has_bias else None
    expected = expected_codes(products, weight, bias, x_grid, y_grid, relu)
    np.testing.assert_array_equal(to_numpy(integer(x).codes), expected)


def model_layers(device="cpu", x_grid=None, **options):
    """A float linear layer, the integer one, codes, and the same codes as a QTensor."""
    rng = np.random.default_rng(0)
    linear = nn.Linear(30, 6).to(device)
    grid = Grid(0.02, 90, U8)
    integer = IntegerLinear.from_float(linear, QuantConfig(), "fc", **options)
    codes, x = some_codes(rng, (4, 30), x_grid or grid, device)
    return linear, integer, codes, x


def test_the_last_layer_gives_floats_from_its_accumulators(device):
    _, integer, codes, x = model_layers(device)
    y = integer(x)
    assert isinstance(y, tc.Tensor)
    assert y.dtype == np.float32
    w, scale, bias = (to_numpy(a) for a in integer.buffers())
    unit = float(np.float32(0.02)) * scale.astype(np.float64)
    acc = (codes.astype(np.int64) - 90) @ w.T.astype(np.int64) + np.rint(bias / unit).astype(int)
    np.testing.assert_array_equal(y.numpy(), (acc * unit).astype(np.float32))


def test_scores_are_those_of_the_weights_that_the_codes_stand_for(device):
    """But for the bias, which is a whole number of s_x·s_w, and rounding to float32."""
    _, integer, _, x = model_layers(device)
    floats = integer.to_float()(x.dequantize())
    unit = to_numpy(integer.weight_scale) * np.float32(0.02)
    assert np.all(np.abs(integer(x).numpy() - floats.numpy()) <= 0.5 * unit + 1e-5)


def test_floats_are_quantized_by_the_layer_that_meets_them(device):
    grid = Grid(0.05, 3, U4)
    linear, integer, _, _ = model_layers(device, input=grid)
    x = tc.tensor(np.random.default_rng(1).normal(size=(4, 30)).astype("f"), device=device)
    into = QuantizeInput.on(grid).to(device)
    np.testing.assert_array_equal(integer(x).numpy(), integer(into(x)).numpy())
    plain = IntegerLinear.from_float(linear, QuantConfig(), "fc")
    with pytest.raises(TypeError, match=r"takes codes \(a QTensor\), got Tensor; give it input="):
        plain(x)


def test_quantize_input_is_affine_quantization(device):
    x = np.array([[-1e30, -0.026, -0.025, 0.0, 0.024, 0.075, 3.0, np.inf]], np.float32)
    for grid in (Grid(0.05, 3, U4), Grid(0.05, -7, S8)):
        into = QuantizeInput.on(grid).to(device)
        got = into(tc.tensor(x, device=device))
        want = affine.quantize(x, into.grid.scale, grid.zero_point, grid.target)
        np.testing.assert_array_equal(to_numpy(got.codes), want)
        assert into(got) is got
    with pytest.raises(ValueError, match="NaN"):
        into(tc.tensor(np.array([[1, np.nan, 2]], np.float32), device=device))


def test_a_change_of_the_numbers_is_noticed(device):
    """What was worked out for the old ones is not used for the new ones."""
    y_grid = Grid(0.01, 128, U8)
    _, integer, _, x = model_layers(device, output=y_grid)
    before = to_numpy(integer(x).codes)
    state = {n: to_numpy(a) for n, a in integer.state_dict().items()}
    for name, change in [
        ("weight_codes", lambda a: -a),
        ("weight_scale", lambda a: a * 2),
        ("bias", lambda a: a + 1),
        ("output_scale", lambda a: a * 2),
        ("output_zero_point", lambda a: a - 28),
    ]:
        integer.load_state_dict({**state, name: change(state[name])})
        fresh = IntegerLinear(**integer.config()).to(device)
        fresh.load_state_dict(integer.state_dict())
        changed = to_numpy(integer(x).codes)
        np.testing.assert_array_equal(changed, to_numpy(fresh(x).codes), err_msg=name)
        assert (changed != before).any(), name
    integer.load_state_dict(state)
    np.testing.assert_array_equal(to_numpy(integer(x).codes), before)


def test_codes_on_another_grid_are_other_numbers():
    _, integer, codes, x = model_layers()
    other = QTensor(codes, 0.04, 90, U8)
    bias = integer.bias
    np.testing.assert_allclose(integer(other).data - bias, 2 * (integer(x).data - bias), atol=1e-3)
    np.testing.assert_array_equal(integer(x).data, integer(QTensor(codes, *x.grid)).data)


def test_what_int32_cannot_hold_is_refused_by_name():
    linear = nn.Linear(1000, 2)
    integer = IntegerLinear.from_float(linear, QuantConfig(16), "fc")
    grid = Grid(1.0, 0, IntegerRange(16, signed=False))
    with pytest.raises(ValueError, match=r"^head\.fc: the sum of 1,000 products .* int32"):
        integer.arithmetic(grid, "head.fc")
    model = nn.Sequential({"fc": integer})
    with pytest.raises(ValueError, match=r"^fc: the sum of 1,000 products"):
        model(QTensor(np.zeros((1, 1000), np.uint16), *grid))


def test_there_is_no_derivative_and_it_says_so():
    _, integer, _, _ = model_layers()
    codes = tc.tensor(np.zeros((1, 30), np.float32), requires_grad=True)
    with pytest.raises(
        TypeError, match=r"no derivative; train the model that tc\.prepare_qat gave"
    ):
        integer(QTensor(codes, 0.1, 0, U8))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_its_config_and_its_state_are_all_of_it(config):
    linear, conv = nn.Linear(5, 3, bias=False), nn.Conv2d(2, 4, (3, 1), 2, 1, groups=2)
    layers = [
        IntegerLinear.from_float(linear, config, output=Grid(0.1, 2, U4), relu=True),
        IntegerConv2d.from_float(conv, config, input=Grid(0.1, 2, S8)),
    ]
    for layer in layers:
        twin = type(layer)(**layer.config())
        assert repr(twin) == repr(layer)
        blank, state = twin.state_dict(), layer.state_dict()
        assert {k: (a.shape, a.dtype) for k, a in blank.items()} == {
            k: (a.shape, a.dtype) for k, a in state.items()
        }
        assert not list(layer.parameters())


def test_repr_and_counts():
    linear = nn.Linear(4, 2)
    linear.weight.data[...] = [[1, 0, 0, 1e-3], [-1, 0.5, 0, -0.5]]
    linear.bias.data[...] = [0, 1]
    layer = IntegerLinear.from_float(linear, QuantConfig(4), output=Grid(0.5, 0, U8), relu=True)
    assert repr(layer) == (
        "IntegerLinear(in_features=4, out_features=2, bias=True, bits=4, "
        "granularity='per_channel', relu=True, output='uint8', input=None)"
    )
    assert layer.count_parameters() == (10, 5)
    assert layer.macs((1, 4), (1, 2)) == 8
    assert layer.weight_codes.dtype == np.int8
    assert IntegerLinear(4, 2, bits=9).weight_codes.dtype == np.int16
    np.testing.assert_allclose(layer.weight.data, linear.weight.data, atol=1 / 14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegerLinear(3, 2, output="uint17"), 'IntegerLinear: output must be "uint"'),
        (lambda: IntegerLinear(3, 2, input="uint1"), "IntegerLinear: input must be"),
        (lambda: IntegerLinear(3, 2, output=8), "2 to 16 bits"),
        (lambda: IntegerLinear(3, 2, bits=17), "bits must be a whole number from 1 to 16"),
        (lambda: IntegerLinear(3, 2, granularity="per_group"), "per_group"),
        (lambda: IntegerLinear(0, 2), "in_features must be"),
        (lambda: IntegerConv2d(4, 4, 3, groups=3), "groups=3 must divide"),
        (lambda: QuantizeInput("float32"), "QuantizeInput: output must be"),
        (lambda: QuantizeInput.on(Grid(0.0, 0, U8)), "above 0"),
        (lambda: IntegerLinear.from_float(nn.Linear(2, 2), QuantConfig(4, "affine")), "symmetric"),
        (
            lambda: IntegerLinear.from_float(
                nn.Linear(2, 2), QuantConfig(4, granularity="per_group", group_size=2)
            ),
            "per channel or per tensor",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_that_do_not_fit_are_refused():
    conv = IntegerConv2d(2, 4, 3)
    for shape, message in [
        ((1, 3, 5, 5), r"must be \(N, 2, H, W\), got shape \(1, 3, 5, 5\)"),
        ((2, 5, 5), r"must be \(N, 2, H, W\)"),
        ((1, 2, 2, 5), "does not fit into an image"),
    ]:
        with pytest.raises(ValueError, match=message):
            conv(QTensor(np.zeros(shape, np.uint8), 1.0, 0, U8))
    with pytest.raises(ValueError, match=r"must end in in_features = 3"):
        IntegerLinear(3, 2)(QTensor(np.zeros((1, 4), np.uint8), 1.0, 0, U8))
    chain = nn.Sequential(conv, nn.MaxPool2d(4))
    with pytest.raises(ValueError, match=r"a window of \(4, 4\) does not fit"):
        chain(QTensor(np.zeros((1, 2, 5, 5), np.uint8), 1.0, 0, U8))


def test_an_empty_batch_stays_empty(device):
    conv = IntegerConv2d(2, 4, 3, output="uint8").to(device)
    x = QTensor(tc.tensor(np.zeros((0, 2, 5, 5), np.uint8), device=device).data, 1.0, 0, U8)
    assert conv(x).shape == (0, 4, 3, 3)
