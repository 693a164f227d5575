"""Whole models: to codes and back, nothing changed where something cannot be quantized."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import (
    QuantConfig,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    dequantize,
    quantization_report,
    quantize,
)
from tinycompress.data import mnist
from tinycompress.train import evaluate, fit

ALL_WIDTHS = [
    QuantConfig(bits, scheme, *granularity)
    for bits in (1, 2, 3, 4, 8, 12, 16)
    for scheme in ("symmetric", "affine")
    for granularity in (("per_channel",), ("per_tensor",), ("per_group", 16))
    if bits > 1 or scheme == "symmetric"
]


class Mixed(nn.Module):
    """Layers of every kind, one of them used twice, one inside a container."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.again = self.depthwise
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 6 * 6, 5, bias=False))

    def forward(self, x):
        x = self.norm(self.conv1(x))
        return self.head(self.again(self.depthwise(x)))


def mixed():
    """(model, images)."""
    rng = np.random.default_rng(0)
    model = Mixed()
    model.norm.weight.data[...] = rng.normal(size=4)
    model.norm.running_mean[...] = rng.normal(size=4)
    return model.eval(), rng.random((3, 1, 8, 8)).astype("f")


@pytest.fixture(scope="module")
def trained():
    """(a small trained CNN, test images)."""
    random.manual_seed(0)
    train, test = mnist()
    model = models.TinyCNN()
    adam = optim.Adam(model.parameters(), lr=0.01)
    fit(model, train.take(2000), 3, adam, batch_size=32, workers=1)
    return model, test.take(1000)


def bytes_of(model):
    return {name: to_numpy(array).tobytes() for name, array in model.state_dict().items()}


# --------------------------------------------------------------------------------- what it does


def test_eight_bits_cost_a_trained_model_next_to_nothing(trained):
    model, test = trained
    before, after = (evaluate(m, test, workers=1) for m in (model, quantize(model)))
    assert before.accuracy > 0.85
    assert abs(after.accuracy - before.accuracy) <= 0.003
    assert abs(after.loss - before.loss) < 0.01


def test_more_bits_are_closer(trained):
    model, test = trained
    x = test.images[:100]
    errors = [np.abs(quantize(model, QuantConfig(b))(x).data - model(x).data).max()
              for b in (2, 4, 8, 12, 16)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_a_scale_per_channel_is_closer_than_one_for_all(trained):
    def noise(granularity, size=None):
        after = quantize(trained[0], QuantConfig(4, "symmetric", granularity, size))
        return [entry.snr_db for entry in quantization_report(trained[0], after)]

    per_tensor, per_channel = noise("per_tensor"), noise("per_channel")
    assert all(c > t for c, t in zip(per_channel, per_tensor, strict=True))


@pytest.mark.parametrize("config", ALL_WIDTHS, ids=str)
def test_every_linear_and_convolution_layer_is_replaced_and_no_other(device, config):
    model, x = mixed()
    model.to(device)
    q = quantize(model, config)
    kinds = {name: type(m) for name, m in q.named_modules() if name}
    assert kinds == {
        "conv1": QuantizedConv2d,
        "norm": nn.BatchNorm2d,
        "depthwise": QuantizedConv2d,
        "head": nn.Sequential,
        "head.0": nn.Flatten,
        "head.1": QuantizedLinear,
    }
    assert q.again is q.depthwise
    assert q.device.partition(":")[0] == device
    for layer in q.modules():
        if isinstance(layer, QuantizedLayer):
            assert layer.quantization == config
            assert not layer.training
    assert np.isfinite(to_numpy(q(to_device(x, device)).data)).all()


@pytest.mark.parametrize("gpu", ["cuda:0", "cuda:1"])
@pytest.mark.parametrize("config", [QuantConfig(1), QuantConfig(4, "affine", "per_group", 7)])
def test_devices_agree_on_every_code(cupy, gpu, config):
    model, x = mixed()
    here, there = quantize(model, config), quantize(model.copy().to(gpu), config)
    assert bytes_of(here) == bytes_of(there)
    assert {p.device for p in there.parameters()} == {gpu}
    with cupy.cuda.Device(int(gpu[-1])):
        y = there(to_device(x, gpu))
    np.testing.assert_array_equal(to_numpy(y.data), here(x).data)
    assert there.conv1.count_parameters() == here.conv1.count_parameters()


def test_the_old_model_is_left_alone(device):
    model, _ = mixed()
    model.to(device)
    before = bytes_of(model)
    q = quantize(model, QuantConfig(4))
    for layer in q.modules():
        for array in (*layer.buffers(), *(p.data for p in layer.parameters())):
            array[...] = 1
    assert bytes_of(model) == before
    assert isinstance(model.conv1, nn.Conv2d)


def test_a_single_layer_is_a_model_too():
    assert isinstance(quantize(nn.Linear(3, 2)), QuantizedLinear)
    assert isinstance(dequantize(quantize(nn.Linear(3, 2))), nn.Linear)


def test_pruned_weights_stay_exactly_zero(device):
    model, _ = mixed()
    rng = np.random.default_rng(1)
    for layer in (model.conv1, model.head[1]):
        layer.weight.mask = rng.random(layer.weight.shape) < 0.3
        layer.weight.data *= layer.weight.mask
    zeros = {n: p.data == 0 for n, p in model.named_parameters()}
    model.to(device)
    for config in ALL_WIDTHS[3:]:
        q = quantize(model, config)
        for name in ("conv1", "head.1"):
            weight = to_numpy(q.get_submodule(name).weight.data)
            assert np.all(weight[zeros[f"{name}.weight"]] == 0)


def test_what_is_left_to_train_are_biases_and_other_layers():
    q = quantize(mixed()[0])
    assert [n for n, _ in q.named_parameters()] == ["norm.weight", "norm.bias", "depthwise.bias"]


# --------------------------------------------------------------------------------- and back


@pytest.mark.parametrize("config", ALL_WIDTHS, ids=str)
def test_dequantizing_gives_a_float_model_that_computes_the_same(config):
    model, x = mixed()
    q = quantize(model, config)
    back = dequantize(q)
    assert repr(back) == repr(model)
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]
    np.testing.assert_array_equal(back(x).data, q(x).data)
    assert isinstance(q.conv1, QuantizedConv2d)


