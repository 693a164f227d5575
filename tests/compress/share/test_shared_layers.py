"""Layers with a codebook: what they compute, learn, store, count and say about themselves."""

import json

import numpy as np
import pytest
from share_cases import LAYERS, layer_and_input

import tinycompress as tc
from tinycompress import functional as F, nn, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.share import SharedConv2d, SharedLinear
from tinycompress.nn.skeleton import skeletons

each_layer = pytest.mark.parametrize("name", LAYERS)


def shared(name, clusters=5, device="cpu", prune=0.4):
    """(float layer with a share of pruned weights, shared layer, an input)."""
    layer, x = layer_and_input(name, device)
    if prune:
        mask = np.random.default_rng(1).random(layer.weight.shape) >= prune
        layer.weight.mask = to_device(mask, layer.device)
        layer.weight.data = to_device(to_numpy(layer.weight.data) * mask, layer.device)
    kind = SharedLinear if isinstance(layer, nn.Linear) else SharedConv2d
    return layer, kind.from_float(layer, clusters), x


def run(layer, x, weight):
    if isinstance(layer, SharedLinear):
        return F.linear(x, weight, layer.bias)
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(x, weight, layer.bias, *geometry)


@each_layer
class TestEveryLayer:
    def test_it_computes_with_zero_and_the_centroids(self, device, name):
        _, layer, x = shared(name, device=device)
        table = np.r_[np.float32(0), to_numpy(layer.codebook.data)]
        weight = to_device(table[to_numpy(layer.codes)], device)
        np.testing.assert_array_equal(
            to_numpy(layer(x).data), to_numpy(run(layer, x, tc.Tensor(weight)).data)
        )
        assert layer(x).device.startswith(device)

    def test_pruned_weights_have_code_0_and_no_others(self, name):
        original, layer, _ = shared(name)
        np.testing.assert_array_equal(layer.codes == 0, original.weight.data == 0)
        np.testing.assert_array_equal(layer.weight.data == 0, ~original.weight.mask)

    def test_a_centroid_learns_the_sum_of_what_its_weights_would(self, device, name):
        """Equation 3 of the paper, against a layer whose weights are free."""
        _, layer, x = shared(name, device=device)
        free = layer.to_float()
        for one in (layer, free):
            (one(x) ** 2).sum().backward()
        codes, g = to_numpy(layer.codes), to_numpy(free.weight.grad).astype(np.float64)
        sums = [g[codes == k + 1].sum() for k in range(layer.codebook.size)]
        np.testing.assert_allclose(to_numpy(layer.codebook.grad), sums, rtol=1e-4, atol=1e-5)
        if layer.bias is not None:
            np.testing.assert_allclose(
                to_numpy(layer.bias.grad), to_numpy(free.bias.grad), rtol=1e-6
            )

    def test_with_a_centroid_for_each_weight_it_is_the_same_layer(self, name):
        original, layer, x = shared(name, clusters=1000)
        np.testing.assert_array_equal(layer.weight.data, original.weight.data)
        np.testing.assert_array_equal(layer(x).data, original(x).data)

    def test_to_float_computes_the_same_and_draws_nothing(self, name):
        original, layer, x = shared(name)
        before = random.get_state()
        back = layer.to_float()
        assert random.get_state() == before
        assert (type(back), back.config()) == (type(original), original.config())
        np.testing.assert_array_equal(back(x).data, layer(x).data)
        np.testing.assert_array_equal(back.weight.mask, original.weight.mask)

    def test_its_config_makes_the_same_layer(self, name):
        _, layer, x = shared(name, clusters=32, prune=0)
        twin = type(layer)(**json.loads(json.dumps(layer.config())))
        state, blank = layer.state_dict(), twin.state_dict()
        assert list(state) == list(blank)
        assert [a.dtype for a in state.values()] == [a.dtype for a in blank.values()]
        assert twin.config() == layer.config()
        if layer.codebook.size == twin.codebook.size:
            twin.load_state_dict(state)
            np.testing.assert_array_equal(twin(x).data, layer(x).data)

    def test_it_costs_and_counts_as_before(self, device, name):
        original, layer, x = shared(name, device=device)
        shapes = x.shape, layer(x).shape
        assert layer.macs(*shapes) == original.macs(*shapes)
        assert layer.count_parameters() == original.count_parameters()

    def test_the_original_stays_as_it_is(self, name):
        original, layer, _ = shared(name)
        before = {n: a.tobytes() for n, a in original.state_dict().items()}
        layer.codebook.data += 1
        if layer.bias is not None:
            layer.bias.data += 1
        assert {n: a.tobytes() for n, a in original.state_dict().items()} == before


# ----------------------------------------------------------------------------------- its numbers


