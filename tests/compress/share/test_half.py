"""Rounding to half: which numbers, how, and what becomes of centroids that meet."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st
from share_cases import mixed, small

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.share import SharedLayer, round_to_half
from tinycompress.compress.share.half import tidy_codebooks
from tinycompress.format.store import from_bytes, to_bytes


def with_codebook(numbers, codes):
    """A linear layer with just these."""
    layer = tc.share_weights(nn.Linear(len(codes[0]), len(codes)))
    layer.codebook = nn.Parameter(np.array(numbers, "f"))
    layer.codes = np.array(codes, np.uint8)
    return layer


def is_half(array):
    array = to_numpy(array)
    return bool((array.astype(np.float16).astype(array.dtype) == array).all())


def test_what_is_rounded_and_what_is_not(device):
    model, _ = mixed()
    model.norm.running_mean[...] = np.linspace(0.1, 0.7, 4)
    model.norm.weight.data[...] = np.linspace(0.3, 1.7, 4)
    shared = tc.share_weights(model, 4, skip="head*").to(device)
    before = {name: to_numpy(a).copy() for name, a in shared.state_dict().items()}
    half = round_to_half(shared)
    assert half.device.partition(":")[0] == device
    for name, array in half.state_dict().items():
        array = to_numpy(array)
        if name == "head.1.weight" or "codes" in name:
            np.testing.assert_array_equal(array, before[name])
        else:
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, before[name].astype("f2").astype("f"))
    assert not is_half(half.head[1].weight.data)
    for name, array in shared.state_dict().items():  # and the original stays as it was
        np.testing.assert_array_equal(to_numpy(array), before[name])


def test_rounding_is_to_the_nearest_and_ties_go_to_even():
    """Near 1 the numbers of float16 are 2^−10 apart."""
    step = 2.0**-10
    layer = with_codebook([1 + step / 2, 1 + 1.51 * step, 2 + 3 * step], [[1, 2, 3]])
    assert round_to_half(layer).codebook.data.tolist() == [1, 1 + 2 * step, 2 + 4 * step]


def test_twice_is_once_and_the_file_is_smaller():
    shared = tc.share_weights(tc.prune(small(), 0.8), 5)
    half = round_to_half(shared)
    again = round_to_half(half)
    for name, array in half.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    floats = sum(p.size for p in shared.parameters())
    assert len(to_bytes(shared)) - len(to_bytes(half)) >= 1.5 * floats
    back = from_bytes(to_bytes(half))
    assert {n: a.tobytes() for n, a in back.state_dict().items()} == {
        n: a.tobytes() for n, a in half.state_dict().items()
    }


def test_masks_and_modes_stay():
    model = tc.prune(small(), 0.5).eval()
    model.fc.bias.mask = np.arange(10) > 3
    model.fc.bias.data[:4] = 0
    model.conv1.bias.requires_grad = False
    half = round_to_half(model)
    np.testing.assert_array_equal(half.fc.bias.mask, model.fc.bias.mask)
    np.testing.assert_array_equal(half.fc.weight.mask, model.fc.weight.mask)
    assert (half.training, half.conv1.bias.requires_grad) == (False, False)


def test_a_frozen_codebook_stays_frozen():
    shared = tc.share_weights(small(), 3)
    shared.fc.codebook.requires_grad = False
    half = round_to_half(shared)
    assert [m.codebook.requires_grad for m in (half.conv1, half.fc)] == [True, False]


def test_scales_of_quantized_layers_stay():
    model = tc.quantize(small())
    scale = model.fc.weight_scale.copy()
    half = round_to_half(model)
    np.testing.assert_array_equal(half.fc.weight_scale, scale)
    assert is_half(half.fc.bias.data)
    assert not is_half(scale)


# --------------------------------------------------------------------------------- tidy codebooks


def test_centroids_that_become_equal_become_one():
    layer = with_codebook([0.5, 1.0, 1.0001], [[1, 2, 3], [3, 0, 1]])
    half = round_to_half(layer)
    assert half.codebook.data.tolist() == [0.5, 1.0]
    assert half.codes.tolist() == [[1, 2, 2], [2, 0, 1]]


def test_a_centroid_that_becomes_zero_is_the_zero():
    layer = with_codebook([-1.0, 1e-9, 2.0], [[1, 2, 3], [3, 0, 2]])
    half = round_to_half(layer)
    assert half.codebook.data.tolist() == [-1.0, 2.0]
    assert half.codes.tolist() == [[1, 0, 2], [2, 0, 0]]


codebooks = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), max_size=8)


@given(codebooks, st.integers(0, 2**32 - 1))
def test_tidying_changes_no_weight(numbers, seed):
    codes = np.random.default_rng(seed).integers(0, len(numbers) + 1, (3, 4))
    layer = with_codebook(numbers, codes.tolist())
    weight = layer.weight.data.copy()
    tidy_codebooks(layer)
    np.testing.assert_array_equal(layer.weight.data, weight)
    book = layer.codebook.data
    assert (np.diff(book) > 0).all()
    np.testing.assert_array_equal(book, np.unique(weight[weight != 0]))
    np.testing.assert_array_equal(layer.codes == 0, weight == 0)


def test_fewer_than_256_centroids_need_one_byte_again():
    layer = tc.share_weights(nn.Linear(40, 40), 9, init="density")
    layer.codes[layer.codes > 200] = 200
    assert layer.codes.dtype == np.uint16
    tidy_codebooks(layer)
    assert (layer.codes.dtype, layer.codebook.size) == (np.uint8, 200)


def test_layers_with_one_codebook_keep_one():
    model, x = mixed()
    shared = tc.share_weights(model, 3)
    shared.conv2.codebook.data[0] = shared.conv2.codebook.data[1]
    before = shared(x).data
    tidy_codebooks(shared)
    assert shared.tied.codebook is shared.conv2.codebook
    assert shared.tied.codes is shared.conv2.codes
    assert shared.conv2.codebook.size == 7
    np.testing.assert_array_equal(shared(x).data, before)


def test_one_codebook_for_two_layers_loses_only_what_both_do_not_have():
    a, b = with_codebook([1.0, 2.0, 3.0], [[1, 2]]), with_codebook([1.0], [[3, 2]])
    b.codebook = a.codebook
    model = nn.Sequential(a, b)
    a.codes[...] = 1
    tidy_codebooks(model)
    assert a.codebook is b.codebook
    assert a.codebook.data.tolist() == [1.0, 2.0, 3.0]
    assert (a.weight.data.tolist(), b.weight.data.tolist()) == ([[1, 1]], [[3, 2]])


# -------------------------------------------------------------------------------------- refusals


def test_numbers_that_float16_does_not_have_are_refused_by_layer():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].bias.data[0] = 1e5
    model[1].running_var[1] = 65_520  # 65,504 is the largest; this rounds up
    with pytest.raises(ValueError, match="65,504") as caught:
        round_to_half(model)
    assert "0 (Linear): bias, 1 (BatchNorm1d): running_var would" in str(caught.value)
    model[0].bias.data[0], model[1].running_var[1] = np.inf, 65_519  # infinite before, too
    assert round_to_half(model)[1].running_var.tolist() == [1, 65_504]


@pytest.mark.parametrize(
    ("dtype", "value"), [("float16", 65_504), ("float32", 3.4e38), ("float64", 1.7e308)]
)
def test_a_bias_that_few_bits_make_infinite_is_refused(dtype, value):
    """It becomes so before it is a half: 65,504 in two bits is 65,536."""
    layer = nn.Linear(2, 2).to(dtype)
    layer.bias.data[...] = [value, np.inf]
    with pytest.raises(ValueError, match=r"the model \(Linear\): bias would become infinite"):
        round_to_half(layer, 2)


def test_no_model_is_refused():
    with pytest.raises(TypeError, match="round_to_half takes a model, got ndarray"):
        round_to_half(np.ones(3))


def test_a_shared_network_is_rounded_as_a_whole():
    half = round_to_half(tc.share_weights(small(), 4))
    assert all(is_half(p.data) for p in half.parameters())
    assert all(isinstance(m, SharedLayer) for m in (half.conv1, half.conv2, half.fc))


@given(st.integers(1, 10), st.floats(-6e4, 6e4, width=32).filter(lambda v: abs(v) > 1e-4))
def test_a_bias_keeps_so_many_bits(bits, value):
    """It is the nearest among numbers of so many bits, counted here with whole numbers."""
    layer = nn.Linear(1, 1)
    layer.bias.data[...] = value
    exact = float(layer.bias.data[0])
    kept = float(round_to_half(layer, bits).bias.data[0])
    whole, times = kept, 0  # kept is an odd number of at most `bits` bits, times a power of two
    while whole != int(whole):
        whole, times = whole * 2, times + 1
    whole = abs(int(whole))
    while whole and whole % 2 == 0:
        whole //= 2
    assert whole.bit_length() <= bits
    assert abs(kept - exact) <= abs(exact) * 2.0**-bits


def test_only_biases_keep_fewer_bits(device):
    model, _ = mixed()
    model.norm.bias.data[...] = np.linspace(0.1, 0.7, 4)
    shared = tc.share_weights(model, 4, skip="head*").to(device)
    half, coarse = round_to_half(shared), round_to_half(shared, bias_bits=3)
    assert coarse.device.partition(":")[0] == device
    changed = {
        name
        for name, array in coarse.state_dict().items()
        if not np.array_equal(to_numpy(array), to_numpy(half.state_dict()[name]))
    }
    assert changed == {
        name for name in half.state_dict() if name.endswith("bias") and "norm" not in name
    }


def test_fewer_bits_of_biases_are_fewer_bytes():
    layer = nn.Linear(1, 500)
    layer.bias.data[...] = np.random.default_rng(0).normal(size=500)
    sizes = [len(to_bytes(round_to_half(layer, bits))) for bits in (11, 8, 5, 2)]
    for more, fewer in pairwise(sizes):
        assert more - fewer >= 500 * 3 / 8 - 10


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        (0, ValueError, "bias_bits must be an integer ≥ 1, got 0"),
        (12, ValueError, "bias_bits = 12, but float16 has 11 significant bits"),
        (2.0, TypeError, "bias_bits must be an integer, got 2.0"),
    ],
)
def test_bits_that_are_none(bits, error, message):
    with pytest.raises(error, match=message):
        round_to_half(small(), bits)
