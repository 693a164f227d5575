"""Whole integer models: codes flow through any ``forward``, files give them back to the bit."""

import copy
import os
import pickle

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn, random
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize import IntegerRange, QuantConfig, affine
from tinycompress.compress.quantize.integer import (
    IntegerAdd,
    IntegerAvgPool2d,
    IntegerConcat,
    IntegerConv2d,
    IntegerFlatten,
    IntegerIdentity,
    IntegerLinear,
    IntegerMaxPool2d,
    IntegerReLU,
    OnFloats,
    QuantizeInput,
)
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.nn.fusion import chains
from tinycompress.train import predict

U8 = IntegerRange(8, signed=False)
IMAGES = np.random.default_rng(0).random((6, 1, 28, 28)).astype(np.float32)


def grid_of(x, bits=8):
    target = IntegerRange(bits, signed=False)
    scale, zero_point = affine.choose_qparams(float(x.min()), float(x.max()), target)
    return Grid(float(scale[0]), int(zero_point[0]), target)


def integer_lenet(bits=8, activations=8):
    """LeNet-5, each layer's grid taken from what the float model gives for IMAGES."""
    random.manual_seed(0)
    floats, x = tc.models.LeNet5().eval(), tc.tensor(IMAGES)
    config, layers, grid = QuantConfig(bits), {}, grid_of(IMAGES, activations)
    for name, layer in floats.named_children():
        x = layer(x)
        output = None if name == "fc2" else grid_of(x.data, activations)
        into = {"input": grid} if name == "conv1" else {}
        if isinstance(layer, nn.Conv2d):
            layers[name] = IntegerConv2d.from_float(layer, config, name, output=output, **into)
        elif isinstance(layer, nn.Linear):
            layers[name] = IntegerLinear.from_float(layer, config, name, output=output)
        else:
            kinds = {
                nn.MaxPool2d: IntegerMaxPool2d, nn.ReLU: IntegerReLU, nn.Flatten: IntegerFlatten,
            }  # fmt: skip
            layers[name] = kinds[type(layer)](**layer.config())
    model = floats.copy()
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return floats, model