@pytest.mark.parametrize(("clusters", "dtype"), [(255, np.uint8), (256, np.uint16)], ids=str)
def test_codes_take_two_bytes_from_256_centroids_on(clusters, dtype):
    layer = nn.Linear(40, 20)
    codes = SharedLinear.from_float(layer, clusters, "density").codes
    assert (codes.dtype, int(codes.min()), int(codes.max())) == (dtype, 1, clusters)


def test_a_centroid_at_zero_is_counted_as_zeros():
    _, layer, _ = shared("linear")
    weights = layer.codes.size
    members = int((layer.codes == 2).sum())
    zeros = int((layer.codes == 0).sum())
    layer.codebook.data[1] = 0
    layer.bias.data[...] = 0
    assert layer.count_parameters() == (weights + 3, weights - zeros - members)


def test_weights_under_a_mask_are_pruned_whatever_they_are():
    layer = nn.Linear(3, 2)
    layer.weight.data[...] = [[1, 2, 3], [0, 5, 6]]  # one is 0 and has no mask
    layer.weight.mask = np.array([[True, False, True], [True, True, False]])
    shared = SharedLinear.from_float(layer, 4)
    assert shared.weight.data.tolist() == [[1, 0, 3], [0, 5, 0]]
    assert (shared.codes.tolist(), shared.codebook.data.tolist()) == (
        [[1, 0, 2], [0, 3, 0]],
        [1, 3, 5],
    )


def test_a_layer_that_is_not_pruned_gets_no_mask_back():
    assert SharedLinear.from_float(nn.Linear(4, 3), 3).to_float().weight.mask is None


def test_a_layer_without_a_weight_left_has_an_empty_codebook():
    layer = nn.Linear(3, 2)
    layer.weight.data[...] = 0
    shared = SharedLinear.from_float(layer, 4)
    assert (shared.codebook.shape, shared.weight.data.tolist()) == ((0,), [[0] * 3] * 2)
    assert shared(np.ones((1, 3), "f")).data.tolist() == [layer.bias.data.tolist()]
    shared(np.ones((1, 3), "f")).sum().backward()
    assert shared.codebook.grad.shape == (0,)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_it_keeps_the_dtype_mode_and_freedom_of_its_weights(dtype):
    layer = nn.Linear(5, 4).to(dtype).eval()
    layer.weight.requires_grad = False
    shared = SharedLinear.from_float(layer, 3)
    assert (shared.weight.dtype.name, shared.training) == (dtype, False)
    assert [p.requires_grad for p in shared.parameters()] == [False, True]
    assert shared.to_float().weight.requires_grad is False


def test_it_can_be_another_dtype_and_the_codes_stay():
    _, layer, _ = shared("conv")
    codes = layer.codes.copy()
    layer.to("float64")
    assert (layer.weight.dtype, layer.codes.dtype) == (np.float64, np.uint8)
    np.testing.assert_array_equal(layer.codes, codes)


def test_parameters_are_codebook_and_bias():
    _, layer, _ = shared("linear")
    assert [n for n, _ in layer.named_parameters()] == ["codebook", "bias"]
    assert [n for n, _ in layer.named_buffers()] == ["codes"]
    assert layer.codebook.shape == (5,)
    assert repr(layer) == "SharedLinear(in_features=7, out_features=3, bias=True, clusters=5)"


def test_a_skeleton_takes_no_memory():
    with skeletons():
        layer = SharedConv2d(10**6, 10**6, 99)
    assert layer.codes.strides == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SharedLinear(0, 3), ["in_features", "0"]),
        (lambda: SharedConv2d(3, 4, 3, groups=2), ["groups=2", "in_channels=3"]),
    ],
    ids=["linear", "conv"],
)
def test_sizes_are_checked_as_those_of_float_layers(make, words):
    with pytest.raises(ValueError, match="must") as caught:
        make()
    assert all(word in str(caught.value) for word in words)


# ---------------------------------------------------------------------------------- in a network


def test_it_is_fused_with_what_follows():
    _, layer, x = shared("conv")
    model = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2))
    y = model(x)
    assert "conv2d" in repr(y)
    assert "relu" in repr(y)
    with nn.fusion(False):
        np.testing.assert_allclose(model(x).data, y.data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["conv", "grouped", "linear"])
def test_batch_norm_is_folded_into_it_and_the_codebook_stays(name):
    _, layer, x = shared(name)
    outputs = layer(x).shape[1]
    norm = (nn.BatchNorm1d if name == "linear" else nn.BatchNorm2d)(outputs)
    rng = np.random.default_rng(0)
    norm.running_mean[...] = rng.normal(size=outputs)
    norm.running_var[...] = 1 + rng.random(outputs)
    model = nn.Sequential(layer, norm).eval()
    codebook = layer.codebook.data.copy()
    with tc.no_grad():
        fused, compiled = model(x).data, tc.compile(model)(x).data
        with nn.fusion(False):
            expected = model(x).data
    np.testing.assert_allclose(fused, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer.codebook.data, codebook)
