"""Layers that hold codes: what they compute, store, count and say about themselves."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

import tinycompress as tc
from tinycompress import functional as F, nn, random
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize import QuantConfig, QuantizedConv2d, QuantizedLinear
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.graph import Node, topological_order
from tinycompress.nn.skeleton import skeletons

CONFIGS = [
    QuantConfig(),
    QuantConfig(1),
    QuantConfig(2, "symmetric", "per_tensor"),
    QuantConfig(4, "affine", "per_channel"),
    QuantConfig(3, "affine", "per_group", 5),
    QuantConfig(16, "symmetric", "per_tensor"),
]
LAYERS = {
    "linear": lambda: nn.Linear(7, 3),
    "no bias": lambda: nn.Linear(7, 3, bias=False),
    "conv": lambda: nn.Conv2d(2, 4, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, (3, 1), stride=(2, 1), groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, dilation=2, groups=4, bias=False),
}


def quantized(name, config, device="cpu"):
    """(float layer, quantized layer, an input)."""
    layer = LAYERS[name]().to(device)
    kind = QuantizedLinear if isinstance(layer, nn.Linear) else QuantizedConv2d
    shape = (2, 7) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 7, 7)
    x = tc.tensor(np.random.default_rng(0).normal(size=shape).astype("f"), device=device)
    return layer, kind.from_float(layer, config), x


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
class TestEveryLayer:
    def test_it_computes_with_the_weights_that_the_codes_stand_for(self, device, name, config):
        _, layer, x = quantized(name, config, device)
        if isinstance(layer, QuantizedLinear):
            expected = F.linear(x, layer.weight, layer.bias)
        else:
            geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
            expected = F.conv2d(x, layer.weight, layer.bias, *geometry)
        np.testing.assert_array_equal(to_numpy(layer(x).data), to_numpy(expected.data))
        assert layer(x).device.startswith(device)

    def test_its_config_makes_the_same_layer(self, name, config):
        _, layer, _ = quantized(name, config)
        twin = type(layer)(**json.loads(json.dumps(layer.config())))
        assert repr(twin) == repr(layer)
        state, blank = layer.state_dict(), twin.state_dict()
        assert list(state) == list(blank)
        for key, array in state.items():
            assert (array.shape, array.dtype) == (blank[key].shape, blank[key].dtype)

    def test_its_state_is_all_of_it(self, name, config):
        _, layer, x = quantized(name, config)
        twin = type(layer)(**layer.config())
        twin.load_state_dict(layer.state_dict())
        np.testing.assert_array_equal(twin(x).data, layer(x).data)

    def test_to_float_computes_the_same_and_draws_nothing(self, name, config):
        original, layer, x = quantized(name, config)
        before = random.get_state()
        back = layer.to_float()
        assert random.get_state() == before
        assert type(back) is type(original)
        assert back.config() == original.config()
        np.testing.assert_array_equal(back(x).data, layer(x).data)
        back(x).sum().backward()
        assert np.abs(back.weight.grad).sum() > 0  # it can be trained

    def test_it_costs_as_many_operations_as_before(self, name, config):
        original, layer, x = quantized(name, config)
        shapes = x.shape, layer(x).shape
        assert layer.macs(*shapes) == original.macs(*shapes)
        assert layer.count_parameters()[0] == original.count_parameters()[0]


def test_codes_are_the_only_weights_and_the_bias_is_the_only_parameter():
    _, layer, _ = quantized("linear", QuantConfig(4))
    assert [n for n, _ in layer.named_parameters()] == ["bias"]
    buffers = {n: (b.dtype.name, b.shape) for n, b in layer.named_buffers()}
    assert buffers == {
        "weight_codes": ("int8", (3, 7)),
        "weight_scale": ("float32", (3,)),
        "weight_zero_point": ("int8", (3,)),
    }


@pytest.mark.parametrize(
    ("bits", "scheme", "dtype"),
    [(1, "symmetric", "int8"), (8, "symmetric", "int8"), (9, "symmetric", "int16"),
     (8, "affine", "uint8"), (16, "affine", "uint16")],
)  # fmt: skip
def test_codes_take_the_smallest_dtype(bits, scheme, dtype):
    _, layer, _ = quantized("linear", QuantConfig(bits, scheme))
    assert layer.weight_codes.dtype == dtype


def test_zero_codes_are_counted_as_zeros():
    linear = nn.Linear(4, 2)
    linear.weight.data[...] = [[1, 0, 0, 1e-3], [-1, 0.5, 0, -0.5]]
    linear.bias.data[...] = [0, 1]
    for scheme in ("symmetric", "affine"):
        layer = QuantizedLinear.from_float(linear, QuantConfig(4, scheme))
        assert layer.count_parameters() == (10, 5)  # 1e-3 became a zero as well


@given(st.integers(2, 16), st.sampled_from(["symmetric", "affine"]), st.integers(0, 100))
def test_a_weight_that_is_zero_stays_exactly_zero(bits, scheme, seed):
    rng = np.random.default_rng(seed)
    linear = nn.Linear(8, 4)
    linear.weight.data[...] = rng.normal(size=(4, 8)) * (rng.random((4, 8)) < 0.3)
    for config in (QuantConfig(bits, scheme), QuantConfig(bits, scheme, "per_group", 3)):
        weight = QuantizedLinear.from_float(linear, config).weight.data
        assert np.all(weight[linear.weight.data == 0] == 0)


def test_the_bias_is_a_copy_and_trains():
    linear, layer, x = quantized("linear", QuantConfig())
    layer(x).sum().backward()
    np.testing.assert_array_equal(layer.bias.grad, [2, 2, 2])
    layer.bias.data += 1
    assert np.all(layer.bias.data == linear.bias.data + 1)
    assert layer.weight.requires_grad is False


def test_the_gradient_goes_through_to_the_input():
    _, layer, x = quantized("linear", QuantConfig())
    x.requires_grad = True
    layer(x).sum().backward()
    np.testing.assert_allclose(x.grad, np.tile(layer.weight.data.sum(0), (2, 1)), rtol=1e-6)


def test_float64_stays_float64():
    linear = nn.Linear(5, 2).to(np.float64)
    layer = QuantizedLinear.from_float(linear, QuantConfig(16))
    assert layer.weight_scale.dtype == layer.weight.dtype == np.float64
    assert np.abs(layer.weight.data - linear.weight.data).max() <= layer.weight_scale.max() / 2


def test_repr_says_how():
    _, layer, _ = quantized("no bias", QuantConfig(3, "affine", "per_group", 5))
    assert repr(layer) == (
        "QuantizedLinear(in_features=7, out_features=3, bias=False, bits=3, scheme='affine', "
        "granularity='per_group', group_size=5)"
    )


def test_a_skeleton_takes_no_memory():
    with skeletons():
        layer = QuantizedLinear(10**6, 10**6, quantization={"bits": 4})
    assert layer.weight_codes.shape == (10**6, 10**6)


def test_a_description_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="bits must be"):
        QuantizedLinear(3, 2, quantization={"bits": 99})
    for bad in ({"groups": 0}, {"groups": 3}, {"kernel_size": 0}, {"out_channels": -1}):
        with pytest.raises(ValueError, match=r"Conv2d: |kernel_size"):
            QuantizedConv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **bad})
    with pytest.raises(ValueError, match="in_features must be"):
        QuantizedLinear(0, 2)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_bit_is_worth_six_decibels(bits):
    rng = np.random.default_rng(0)
    linear = nn.Linear(1000, 100)
    linear.weight.data[...] = rng.uniform(-1, 1, linear.weight.shape)
    layer = QuantizedLinear.from_float(linear, QuantConfig(bits, "affine", "per_tensor"))
    noise = ((layer.weight.data - linear.weight.data) ** 2).mean()
    steps = 2**bits - 1  # uniform noise of a step's width against uniform weights
    assert 10 * math.log10(1 / 3 / noise) == pytest.approx(20 * math.log10(steps), abs=0.3)


# ----------------------------------------------------------------- as one operation (nn/fusion.py)


def network(config):
    """Layers with codes for weights, in chains of every kind and alone."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, (2, 1), padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, dilation=2, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(6 * 2 * 4, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    )
    norm, rng = net[4], np.random.default_rng(1)
    norm.weight.data[...] = [-1, 2, 0, 0.5, 1, -3]
    norm.running_mean = rng.normal(size=6).astype("f")
    norm.running_var = rng.uniform(0.5, 2, 6).astype("f")
    return tc.quantize(net.eval(), config)


