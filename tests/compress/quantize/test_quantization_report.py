"""The report on layers with activations: what comes in, what int32 has left, what was left out."""

import json

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models, nn
from tinycompress.cli.output import as_json
from tinycompress.compress.quantize import (
    QuantConfig,
    convert,
    fold_batch_norm,
    prepare_qat,
    quantization_report,
    quantize,
)
from tinycompress.compress.quantize.headroom import headroom_bits, incoming_grids
from tinycompress.compress.quantize.integer import IntegerLayer

rng = np.random.default_rng(0)
images = rng.random((30, 1, 28, 28)).astype("f")
WHOLE = QuantConfig(4, activations=6, observer="mse", weight_observer="mse")


class Block(nn.Module):
    """With a norm, a sum, and a forward of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        self.add, self.gelu = nn.Add(), nn.GELU()

    def forward(self, x):
        return self.gelu(self.add(self.norm(self.conv(x)), x))


def residual():
    torso = {"first": nn.Conv2d(1, 2, 3, stride=3), "relu": nn.ReLU(), "block": Block()}
    model = nn.Sequential({**torso, "flatten": nn.Flatten(), "fc": nn.Linear(162, 4)})
    model.block.norm.weight.data[...] = [0.01, -3]
    return model.eval()


def test_every_integer_layer_says_how():
    model = models.TinyCNN()
    q = quantize(model, WHOLE, images)
    entries = quantization_report(model, q, WHOLE)
    assert [e.name for e in entries] == ["conv1", "conv2", "fc"]
    for e in entries:
        assert (e.bits, e.activations, e.arithmetic, e.skipped) == (4, 6, "integers", "")
        assert (e.weight_observer, e.observer, e.learned_step) == ("mse", "mse", False)
        assert e.notes == ()
    without = quantization_report(model, q)
    assert {(e.weight_observer, e.observer, e.learned_step) for e in without} == {(None,) * 3}


def test_the_signal_to_noise_is_that_of_the_codes_in_the_engine():
    model = models.TinyCNN()
    for_weights = quantization_report(model, quantize(model, QuantConfig(4)))
    for_both = quantization_report(model, quantize(model, QuantConfig(4, activations=8), images))
    for a, b in zip(for_weights, for_both, strict=True):
        assert (a.snr_db, a.max_error) == pytest.approx((b.snr_db, b.max_error), rel=1e-4)


@pytest.mark.parametrize("sample", [None, images])
def test_headroom_is_what_is_left_of_int32(sample):
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
    model[0].weight.data[...] = [[1, -1, 0.5]]
    x = np.array([[1, 1, 1], [0, 0, 0]], "f")
    q = quantize(model, QuantConfig(8, activations=8), x)
    first, _ = quantization_report(model, q, sample=x if sample is not None else None)
    codes = q[0].weight_codes  # 127, −127, 64; what comes in: 0 … 255
    reach = 255 * max(codes[codes > 0].sum(), -codes[codes < 0].sum())
    assert first.headroom_bits == pytest.approx(np.log2((2**31 - 1) / reach))


@pytest.mark.parametrize("bits", [(4, 4), (8, 8), (10, 12)])
def test_no_sum_is_farther_than_the_headroom_says(bits):
    model = models.TinyCNN()
    q = quantize(model, QuantConfig(bits[0], activations=bits[1]), images)
    for name, grid in incoming_grids(q).items():
        layer = q.get_submodule(name)
        room = headroom_bits(layer, grid)
        low, high = grid.steps
        best = np.where(layer.weight_codes > 0, high, low)  # the worst that can come in
        sums = (best * layer.weight_codes.astype(np.int64)).reshape(len(best), -1).sum(axis=1)
        assert sums.max() <= (2**31 - 1) / 2**room * (1 + 1e-9)
        product = layer.arithmetic(grid).product
        largest = np.abs(sums + (0 if product.bias is None else np.rint(product.bias))).max()
        assert np.log2((2**31 - 1) / largest) == pytest.approx(room, abs=0.7)


def test_headroom_shrinks_by_a_bit_for_each_bit():
    model = models.TinyCNN()
    room = {
        (w, a): quantization_report(model, quantize(model, QuantConfig(w, activations=a), images))[
            1
        ].headroom_bits
        for w, a in [(4, 4), (8, 4), (4, 8), (8, 8)]
    }
    assert room[4, 4] - room[8, 4] == pytest.approx(4.2, abs=0.3)  # 127 codes instead of 7
    assert room[4, 4] - room[4, 8] == pytest.approx(4.1, abs=0.3)
    assert room[4, 4] - room[8, 8] == pytest.approx(8.3, abs=0.5)


def test_a_residual_model_with_a_forward_of_its_own():
    model = residual()
    q = quantize(model, QuantConfig(8, activations=8), images)
    entries = {e.name: e for e in quantization_report(model, q, sample=images)}
    assert list(entries) == ["first", "block.conv", "block.norm", "block.add", "fc"]
    assert entries["block.norm"].skipped == "folded into the layer before it"
    assert (entries["block.norm"].bytes, entries["block.norm"].float_bytes) == (0, 16)
    add = entries["block.add"]
    assert (add.kind, add.bits, add.activations, add.arithmetic) == ("Add", None, 8, "integers")
    integer = [m for m in q.modules() if isinstance(m, IntegerLayer)]
    assert len(integer) == 3
    for name in ("first", "block.conv", "fc"):
        assert entries[name].headroom_bits > 8
        assert entries[name].snr_db > 35  # the folded weights are what it is compared with


def test_of_a_layer_whose_input_cannot_be_seen_nothing_is_claimed():
    q = quantize(residual(), QuantConfig(8, activations=8), images)
    entry = next(e for e in quantization_report(residual(), q) if e.name == "block.conv")
    assert (entry.activations, entry.headroom_bits) == (None, None)


def test_weights_alone_are_compared_with_folded_ones_where_norms_are_gone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    model[1].weight.data[...] = [0.1, -7]
    entry, norm = quantization_report(model, quantize(model, QuantConfig(8), fold=True))
    assert entry.snr_db > 40
    assert norm.skipped.startswith("folded")
    w, rounded = fold_batch_norm(model)[0].weight.data, quantize(fold_batch_norm(model))[0]
    assert entry.max_error == pytest.approx(np.abs(w - rounded.weight.data).max())


def test_what_the_config_leaves_out_is_said_to_be_left_out():
    model = models.TinyCNN()
    for config, data in ((QuantConfig(8), None), (WHOLE, images)):
        q = quantize(model, config.replace(overrides={"conv2": None}), data)
        entry = quantization_report(model, q)[1]
        assert (entry.name, entry.kind) == ("conv2", "Conv2d")
        assert (entry.skipped, entry.arithmetic) == ("left in floats by the config", "floats")
        assert entry.bytes == entry.float_bytes


def test_dynamic_layers_compute_in_integers():
    model = models.TinyCNN()
    for e in quantization_report(model, quantize(model, QuantConfig(8, dynamic=True))):
        assert (e.activations, e.observer, e.arithmetic) == (8, "each example", "integers")
        assert 5 < e.headroom_bits < 20


def test_learned_steps_are_named():
    model = models.TinyCNN()
    config = QuantConfig(3, activations=4, learn_step=True)
    q = convert(prepare_qat(model, config, images))
    assert {e.learned_step for e in quantization_report(model, q, config)} == {True}
    assert "learned steps" in str(quantization_report(model, q, config))


@pytest.mark.parametrize("config", [QuantConfig(4), WHOLE, QuantConfig(6, dynamic=True)])
def test_the_bytes_are_nearly_those_of_the_file(config, tmp_path):
    model = models.TinyCNN(8)
    q = quantize(model, config, images if config is WHOLE else None)
    counted = sum(e.bytes for e in quantization_report(model, q))
    size = tc.save(q, tmp_path / "q.tcz")
    file = tc.inspect(tmp_path / "q.tcz")
    heads = 30 + 6 * len(file.tensors)  # of the file, and of each tensor in it
    assert counted < size < counted + file.architecture_bytes + heads


def test_a_scale_that_was_widened_is_noted():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    model[0].weight.data[...] = [[1, 1], [1e-9, 0]]
    model[0].bias.data[...] = [0, 1]
    entry = quantization_report(model, quantize(model, WHOLE, np.ones((3, 2), "f")))[0]
    assert "output channel 1: its bias of 1 does not fit into int32" in entry.notes[0]


def test_the_report_is_a_table_and_json():
    model = models.TinyCNN()
    found = quantization_report(model, quantize(model, WHOLE, images), WHOLE)
    head, *rows = str(found).splitlines()
    assert head.split()[-2:] == ["before", "headroom"]
    assert rows[0].split()[:3] == ["conv1", "Conv2d", "4-bit"]
    read = json.loads(as_json(found.to_list()))
    assert [row["name"] for row in read] == ["conv1", "conv2", "fc"]
