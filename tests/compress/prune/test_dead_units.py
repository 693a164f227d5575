"""Units that are cut off become zeros, and the model computes what it did before."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from random_networks import RandomNetwork, images as random_images
from shrinking import Residual, assert_same, images, sizes

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import empty_dead_units
from tinycompress.format import to_bytes


def chain(activation=None, **options):
    """2 inputs, 3 units, 3 units, 2 outputs, with weights that are all 1."""
    act = activation or nn.ReLU
    layers = [nn.Linear(2, 3), act(), nn.Linear(3, 3, **options), act(), nn.Linear(3, 2)]
    net = nn.Sequential(dict(zip("afbgc", layers, strict=True)))
    for p in net.parameters():
        p.data[...] = 1
    return net.to("float64")


def dead_units(model):
    """Layer → how many of its rows are all zeros."""
    weights = {
        n: m.weight for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)
    }
    rows = {name: to_numpy(w.data).reshape(len(w.data), -1) for name, w in weights.items()}
    return {name: int((~r.any(axis=1)).sum()) for name, r in rows.items()}


def zeros(model):
    return {name: to_numpy(p.data) == 0 for name, p in model.named_parameters()}


# -------------------------------------------------------------------------------- which are dead


def test_a_unit_that_nobody_reads_loses_what_comes_in():
    net = chain()
    net.c.weight.data[:, 1] = 0
    lean = empty_dead_units(net)
    assert not lean.b.weight.data[1].any()
    assert lean.b.bias.data[1] == 0
    assert dead_units(lean) == {"a": 0, "b": 1, "c": 0}
    assert sum(int(z.sum()) for z in zeros(lean).values()) == 2 + 3 + 1  # column, row, bias


def test_a_unit_without_weights_in_is_a_constant_that_the_next_bias_takes_over():
    net = chain()
    net.b.weight.data[1] = 0
    net.b.bias.data[1] = 0.25
    net.c.weight.data[:, 1] = [2.0, -8.0]
    lean = empty_dead_units(net)
    np.testing.assert_array_equal(lean.c.bias.data, [1 + 0.5, 1 - 2.0])
    assert not lean.c.weight.data[:, 1].any()
    assert lean.b.bias.data[1] == 0


def test_a_constant_that_relu_stops_adds_nothing():
    net = chain()
    net.b.weight.data[1], net.b.bias.data[1] = 0, -3.0
    lean = empty_dead_units(net)
    np.testing.assert_array_equal(lean.c.bias.data, [1, 1])
    assert not lean.c.weight.data[:, 1].any()


def test_an_activation_that_is_not_zero_at_zero_is_taken_over_too():
    net = chain(nn.Sigmoid)
    net.b.weight.data[1], net.b.bias.data[1] = 0, 0
    lean = empty_dead_units(net)
    np.testing.assert_allclose(lean.c.bias.data, [1.5, 1.5], rtol=1e-15)


@pytest.mark.parametrize("forward", [True, False])
def test_death_runs_along_the_chain(forward):
    """A unit that reads only a dead one dies, and so does one that only a dead one reads."""
    net = chain()
    if forward:
        net.a.weight.data[0] = 0
        net.b.weight.data[0, 1:] = 0  # unit 0 of b reads unit 0 of a alone
    else:
        net.c.weight.data[:, 0] = 0
        net.b.weight.data[1:, 0] = 0  # unit 0 of a is read by unit 0 of b alone
    lean = empty_dead_units(net)
    assert dead_units(lean) == {"a": 1, "b": 1, "c": 0}
    assert_same(lean, net, images(2))


def test_inputs_and_outputs_stay_as_they_are():
    net = chain()
    net.a.weight.data[:, 0] = 0  # nobody reads input 0
    net.c.weight.data[0] = 0  # output 0 is its bias
    lean = empty_dead_units(net)
    for name, p in net.named_parameters():
        np.testing.assert_array_equal(dict(lean.named_parameters())[name].data, p.data)


def test_where_everything_is_dead_the_outputs_are_the_constants_of_before():
    net = chain()
    net.b.weight.data[...] = 0
    lean = empty_dead_units(net)
    assert dead_units(lean) == {"a": 3, "b": 3, "c": 2}
    np.testing.assert_array_equal(lean.c.bias.data, [4.0, 4.0])  # 1 + three units of relu(1)


def test_in_a_residual_sum_a_channel_lives_while_one_branch_feeds_it():
    net = Residual(4).to("float64")
    net.stem.weight.data[2] = 0
    assert dead_units(empty_dead_units(net)) == {"stem": 1, "conv1": 0, "conv2": 0, "head": 0}
    assert to_numpy(empty_dead_units(net).head.weight.data)[:, 2].all()
    net.head.weight.data[:, 2] = 0
    net.conv1.weight.data[:, 2] = 0
    lean = empty_dead_units(net)
    assert dead_units(lean)["conv2"] == 1
    assert not lean.norm2.weight.data[2]
    assert_same(lean, net, images(1, 8, 8))


def test_a_constant_beside_zero_padding_is_left_alone():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    net[0].weight.data[1] = 0
    net[0].bias.data[1] = 0.5
    lean = empty_dead_units(net, images(1, 8, 8, dtype="f4"))
    np.testing.assert_array_equal(lean[0].bias.data, net[0].bias.data)
    np.testing.assert_array_equal(lean[2].weight.data, net[2].weight.data)
    net[0].bias.data[1] = -0.5  # behind the ReLU it is 0, beside which zeros are nothing new
    assert not empty_dead_units(net, images(1, 8, 8, dtype="f4"))[2].weight.data[:, 1].any()


def test_a_unit_that_others_see_is_left_alone():
    """Nobody reads it, but behind the softmax over units it changes what the others are."""
    net = chain(lambda: nn.Softmax(axis=-1))
    net.b.weight.data[...] = np.arange(9).reshape(3, 3)
    net.c.weight.data[:, 1] = 0
    lean = empty_dead_units(net)
    np.testing.assert_array_equal(lean.b.weight.data, net.b.weight.data)


# ---------------------------------------------------------------------- the same function as before


def thinned(model, share, seed=0):
    """Weights at random to 0: what is left has dead units in plenty."""
    rng = np.random.default_rng(seed)
    masks = {
        name: rng.random(p.shape) < 1 - share for name, p in model.named_parameters() if p.ndim > 1
    }
    for name, p in model.named_parameters():
        if name in masks:
            p.data[~masks[name]] = 0
    return model


@pytest.mark.parametrize("name", tc.models.names())
@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_model_computes_what_it_did_before(name, share):
    model = thinned(tc.models.create(name).to("float64"), share)
    before = {n: p.data.copy() for n, p in model.named_parameters()}
    lean = empty_dead_units(model)
    assert sizes(lean) == sizes(model)
    assert_same(lean, model, images(1, 28, 28))
    for n, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, before[n])


@settings(max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["plain", "even", "shared"]),
    st.sampled_from([0.5, 0.8, 0.95]),
)
def test_networks_of_any_wiring(seed, mode, share):
    model = thinned(RandomNetwork(seed, mode).to("float64"), share, seed)
    x = random_images()
    lean = empty_dead_units(model, x)
    assert_same(lean, model, x)
    again = empty_dead_units(lean, x)
    for name, p in lean.named_parameters():
        np.testing.assert_array_equal(dict(again.named_parameters())[name].data, p.data)


def test_what_is_cut_off_is_found_as_a_search_along_the_weights_finds_it():
    """The oracle: live are the units on a path from a pixel to an output, over nonzero weights."""
    model = thinned(tc.models.LeNet300100(), 0.985)
    for p in model.parameters():
        if p.ndim == 1:
            p.data[...] = 0  # so that no unit is a constant other than 0
    fc = [model.fc1.weight.data != 0, model.fc2.weight.data != 0, model.fc3.weight.data != 0]
    fed1 = fc[0].any(axis=1)
    fed2 = (fc[1] & fed1).any(axis=1)
    read2 = fc[2].any(axis=0)
    read1 = (fc[1] & read2[:, None]).any(axis=0)
    live1, live2 = fed1 & read1, fed2 & read2
    lean = empty_dead_units(model)
    np.testing.assert_array_equal(lean.fc1.weight.data != 0, fc[0] & live1[:, None])
    np.testing.assert_array_equal(lean.fc2.weight.data != 0, fc[1] & live1 & live2[:, None])
    np.testing.assert_array_equal(lean.fc3.weight.data != 0, fc[2] & live2)
    assert 0 < live1.sum() < 300
    assert 0 < live2.sum() < 100


def test_on_any_device(device):
    net = thinned(tc.models.TinyCNN(), 0.9).to(device)
    lean = empty_dead_units(net)
    assert lean.device == net.device
    for name, p in empty_dead_units(thinned(tc.models.TinyCNN(), 0.9)).named_parameters():
        other = to_numpy(dict(lean.named_parameters())[name].data)
        np.testing.assert_array_equal(other == 0, p.data == 0)


# ------------------------------------------------------------------------------------ what follows


@pytest.mark.parametrize("rule", [optim.SGD, optim.AdamW])
def test_what_was_emptied_stays_empty_in_training(rule):
    net = thinned(chain(nn.Sigmoid), 0.0)
    net.b.weight.data[1] = 0
    net.c.weight.data[:, 2] = 0
    lean = empty_dead_units(net)
    before = zeros(lean)
    optimizer = rule(lean.parameters(), lr=0.1)
    x, labels = images(2), np.array([0, 1, 1, 0, 1])
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(lean(x), labels).backward()
        optimizer.step()
    for name, zero in zeros(lean).items():
        assert zero[before[name]].all(), name


def test_masks_that_were_there_stay():
    thin = tc.prune(tc.models.LeNet300100(), 0.99)
    lean = empty_dead_units(thin)
    for name in ("fc1", "fc2", "fc3"):
        w = lean.get_submodule(name).weight
        assert not (w.mask & ~thin.get_submodule(name).weight.mask).any()
        assert not w.data[~w.mask].any()
    assert tc.sparsity_report(lean).zeros > tc.sparsity_report(thin).zeros


def test_the_file_is_smaller_and_gives_the_same_model(tmp_path):
    thin = tc.prune(tc.models.LeNet300100(), 0.99)
    lean = empty_dead_units(thin)
    assert len(to_bytes(lean)) < len(to_bytes(thin))
    tc.save(lean, tmp_path / "lean.tcz")
    assert_same(tc.load(tmp_path / "lean.tcz"), thin, images(1, 28, 28, dtype="f4"), 1e-5)


def test_a_layer_that_needs_a_bias_gets_one(tmp_path):
    net = chain(bias=False)
    net.a.weight.data[0] = 0
    lean = empty_dead_units(net)
    np.testing.assert_array_equal(lean.b.bias.data, [1, 1, 1])
    assert_same(lean, net, images(2))
    tc.save(lean, tmp_path / "lean.tcz")
    assert_same(tc.load(tmp_path / "lean.tcz"), net, images(2))


def test_a_bias_that_a_layer_got_is_emptied_with_its_unit():
    net = chain(nn.Sigmoid, bias=False)
    net.a.weight.data[0] = 0
    net.b.weight.data[1, 1:] = 0  # unit 1 of b reads unit 0 of a alone
    lean = empty_dead_units(net)
    assert lean.b.bias.data.tolist()[1] == 0
    assert lean.b.bias.data.tolist()[0] > 0
    assert_same(lean, net, images(2))
    assert to_bytes(empty_dead_units(lean)) == to_bytes(lean)


def tied(*, biases=(True, True), same=False):
    """4 inputs, 4 units three times, 2 outputs; the second and third have the same weight."""
    tc.manual_seed(0)
    first, second = (nn.Linear(4, 4, bias=bias) for bias in biases)
    second.weight = first.weight
    if same:
        second.bias = first.bias
    layers = [nn.Linear(4, 4), first, second]
    net = nn.Sequential(*(x for layer in layers for x in (layer, nn.Sigmoid())), nn.Linear(4, 2))
    for layer in layers:
        layer.weight.data[1] = 0
        if layer.bias is not None:
            layer.bias.data[1] = 0
    return net.to("float64")


@pytest.mark.parametrize("biases", [(False, False), (True, False), (False, True), (True, True)])
def test_layers_with_the_same_weight_compute_what_they_did(biases):
    """A bias that one gets for the constants of its inputs is none of the other's."""
    net = tied(biases=biases)
    assert_same(empty_dead_units(net), net, images(4))


def test_layers_that_are_the_same_take_over_once():
    net = tied(same=True)
    lean = empty_dead_units(net)
    assert not lean[2].weight.data[:, 1].any()
    assert lean[2].bias is lean[4].bias
    assert_same(lean, net, images(4))


@pytest.mark.parametrize("other", [0, 3])
def test_a_bias_that_another_layer_has_takes_over_nothing(other):
    """Of a layer before, or of the batch norm behind."""
    tc.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), norm, nn.ReLU(), nn.Linear(4, 2)
    ).to("float64")
    net[other].bias = net[2].bias
    net[0].weight.data[1], net[2].weight.data[1], net[0].bias.data[1] = 0, 0, 0.5
    net.eval()
    assert_same(empty_dead_units(net), net, images(4))


def test_what_has_codes_is_refused_by_name():
    codes = tc.quantize(tc.models.TinyCNN(), tc.QuantConfig(bits=8))
    with pytest.raises(TypeError, match="layer 'conv1' is a Quantized"):
        empty_dead_units(codes)
    with pytest.raises(TypeError, match="takes a model, got int"):
        empty_dead_units(3)