def run(net, x, *, fused):
    """(operations, output, derivatives of input and parameters, output without recording)."""
    x = tc.tensor(x.data, device=x.device, requires_grad=True)
    with nn.fusion(fused):
        y = net(x)
        grads = tc.grad((y * y).sum(), [x, *net.parameters()])
        with tc.no_grad():
            quiet = net(x).data
    names = [node.name for node in topological_order(y._node) if isinstance(node, Node)]
    return names, [to_numpy(a) for a in (y.data, *grads, quiet)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_chain_gives_what_its_layers_give(config, dtype, device):
    net = network(config).to(dtype).to(device)
    x = tc.tensor(np.random.default_rng(0).normal(size=(3, 2, 16, 12)), dtype=dtype, device=device)
    names, fused = run(net, x, fused=True)
    assert "conv2d+relu+max_pool2d" in names
    assert "linear+tanh" in names
    names, apart = run(net, x, fused=False)
    assert not any("+" in name for name in names)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9}
    for a, b in zip(fused, apart, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_weights_are_made_once_in_each_pass(monkeypatch):
    """Also where a layer stands alone. For one image it costs more than the products."""
    made = []
    weight = QuantizedLayer.weight.fget
    monkeypatch.setattr(
        QuantizedLayer, "weight", property(lambda self: made.append(self._name) or weight(self))
    )
    net = network(QuantConfig(4))
    with tc.no_grad():
        net(np.zeros((1, 2, 16, 12), "f"))
    assert len(made) == len(set(made)) == 4


def test_new_codes_count_at_once():
    """There is no copy of the weights that could be old."""
    _, layer, x = quantized("conv", QuantConfig())
    net = nn.Sequential(layer, nn.ReLU())
    assert net(x).data.any()
    layer.weight_codes[...] = 0
    layer.bias.data[...] = 0
    assert not net(x).data.any()


def test_layers_with_a_hook_and_dynamic_ones_run_alone():
    net = network(QuantConfig(4))
    x = np.random.default_rng(0).normal(size=(1, 2, 16, 12)).astype("f")
    whole = net(x).data
    seen = []
    net[0].register_forward_hook(lambda m, i, y: seen.append(y.data.min()))
    np.testing.assert_allclose(net(x).data, whole, rtol=1e-5)
    assert seen[0] < 0  # before the ReLU
    dynamic = network(QuantConfig(8, dynamic=True))
    with nn.fusion(False):
        expected = dynamic(x).data
    np.testing.assert_array_equal(dynamic(x).data, expected)
    assert not np.array_equal(expected, whole)


def test_an_input_that_does_not_fit_names_the_layer():
    net = network(QuantConfig(4))
    with pytest.raises(ValueError, match="conv2d: ") as caught:
        net(np.zeros((1, 3, 16, 12), "f"))
    assert "in 0: QuantizedConv2d" in caught.value.__notes__