SYMMETRIC = [c for c in ALL_WIDTHS if c.bits > 1 and c.scheme == "symmetric"]


@pytest.mark.parametrize("config", SYMMETRIC, ids=str)
def test_quantizing_what_was_dequantized_gives_the_same_codes(config):
    q = quantize(mixed()[0], config)
    again = quantize(dequantize(q), config)
    for name in ("conv1", "depthwise", "head.1"):
        codes = [m.get_submodule(name).weight_codes for m in (q, again)]
        np.testing.assert_array_equal(*codes)


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named_and_nothing_is_changed(device, bad):
    model, _ = mixed()
    model.depthwise.weight.data[1, 0, 1, 1] = bad
    model.head[1].weight.data[0, 0] = bad
    model.to(device)
    before = bytes_of(model)
    with pytest.raises(ValueError, match="cannot be quantized") as error:
        quantize(model)
    assert "depthwise (Conv2d): holds" in str(error.value)
    assert "head.1 (Linear): holds" in str(error.value)
    assert "conv1" not in str(error.value)
    assert bytes_of(model) == before
    assert type(model.conv1) is nn.Conv2d


def test_one_bit_refuses_a_pruned_model():
    model, _ = mixed()
    model.conv1.weight.data[0] = 0
    with pytest.raises(ValueError, match=r"conv1 \(Conv2d\): 9 weights are exactly 0"):
        quantize(model, QuantConfig(1))


def test_nothing_to_quantize():
    with pytest.raises(
        ValueError, match="nothing to quantize in this Sequential: it has no Linear"
    ):
        quantize(nn.Sequential(nn.Flatten(), nn.ReLU()))
    with pytest.raises(ValueError, match="already is; call dequantize first"):
        quantize(quantize(models.TinyCNN()))
    with pytest.raises(ValueError, match="TinyCNN has no quantized layer"):
        dequantize(models.TinyCNN())


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="quantize takes a model, got ndarray"):
        quantize(np.ones(3))
    with pytest.raises(TypeError, match="config must be a QuantConfig, got int"):
        quantize(nn.Linear(2, 2), 8)
    with pytest.raises(TypeError, match="dequantize takes a model, got list"):
        dequantize([nn.Linear(2, 2)])