class Residual(nn.Module):
    """Codes through a forward of its own: a sum, a concatenation, a mean, a layer of floats."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        grid = Grid(0.02, 100, U8)
        self.entry = QuantizeInput.on(Grid(1 / 255, 0, U8))
        self.conv1 = _conv(rng, 1, 4, output=grid, relu=True)
        self.conv2 = _conv(rng, 4, 4, output=Grid(0.05, 128, U8))
        self.add = IntegerAdd.on(Grid(0.04, 20, U8), relu=True)
        self.concat = IntegerConcat.on(1, Grid(0.05, 30, U8))
        self.pool = IntegerAvgPool2d(4)
        self.tanh = OnFloats(nn.Tanh())
        self.fc = IntegerLinear.from_float(
            nn.Linear(8 * 49, 5), QuantConfig(4), input=Grid(0.01, 128, U8)
        )

    def forward(self, x):
        x = self.conv1(self.entry(x))
        x = self.concat(self.add(x, self.conv2(x)), x)
        x = self.pool(x)
        assert isinstance(x, QTensor)
        return self.fc(self.tanh(x.flatten(1)))


def _conv(rng, inputs, outputs, **options):
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    layer.weight.data[...] = rng.normal(size=layer.weight.shape) / 3
    return IntegerConv2d.from_float(layer, QuantConfig(), **options)


MODELS = {"sequential": lambda: integer_lenet()[1], "own forward": Residual}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def test_it_computes_nearly_what_the_floats_do():
    floats, model = integer_lenet()
    want, got = floats(tc.tensor(IMAGES)).data, model(IMAGES).data
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()
    finer = integer_lenet(12, 12)[1](IMAGES).data
    assert np.abs(finer - want).max() < 0.1 * np.abs(got - want).max()


@each_model
def test_every_device_gives_the_same_bits(make, device):
    model = make()
    expected = model(IMAGES).numpy()
    there = model.to(device)(tc.tensor(IMAGES, device=device))
    assert there.device.startswith(device)
    np.testing.assert_array_equal(there.numpy(), expected)


@each_model
def test_the_second_gpu_gives_the_same_bits(make, cupy):
    model = make()
    expected = model(IMAGES).numpy()
    there = model.to("cuda:1")(tc.tensor(IMAGES, device="cuda:1"))
    assert there.device == "cuda:1"
    np.testing.assert_array_equal(there.numpy(), expected)
    with pytest.raises(tc.DeviceError, match=r"cuda:1 and cuda:0|cuda:0 and cuda:1"):
        model(tc.tensor(IMAGES, device="cuda:0"))


def test_layers_are_made_where_the_weights_are(cupy):
    linear = nn.Linear(4, 3).to("cuda:1")
    layer = IntegerLinear.from_float(linear, QuantConfig(), output=Grid(0.1, 0, U8))
    assert {a.device.id for a in layer.buffers()} == {1}
    assert layer.weight.device == layer.to_float().bias.device == "cuda:1"


@each_model
def test_a_file_gives_back_an_integer_model_to_the_bit(make, tmp_path):
    model = make()
    if isinstance(model, Residual):
        tc.register(Residual)
    expected = model(IMAGES).data
    tc.save(model, tmp_path / "model.tcz")
    again = tc.load(tmp_path / "model.tcz")
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again(IMAGES).data, expected)
    for name, array in model.state_dict().items():
        kept = again.state_dict()[name]
        assert (kept.dtype, kept.tobytes()) == (array.dtype, array.tobytes()), name


def test_codes_are_packed_at_their_width(tmp_path):
    sizes = {}
    for bits in (16, 8, 4, 2, 1):
        path = tmp_path / f"{bits}.tcz"
        tc.save(integer_lenet(bits)[1], path)
        sizes[bits] = os.path.getsize(path)
    weights = 430_500
    for bits, size in sizes.items():
        assert size <= weights * bits / 8 + 9_000
    assert sizes[4] / sizes[8] == pytest.approx(0.5, abs=0.02)


@each_model
def test_fusion_copies_and_compilation_change_nothing(make):
    model = make().eval()
    expected = model(IMAGES).data
    with nn.fusion(False):
        np.testing.assert_array_equal(model(IMAGES).data, expected)
    for other in (model.copy(), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(IMAGES).data, expected)
    compiled = tc.compile(model)
    for _ in range(2):
        np.testing.assert_array_equal(compiled(IMAGES).data, expected)
    np.testing.assert_array_equal(
        np.concatenate([model(IMAGES[i : i + 1]).data for i in range(len(IMAGES))]), expected
    )


def test_a_chain_runs_the_pooling_inside_the_convolution():
    """conv1 gives codes before its pooling where it runs alone, and none where it is fused."""
    model = integer_lenet()[1]
    seen = []
    hook = model.pool1.register_forward_hook(lambda m, i, o: seen.append(i[0].shape))
    model(IMAGES)
    assert seen == [(6, 20, 24, 24)]  # a layer with a hook runs alone
    hook.remove()
    chain = next(chains(model.children()))
    assert [type(m) for m in chain.modules] == [IntegerConv2d, IntegerMaxPool2d]


def test_batch_norm_behind_an_integer_layer_is_not_lost():
    conv = IntegerConv2d.from_float(nn.Conv2d(1, 3, 3), QuantConfig(), input=Grid(1 / 255, 0, U8))
    norm = nn.BatchNorm2d(3)
    norm.running_mean[...], norm.running_var[...] = [1, 2, 3], [4, 5, 6]
    model = nn.Sequential(conv, norm).eval()
    np.testing.assert_array_equal(model(IMAGES).data, norm(conv(IMAGES)).data)


def test_it_is_evaluated_by_workers_and_summarized():
    _, model = integer_lenet()
    data = tc.data.Dataset(IMAGES, np.arange(6))
    alone = predict(model, data.images, batch_size=2, workers=1)
    np.testing.assert_array_equal(predict(model, data.images, batch_size=2, workers=2), alone)
    rows = {row.name: row for row in nn.summary(model).layers}
    plain = {row.name: row for row in nn.summary(tc.models.LeNet5()).layers}
    for name, row in plain.items():
        assert rows[name].macs == row.macs
        assert rows[name].output_shape == row.output_shape
        assert rows[name].parameters == row.parameters
    assert nn.summary(model).parameters == 431_080
    with pytest.raises(ValueError, match="A model without parameters"):
        tc.optim.SGD(model.parameters(), lr=0.1)


def test_an_error_names_the_layer():
    _, model = integer_lenet()
    with pytest.raises(ValueError, match=r"must be \(N, 1, H, W\)") as error:
        model(np.zeros((1, 3, 28, 28), np.float32))
    assert any("conv1: IntegerConv2d" in note for note in error.value.__notes__)


def test_a_used_layer_is_as_good_as_new_in_a_copy():
    """What it worked out for its activations is not copied, and not needed."""
    _, model = integer_lenet()
    model(IMAGES)
    assert model.conv1._kept is not None
    assert model.copy().conv1._kept is None
    assert len(pickle.dumps(model)) < 1_000_000


def test_float64_models_keep_their_numbers():
    _, model = integer_lenet()
    expected = model(IMAGES).data
    np.testing.assert_array_equal(model.copy().to(np.float64)(IMAGES).data, expected)


def test_identity_in_a_chain():
    conv = IntegerConv2d.from_float(
        nn.Conv2d(1, 3, 3), QuantConfig(), input=Grid(1 / 255, 0, U8), output=Grid(0.01, 100, U8)
    )
    model = nn.Sequential(conv, IntegerIdentity(), IntegerReLU(), IntegerMaxPool2d(2))
    y = model(IMAGES)
    assert to_numpy(y.codes).min() >= 100
    with nn.fusion(False):
        np.testing.assert_array_equal(model(IMAGES).codes, y.codes)


@pytest.mark.parametrize("own_forward", [False, True])
def test_a_layer_in_two_places_computes_on_the_grid_of_each(own_forward):
    """First it gets floats, then codes of another scale, and back at the next call."""
    tc.manual_seed(0)
    shared = nn.Conv2d(1, 1, 3, padding=1)
    layers = [shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(64, 5)]

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.flat, self.fc = (layers[i] for i in (0, 1, 3, 4))

        def forward(self, x):
            return self.fc(self.flat(self.conv(self.relu(self.conv(x)))))

    model = (Twice() if own_forward else nn.Sequential(*layers)).eval()
    x = np.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype("f")
    prepared = tc.prepare_qat(model, QuantConfig(8, activations=8), x).eval()
    q = tc.convert(prepared)
    for _ in range(2):
        np.testing.assert_array_equal(q(x).data, prepared(x).data)
    error = np.linalg.norm(q(x).data - model(x).data) / np.linalg.norm(model(x).data)
    assert error < 0.03
