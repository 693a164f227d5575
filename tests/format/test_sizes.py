"""What a file costs: the figures that the tables of this project rest on."""

import os

import numpy as np
import pytest
from tcz_samples import with_mask

from tinycompress import format as fmt, models
from tinycompress.compress.quantize import QuantConfig, quantize


def weights_and_biases(model):
    weights = sum(p.data.size for n, p in model.named_parameters() if n.endswith("weight"))
    return weights, sum(p.data.size for n, p in model.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize("name", models.names())
def test_a_float_model_takes_four_bytes_a_number_and_less_than_64_more(name):
    model = models.create(name)
    numbers = sum(weights_and_biases(model))
    assert 0 <= len(fmt.to_bytes(model)) - 4 * numbers < 64


def test_lenet_5_takes_45_bytes_beside_its_numbers():
    model = models.create("lenet-5")
    assert len(fmt.to_bytes(model)) == 1_724_365 == 4 * sum(weights_and_biases(model)) + 45


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8, 12, 16])
def test_a_quantized_model_takes_at_most_its_bits_a_weight(bits):
    model = models.create("lenet-5")
    weights, biases = weights_and_biases(model)
    size = len(fmt.to_bytes(quantize(model, QuantConfig(bits=bits))))
    scales_and_biases = 2 * 4 * biases  # one scale per output channel, as many as biases
    assert size - weights * bits / 8 - scales_and_biases < 150


def test_four_bits_take_half_of_eight():
    model = models.create("lenet-300-100")
    four, eight = (len(fmt.to_bytes(quantize(model, QuantConfig(bits=b)))) for b in (4, 8))
    assert four / eight == pytest.approx(0.5, abs=0.01)


def test_a_pruned_model_takes_less_than_a_bit_a_weight_and_four_bytes_a_weight_that_is_left():
    model = with_mask(models.create("lenet-5"), 0.9)
    weights, biases = weights_and_biases(model)
    left = sum(np.count_nonzero(p.data) for n, p in model.named_parameters() if "weight" in n)
    size = len(fmt.to_bytes(model))
    assert 0 < size - 4 * (left + biases) < weights / 8 + 64


def test_a_pruned_and_quantized_model_takes_a_bit_a_weight_and_its_bits_where_one_is_left():
    model = with_mask(models.create("lenet-5"), 0.9)
    weights, biases = weights_and_biases(model)
    size = len(fmt.to_bytes(quantize(model, QuantConfig(bits=4))))
    assert size < weights / 8 + 0.1 * weights * 4 / 8 + 8 * biases + 200


def test_inspect_accounts_for_every_byte(sample, tmp_path):
    fmt.save(sample, tmp_path / "m.tcz")
    info = fmt.inspect(tmp_path / "m.tcz")
    assert info.bytes == os.path.getsize(tmp_path / "m.tcz")
    assert info.architecture_bytes > 5
    assert 11 <= info.overhead_bytes <= 20
    ends = [t.offset + t.bytes for t in info.tensors]
    assert [t.offset for t in info.tensors[1:]] == ends[:-1]
    assert info.bytes - 4 == (ends[-1] if ends else info.bytes - 4)
    state = sample.state_dict()
    assert [t.name for t in info.tensors] == list(state)
    for tensor in info.tensors:
        array = state[tensor.name]
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype.name)
        assert (tensor.size, tensor.nonzero) == (array.size, np.count_nonzero(array))
        parts = tensor.index_bytes, tensor.value_bytes, tensor.table_bytes
        assert sum(parts) == tensor.bytes
        assert min(parts) >= 0


def test_inspect_says_how_a_tensor_is_written(tmp_path):
    model = quantize(with_mask(models.create("lenet-300-100"), 0.95), QuantConfig(bits=5))
    fmt.save(model, tmp_path / "m.tcz")
    info = fmt.inspect(tmp_path / "m.tcz")
    assert info.model == "lenet-300-100"
    assert info.version == 1
    codes = next(t for t in info.tensors if t.name == "fc1.weight_codes")
    assert codes.how == "predicted"
    assert 0.3 < codes.bits_per_weight < 0.5
    pruned = with_mask(models.create("lenet-300-100"), 0.95)
    fmt.save(pruned, tmp_path / "p.tcz")
    weight, bias = fmt.inspect(tmp_path / "p.tcz").tensors[:2]
    assert (weight.name, weight.masked) == ("fc1.weight", True)
    assert weight.how == "predicted places, values (raw)"
    assert (bias.how, bias.masked) == ("raw", False)