class Scaled(nn.Linear):
    """A Linear that computes something else."""

    def forward(self, x):
        return super().forward(x) * 2


def test_a_subclass_is_not_taken_for_its_parent():
    model = nn.Sequential(Scaled(4, 4), nn.Linear(4, 2))
    q = quantize(model)
    assert [type(m) for m in q] == [Scaled, QuantizedLinear]
    (skipped, _) = quantization_report(model, q)
    assert skipped.skipped == "Scaled is a subclass of Linear and may compute something else"


# --------------------------------------------------------------------------------- the report


def test_the_report_names_every_layer_with_parameters():
    model, _ = mixed()
    entries = quantization_report(model, quantize(model, QuantConfig(4, "affine", "per_group", 7)))
    rows = [(e.name, e.kind, e.bits, e.scheme, e.granularity, e.skipped) for e in entries]
    how = (4, "affine", "per_group", "")
    assert rows == [
        ("conv1", "Conv2d", *how),
        ("norm", "BatchNorm2d", None, None, None, "there is no quantized BatchNorm2d"),
        ("depthwise", "Conv2d", *how),
        ("head.1", "Linear", *how),
    ]


def test_the_report_measures_what_was_lost():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data[...] = [[1.0, 0.2]]
    (entry,) = quantization_report(model, quantize(model, QuantConfig(2)))  # becomes [[1, 0]]
    assert entry.max_error == pytest.approx(0.2)
    assert entry.snr_db == pytest.approx(10 * np.log10(1.04 / 0.04))
    model.weight.data[...] = [[1.0, -1.0]]
    (entry,) = quantization_report(model, quantize(model, QuantConfig(2)))
    assert (entry.max_error, entry.snr_db) == (0, np.inf)


def test_the_report_counts_bytes_at_the_bit_width():
    model = nn.Linear(10, 3)  # 30 weights of 4 bytes and 3 biases of 4
    sizes = {}
    for config in (QuantConfig(8), QuantConfig(4), QuantConfig(3), QuantConfig(4, "affine"),
                   QuantConfig(4, "symmetric", "per_group", 4)):  # fmt: skip
        (entry,) = quantization_report(model, quantize(model, config))
        assert entry.float_bytes == 132
        sizes[config] = entry.bytes - 12
    assert list(sizes.values()) == [30 + 12, 15 + 12, 12 + 12, 15 + 12 + 2, 15 + 36]


def test_the_report_refuses_two_different_models():
    q = quantize(models.TinyCNN(4))
    with pytest.raises(ValueError, match="only one has a layer 'conv1'"):
        quantization_report(nn.Sequential(nn.Linear(3, 2)), q)
    with pytest.raises(ValueError, match="'conv1' is a ReLU in one and a QuantizedConv2d"):
        quantization_report(nn.Sequential({"conv1": nn.ReLU()}), q)
    with pytest.raises(ValueError, match="the weight of 'conv1' has shape"):
        quantization_report(models.TinyCNN(5), q)


@pytest.mark.parametrize("config", [
    QuantConfig(8), QuantConfig(4, "affine", "per_group", 4), QuantConfig(8, dynamic=True),
    QuantConfig(8, activations=8),
])  # fmt: skip
def test_codes_that_two_layers_share_are_counted_once_in_a_loaded_model_too(config, tmp_path):
    tied = nn.Linear(6, 6)
    model = nn.Sequential(tied, nn.ReLU(), tied, nn.ReLU(), nn.Linear(6, 2, bias=False))
    x = np.random.default_rng(0).random((9, 6)).astype("f")
    q = quantize(model, config, x if config.activations else None)
    tc.save(q, tmp_path / "q.tcz")
    loaded = tc.load(tmp_path / "q.tcz")
    assert loaded[0] is not loaded[2]
    for each in (q, loaded):
        counted = tc.summary(each, (6,))
        assert counted.parameters == 6 * 6 + 6 + 12
        assert counted.nonzero == sum(q[i].count_parameters()[1] for i in (0, 4))
    loaded[2].weight_codes = loaded[2].weight_codes.copy()
    again = tc.summary(loaded, (6,)).parameters
    assert again == 6 * 6 + 6 + 12 + 6 * 6
