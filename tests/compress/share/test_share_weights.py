"""Whole models: shared, trained, saved and back; and what is refused."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from share_cases import bytes_of, mixed, small
from strategies import seeds

import tinycompress as tc
from tinycompress import models, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.share import SharedConv2d, SharedLayer, SharedLinear, unshare
from tinycompress.format.store import from_bytes, to_bytes


def shared_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, SharedLayer)}


# --------------------------------------------------------------------------------- what it does


def test_every_linear_and_convolution_layer_is_replaced_and_no_other(device):
    model, x = mixed()
    model.to(device)
    before = bytes_of(model)
    shared = tc.share_weights(model, 3)
    kinds = {name: type(m) for name, m in shared.named_modules() if name}
    assert kinds == {
        "conv1": SharedConv2d,
        "norm": nn.BatchNorm2d,
        "conv2": SharedConv2d,
        "tied": SharedConv2d,
        "head": nn.Sequential,
        "head.0": nn.Flatten,
        "head.1": SharedLinear,
    }
    assert shared.device.partition(":")[0] == device
    assert np.isfinite(to_numpy(shared(to_device(x, device)).data)).all()
    assert bytes_of(model) == before


def test_what_layers_share_they_share_afterwards():
    model, _ = mixed()
    shared = tc.share_weights(model, 3)
    assert shared.again is shared.conv2
    assert shared.tied is not shared.conv2
    assert shared.tied.codebook is shared.conv2.codebook
    assert shared.tied.codes is shared.conv2.codes
    assert shared.tied.bias is shared.conv2.bias
    names = [n for n, _ in shared.named_parameters()]
    assert "conv2.codebook" in names
    assert "tied.codebook" not in names


def test_layers_with_the_same_weight_are_chosen_by_the_name_of_the_first():
    """One of them in floats, or with other bits, would be free of the others."""
    model, _ = mixed()
    shared = tc.share_weights(model, {"conv2": 2})
    assert list(shared_layers(shared)) == ["conv2", "tied"]
    assert shared.tied.codebook is shared.conv2.codebook
    left = tc.share_weights(model, 3, skip="conv2")
    assert list(shared_layers(left)) == ["conv1", "head.1"]
    assert left.tied.weight is left.conv2.weight
    with pytest.raises(ValueError, match="no layer to share weights in 'tied'; there are 'conv1'"):
        tc.share_weights(model, {"conv2": 2, "tied": 3})


@pytest.mark.parametrize("bits", [1, 2, 5, 9])
def test_bits_are_those_of_a_surviving_weight(bits):
    """2^bits centroids beside the zero, which takes none of them."""
    model = tc.prune(models.LeNet300100(), 0.5)
    shared = tc.share_weights(model, bits, init="density")
    for name, layer in shared_layers(shared).items():
        values = np.unique(layer.weight.data)
        assert values.size == layer.codebook.size + 1 <= 2**bits + 1
        assert 0 in values
        original = model.get_submodule(name).weight.data
        np.testing.assert_array_equal(layer.weight.data == 0, original == 0)
    assert shared.fc1.codebook.size == 2**bits


def test_each_layer_may_have_its_own_bits():
    shared = tc.share_weights(small(), {"conv1": 2, "f*": 3}, init="density")
    assert {n: m.codebook.size for n, m in shared_layers(shared).items()} == {"conv1": 4, "fc": 8}
    assert type(shared.conv2) is nn.Conv2d


def test_a_skipped_layer_stays_in_floats():
    model = small()
    shared = tc.share_weights(model, 3, skip="conv*")
    assert list(shared_layers(shared)) == ["fc"]
    np.testing.assert_array_equal(shared.conv1.weight.data, model.conv1.weight.data)


def test_a_single_layer_is_a_model():
    assert isinstance(tc.share_weights(nn.Linear(4, 3), 2), SharedLinear)


def test_fifteen_bits_are_not_too_many():
    layer = nn.Linear(4, 3)
    np.testing.assert_array_equal(tc.share_weights(layer, 15).weight.data, layer.weight.data)


def test_more_bits_are_closer():
    model, x = mixed()
    errors = [
        np.abs(tc.share_weights(model, bits)(x).data - model(x).data).max()
        for bits in (1, 3, 5, 10)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0  # a centroid for each weight


def test_random_starts_follow_the_seed_and_differ_between_layers():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    model[1].weight.data[...] = model[0].weight.data
    books = [
        [m.codebook.data.tolist() for m in tc.share_weights(model, 3, init="random", seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert books[0] == books[1] != books[2]
    assert books[0][0] != books[0][1]


def test_unshare_gives_floats_and_masks_back(device):
    model, x = mixed()
    x = to_device(x, device)
    shared = tc.share_weights(tc.prune(model, 0.6), 3).to(device)
    free = unshare(shared)
    assert shared_layers(free) == {}
    assert free.device.partition(":")[0] == device
    np.testing.assert_array_equal(to_numpy(free(x).data), to_numpy(shared(x).data))
    for name in ("conv1", "conv2", "head.1"):
        weight = free.get_submodule(name).weight
        np.testing.assert_array_equal(to_numpy(weight.mask), to_numpy(weight.data) != 0)


def test_what_layers_share_they_share_in_floats_again():
    free = unshare(tc.share_weights(mixed()[0], 3))
    assert free.again is free.conv2 is not free.tied
    assert free.tied.weight is free.conv2.weight
    assert free.tied.bias is free.conv2.bias


# --------------------------------------------------------------------------------------- in files


@pytest.mark.parametrize("bits", [3, 9])
def test_a_file_brings_back_the_same_bits(tmp_path, bits):
    model, x = mixed()
    shared = tc.share_weights(tc.prune(model, 0.5), bits, init="density").eval()
    tc.save(shared, tmp_path / "model.tcz")
    back = tc.load(tmp_path / "model.tcz")
    assert bytes_of(back) == bytes_of(shared)
    assert back.tied.codebook is back.conv2.codebook
    assert back.tied.codes is back.conv2.codes
    np.testing.assert_array_equal(back(x).data, shared(x).data)


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 9),
    st.floats(0, 1),
    st.sampled_from(["float32", "float64", "float16"]),
    seeds,
)
def test_any_layer_comes_back_from_its_bytes(inputs, outputs, bits, sparsity, dtype, seed):
    rng = np.random.default_rng(seed)
    layer = nn.Linear(inputs, outputs).to(dtype).eval()
    layer.weight.data[...] = rng.normal(size=(outputs, inputs))
    layer.weight.data[rng.random((outputs, inputs)) < sparsity] = 0
    shared = tc.share_weights(layer, bits, init="random", seed=seed)
    back = from_bytes(to_bytes(shared))
    assert bytes_of(back) == bytes_of(shared)
    assert back.codebook.dtype == np.dtype(dtype)


@pytest.mark.parametrize("name", ["lenet-5", "lenet-300-100", "article-cnn", "tiny-cnn"])
def test_the_architecture_takes_few_bytes(tmp_path, name):
    shared = tc.share_weights(tc.prune(models.create(name), 0.9), 5)
    tc.save(shared, tmp_path / "model.tcz")
    info = tc.inspect(tmp_path / "model.tcz")
    assert info.architecture_bytes <= 20
    kinds = {"SharedLinear", "SharedConv2d"}
    assert set(info.architecture[2].values()) <= kinds


def test_a_file_of_few_bits_is_smaller():
    model = nn.Linear(100, 100)
    sizes = [len(to_bytes(model))]
    sizes += [len(to_bytes(tc.share_weights(model, bits))) for bits in (8, 5, 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 10


def test_a_codebook_of_no_number_is_kept():
    model = small()
    model.fc.weight.data[...] = 0
    shared = tc.share_weights(model, 3)
    assert bytes_of(from_bytes(to_bytes(shared))) == bytes_of(shared)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m.codes.__setitem__(..., 9), ["fc (SharedLinear)", "code 9", "codebook of 8"]),
        (lambda m: setattr(m, "codebook", nn.Parameter(np.ones(2, "f"))), ["code 8", "of 2"]),
        (lambda m: setattr(m, "codebook", nn.Parameter(np.ones((8, 1), "f"))), ["(8, 1)"]),
        (lambda m: setattr(m, "codes", m.codes[:5]), ["(10, 200)", "(5, 200)"]),
        (lambda m: setattr(m, "codes", m.codes.astype("i1")), ["unsigned", "int8"]),
    ],
    ids=["beyond", "short codebook", "axes", "shape", "signed"],
)
def test_a_file_whose_codes_stand_for_nothing_is_refused(spoil, words):
    """Its checksums are right, so that nothing else would notice."""
    model = tc.share_weights(small(), 3, init="density")
    spoil(model.fc)
    with pytest.raises(tc.FormatError) as caught:
        from_bytes(to_bytes(model))
    assert [word for word in words if word not in str(caught.value)] == []
    assert caught.value.offset > 20


# -------------------------------------------------------------------------------------- refusals


def quantized():
    return tc.quantize(small(), tc.QuantConfig(8))


def with_nan():
    model = small()
    model.conv2.weight.data[0, 0, 0, 0] = np.nan
    model.fc.weight.data[0, 0] = np.inf
    return model


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tc.share_weights("m"), TypeError, ["share_weights", "str"]),
        (lambda: tc.share_weights(nn.ReLU()), ValueError, ["ReLU", "no Linear or Conv2d"]),
        (
            lambda: tc.share_weights(tc.share_weights(small())),
            ValueError,
            ["conv1 (SharedConv2d)", "fc (SharedLinear)", "already", "float model"],
        ),
        (
            lambda: tc.share_weights(tc.share_weights(small(), skip="fc")),
            ValueError,
            ["conv1 (SharedConv2d)", "conv2 (SharedConv2d)", "already"],
        ),
        (
            lambda: tc.share_weights(quantized()),
            ValueError,
            ["conv1 (QuantizedConv2d)", "fc (QuantizedLinear)", "float model"],
        ),
        (
            lambda: tc.share_weights(
                nn.Sequential(nn.Linear(3, 3), tc.quantize(nn.Linear(3, 3)), nn.Linear(3, 3))
            ),
            ValueError,
            ["1 (QuantizedLinear)"],
        ),
        (
            lambda: tc.share_weights(tc.prepare_qat(small())),
            ValueError,
            ["conv1 (PreparedConv2d)", "float model"],
        ),
        (
            lambda: tc.share_weights(tc.compile(small())),
            ValueError,
            ["the model (Compiled)", "made from"],
        ),
        (lambda: tc.share_weights(with_nan()), ValueError, ["conv2", "fc", "NaN or infinite"]),
        (lambda: tc.share_weights(small(), 0), ValueError, ["bits", "conv1", "0"]),
        (lambda: tc.share_weights(small(), 16), ValueError, ["bits", "1 to 15", "16", "quantize"]),
        (lambda: tc.share_weights(small(), 2.5), ValueError, ["bits", "2.5"]),
        (lambda: tc.share_weights(small(), True), ValueError, ["bits", "True"]),
        (lambda: tc.share_weights(small(), {}), ValueError, ["bits", "no layer"]),
        (lambda: tc.share_weights(small(), {"fc7": 5}), ValueError, ["bits", "'fc7'", "'fc'"]),
        (lambda: tc.share_weights(small(), {"fc": "5"}), ValueError, ["bits", "'fc'", "'5'"]),
        (lambda: tc.share_weights(small(), skip="x*"), ValueError, ["skip", "'x*'", "'conv1'"]),
        (lambda: tc.share_weights(small(), skip="*"), ValueError, ["skip", "every layer"]),
        (lambda: tc.share_weights(small(), init="best"), ValueError, ["init", "'best'", "linear"]),
        (lambda: tc.share_weights(small(), seed=-1), ValueError, ["seed", "-1"]),
        (lambda: unshare(small()), ValueError, ["TinyCNN", "shared"]),
        (lambda: unshare(3), TypeError, ["unshare", "int"]),
        (
            lambda: tc.prune(tc.share_weights(small())),
            ValueError,
            ["conv1", "SharedConv2d", "prune the float model first"],
        ),
    ],
    ids=[
        "no model",
        "no layer",
        "shared",
        "partly shared",
        "quantized",
        "partly quantized",
        "prepared",
        "compiled",
        "nan",
        "0 bits",
        "16 bits",
        "2.5 bits",
        "True bits",
        "no bits",
        "unknown layer",
        "a word",
        "unknown skip",
        "all skipped",
        "init",
        "seed",
        "unshare floats",
        "unshare a number",
        "prune",
    ],
)
def test_what_cannot_be_done_is_refused_by_name(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_subclass_stays_in_floats():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x) ** 2

    model = nn.Sequential(Odd(4, 4), nn.Linear(4, 2))
    shared = tc.share_weights(model, 2)
    assert [type(m).__name__ for m in shared] == ["Odd", "SharedLinear"]
    with pytest.raises(ValueError, match=r"subclass \(Odd\)"):
        tc.share_weights(nn.Sequential(Odd(4, 4)))
