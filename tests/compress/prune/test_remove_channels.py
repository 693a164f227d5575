"""Channels really removed: fewer numbers, and the same ones as the masked model gives."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from random_networks import RandomNetwork, images as random_images
from shrinking import assert_same, images, masked, outputs, sizes

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.compress.prune.channels import channel_masks
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.nn.summary import summary

# ------------------------------------------------------------------------ the same, and smaller


@pytest.mark.parametrize("name", tc.models.names())
@pytest.mark.parametrize("amount", [0.2, 0.5, 0.9])
def test_a_smaller_model_computes_what_the_masked_one_does(device, name, amount):
    model = tc.models.create(name).to("float64").to(device)
    before = repr(model)
    slim = tc.remove_channels(model, amount)
    assert repr(model) == before
    assert_same(slim, masked(model, channel_masks(model, amount)), images(1, 28, 28, device=device))


@given(
    st.integers(0, 10**6),
    st.sampled_from(["plain", "even", "shared"]),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.booleans(),
)
def test_networks_of_any_wiring(seed, mode, amount, everywhere):
    """With sums, concatenations, grouped convolutions and constants that are not 0."""
    model = RandomNetwork(seed, mode).to("float64")
    x = random_images()
    options = {"scope": "global" if everywhere else "local", "sample": x}
    slim = tc.remove_channels(model, amount, **options)
    pruned = masked(model, channel_masks(model, amount, **options))
    assert_same(slim, pruned, x)
    again = tc.remove_channels(pruned, sample=x)  # those that are masked
    assert sizes(again) == sizes(slim)
    assert_same(again, pruned, x)


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_on_any_device(device, seed):
    model = RandomNetwork(seed).to("float64").to(device)
    x = random_images(device)
    slim = tc.remove_channels(model, 0.5, sample=x)
    assert slim.device == model.device
    assert_same(slim, masked(model, channel_masks(model, 0.5, sample=x)), x)
    on_host = tc.remove_channels(model.copy().to("cpu"), 0.5, sample=random_images())
    assert sizes(on_host) == sizes(slim)


@pytest.mark.parametrize("seed", range(12))
def test_it_trains_as_the_masked_one_does(seed):
    """In training mode, with batch statistics, momentum and weight decay: step by step the same."""
    model = RandomNetwork(seed).to("float64").train()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0
    x, labels = random_images(), np.array([0, 1, 2, 1])
    slim = tc.remove_channels(model, 0.5, sample=x)
    pruned = masked(model, channel_masks(model, 0.5, sample=x))
    assert slim.training
    for net in (slim, pruned):
        net.train()
        optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimizer.step()
    assert_same(slim, pruned, x, 1e-7)
    assert np.abs(outputs(slim, x) - outputs(model, x)).max() > 1e-3


def test_half_the_channels_of_the_article_s_network():
    """By hand: 16 and 32 filters, and 50 units, each reading half as much as before."""
    slim = tc.remove_channels(tc.models.ArticleCNN(), 0.5)
    shapes = [p.shape for p in slim.parameters()]
    assert shapes == [
        (16, 1, 3, 3),
        (16,),
        (32, 16, 3, 3),
        (32,),
        (50, 800),
        (50,),
        (10, 50),
        (10,),
    ]
    macs = 26 * 26 * 9 * 16 + 11 * 11 * 9 * 16 * 32 + 800 * 50 + 50 * 10
    found = summary(slim)
    assert found.macs == macs
    assert found.parameters == sum(int(np.prod(s)) for s in shapes)


def test_weights_that_stay_are_the_very_ones():
    model = tc.models.TinyCNN()
    keep = channel_masks(model, 0.5)
    slim = tc.remove_channels(model, 0.5)
    rows = keep["conv1.bias"]
    np.testing.assert_array_equal(slim.conv1.weight.data, model.conv1.weight.data[rows])
    np.testing.assert_array_equal(
        slim.conv2.weight.data, model.conv2.weight.data[keep["conv2.bias"]][:, rows]
    )
    np.testing.assert_array_equal(slim.fc.bias.data, model.fc.bias.data)


def test_masks_freezing_and_sharing_stay():
    model = tc.models.LeNet300100()
    model.fc2.weight.requires_grad = False
    mask = np.random.default_rng(0).random(model.fc2.weight.shape) < 0.5
    apply_masks(model, {"fc2": mask})
    slim = tc.remove_channels(model, {"fc1": 0.5})
    kept = channel_masks(model, {"fc1": 0.5})["fc1.bias"]
    np.testing.assert_array_equal(slim.fc2.weight.mask, mask[:, kept])
    assert not slim.fc2.weight.requires_grad
    assert slim.fc1.weight.mask is None


class Twice(nn.Module):
    """One convolution called twice, one weight in two layers, and a bias that they share."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)
        self.right.weight = self.left.weight
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.again(self.again(self.stem(x).relu()).relu())
        x = self.norm(self.left(x)).relu() * self.norm(self.right(x)).relu()
        return self.head(x.mean(axis=(2, 3)))


def test_layers_called_twice_and_weights_in_two_layers():
    model = Twice().to("float64")
    x = images(1, 5, 5)
    slim = tc.remove_channels(model, 0.5, sample=x)
    assert slim.right.weight is slim.left.weight
    assert slim.left.weight.shape == (2, 3, 1, 1)
    assert slim.again.weight.shape == (3, 3, 3, 3)
    assert (slim.right.in_channels, slim.right.out_channels) == (3, 2)
    assert_same(slim, masked(model, channel_masks(model, 0.5, sample=x)), x)


# ----------------------------------------------------------------------------------- constants


@pytest.mark.parametrize("bias", [True, False])
def test_what_a_removed_channel_was_goes_into_the_next_bias(bias):
    """σ(0) = ½: without that the outputs would be others."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 4, 3, bias=bias), nn.Flatten(),
        nn.Linear(4, 5), nn.GELU(), nn.Sigmoid(), nn.Linear(5, 3, bias=bias),
    ).to("float64")  # fmt: skip
    x = images(1, 5, 5)
    slim = tc.remove_channels(model, 0.5)
    gone = ~channel_masks(model, 0.5)["0.bias"]
    kept = channel_masks(model, 0.5)["2.weight"].any(axis=(1, 2, 3))
    added = 0.5 * model[2].weight.data[:, gone].sum(axis=(1, 2, 3))
    before = model[2].bias.data if bias else 0
    np.testing.assert_allclose(slim[2].bias.data, (before + added)[kept], rtol=1e-12)
    assert slim[7].config()["bias"]
    assert_same(slim, masked(model, channel_masks(model, 0.5)), x)


def test_a_norm_without_factors_leaves_a_constant():
    norm = nn.BatchNorm2d(4, affine=False)
    norm.running_mean[...] = [1, 2, 3, 4]
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    model = model.to("float64")
    slim = tc.remove_channels(model, 0.5)
    assert slim[1].running_mean.shape == (2,)
    assert slim[1].num_features == 2
    assert_same(slim, masked(model, channel_masks(model, 0.5)), images(1, 5, 5))


def test_a_constant_beside_zeros_of_padding_is_refused():
    model = nn.Sequential(
        {"a": nn.Conv2d(1, 4, 3), "f": nn.Sigmoid(), "b": nn.Conv2d(4, 2, 3, padding=1)}
    )
    with pytest.raises(ValueError, match=r"a: masked, .* not 0.*conv2d in b \(Conv2d\) pads") as e:
        tc.remove_channels(model, 0.5)
    assert "skip=['a']" in str(e.value)


class Activated(nn.Module):
    """One convolution reads another one through two activations."""

    def __init__(self, f, g):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)
        self.f, self.g = f, g

    def forward(self, x):
        y = self.a(x)
        return self.b(self.f(y)) + self.b(self.g(y))


def test_different_constants_in_one_bias_are_refused():
    with pytest.raises(ValueError, match=r"a: conv2d in b .* different constants"):
        tc.remove_channels(Activated(nn.Sigmoid(), nn.ReLU()), 0.5)
    model = Activated(nn.Sigmoid(), nn.Sigmoid()).to("float64")
    slim = tc.remove_channels(model, 0.5)
    assert_same(slim, masked(model, channel_masks(model, 0.5)), images(1, 5, 5))


class Hidden(nn.Module):
    """Computes something of the input behind the engine's back."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.b(self.a(x) + x.data.mean(axis=(1, 2, 3), keepdims=True))


def test_a_broken_batch_norm_is_refused_as_such():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    ).eval()
    model[1].running_var[:] = np.nan
    with pytest.raises(ValueError, match=r"0: what conv2d in 3 .* is NaN or infinite") as error:
        tc.remove_channels(model, 0.5, sample=images(1, 8, 8))
    assert "pads" not in str(error.value)


def test_a_channel_that_is_no_constant_when_masked_is_refused():
    with pytest.raises(ValueError, match=r"a: what conv2d in b .* is no constant"):
        tc.remove_channels(Hidden(), 0.5)


def test_rows_without_weights_are_constants_too():
    """Pruned by rows, a channel still gives its bias: f(b) goes into the next one."""
    model = tc.models.ArticleCNN().to("float64")
    model.conv1.weight.data[::2] = 0
    model.fc1.weight.data[:, :25] = 0
    model.fc1.weight.data[10:] = 0
    slim = tc.remove_channels(model)
    assert sizes(slim)["conv1.weight"] == (16, 1, 3, 3)
    assert sizes(slim)["fc2.weight"] == (10, 10)
    assert_same(slim, model, images(1, 28, 28))


def test_a_channel_that_a_bias_cannot_take_over_stays_where_none_was_asked_for():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    model[0].weight.data[:3] = 0
    model[0].bias.data[:3] = [1, 0, -1]  # ReLU: 1, 0, 0
    slim = tc.remove_channels(model.to("float64"))
    assert slim[0].out_channels == 2
    assert_same(slim, model, images(1, 5, 5))


def test_nothing_pruned_is_nothing_removed():
    model = tc.models.TinyCNN()
    slim = tc.remove_channels(model)
    assert repr(slim) == repr(model)
    assert slim is not model


def test_one_channel_stays_though_all_are_zero():
    model = tc.models.LeNet300100()
    model.fc2.weight.data[...] = 0
    assert tc.remove_channels(model).fc2.weight.shape == (1, 300)


# ------------------------------------------------------------------------------------ refusals


class Sized(nn.Module):
    """Its forward holds the number of its channels, and of those of another layer not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc1, self.fc2 = nn.Linear(54, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc2(self.fc1(self.conv(x).relu().reshape(-1, 54)).relu())


def test_a_size_in_a_forward_is_refused_by_the_layer_that_it_is_about():
    model = Sized()
    with pytest.raises(ValueError, match=r"conv: the smaller model cannot run.*reshape") as error:
        tc.remove_channels(model, 0.5)
    assert "skip=['conv']" in str(error.value)
    assert tc.remove_channels(model, 0.5, skip="conv").fc1.weight.shape == (4, 54)


class Shuffled(nn.Module):
    """Takes channels by number, all of them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.conv2(self.conv1(x)[:, [2, 3, 0, 1]])


def test_channels_by_number_are_refused():
    with pytest.raises(ValueError, match="conv1: "):
        tc.remove_channels(Shuffled(), 0.5)


class ChannelShuffle(nn.Module):
    """ShuffleNet's: channels of two halves in turn. It runs with any even number of them."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        y = self.conv1(x)
        n, c, h, w = y.shape
        y = y.reshape(n, 2, c // 2, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
        return self.conv2(y)


def test_what_would_run_and_compute_something_else_is_refused():
    model = ChannelShuffle()
    model.conv1.weight.data[:3] *= 1e-3  # three of one half go, and one of the other
    with pytest.raises(ValueError, match="conv1: the smaller model does not compute what"):
        tc.remove_channels(model, 0.5)
    model.conv1.weight.data[4:7] *= 1e-6
    slim = tc.remove_channels(model, 0.75)  # three of each
    assert slim.conv1.out_channels == 2


def test_a_softmax_over_channels_is_refused_before_anything_is_changed():
    model = nn.Sequential(
        {"a": nn.Conv2d(1, 4, 3), "s": nn.Softmax(1), "b": nn.Conv2d(4, 4, 3)}
        | {"c": nn.Conv2d(4, 1, 1)}
    )
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"a: softmax in s \(Softmax\) mixes its channels"):
        tc.remove_channels(model, 0.5)
    assert all(np.array_equal(a, state[n]) for n, a in model.state_dict().items())
    slim = tc.remove_channels(model, 0.5, skip=["a"])
    assert [slim.a.out_channels, slim.b.out_channels] == [4, 2]
    assert tc.remove_channels(model, {"b": 0.5}).b.out_channels == 2


def test_inputs_and_outputs_stay():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    slim = tc.remove_channels(model, 0.5)
    assert [layer.out_channels for layer in slim] == [3, 4, 4]
    for layer in ("0", "2"):
        with pytest.raises(ValueError, match=f"layer '{layer}' are the model's inputs or outputs"):
            tc.remove_channels(model, {layer: 0.5})
    with pytest.raises(ValueError, match="no channel of Linear can go"):
        tc.remove_channels(nn.Linear(3, 2), 0.5)
    with pytest.raises(ValueError, match="no Linear or Conv2d"):
        tc.remove_channels(nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), 0.5)


def test_a_classifier_that_ends_in_softmax_is_no_problem():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.Softmax())
    assert tc.remove_channels(model, 0.5)[0].out_features == 3


BAD = [
    ({"amount": 1.0}, "amount must be at least 0 and below 1"),
    ({"amount": -0.1}, "below 1"),
    ({"amount": float("nan")}, "below 1"),
    ({"amount": {"fc7": 0.5}}, "amount: there is no .*'fc7'.*'conv1'"),
    ({"amount": {"fc1": 2}}, "'fc1'.* below 1"),
    ({"amount": 0.5, "skip": "pool1"}, "skip: there is no .*'pool1'"),
    ({"amount": 0.5, "scope": "here"}, "scope must be one of .*'here'"),
    ({"amount": 0.5, "importance": "size"}, "importance must be one of .*'size'"),
    ({"amount": 0.5, "importance": "taylor"}, "taylor.*data="),
    ({"amount": 0.5, "importance": "batch_norm"}, "'conv1', 'conv2', 'fc1'; skip="),
    ({"amount": 0.5, "keep_at_least": -1}, "keep_at_least"),
    ({"amount": 0.5, "keep_at_least": 1.5}, "keep_at_least"),
    ({"amount": 0.5, "keep_at_least": {"x": 2}}, "keep_at_least: there is no .*'x'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tc.remove_channels(tc.models.ArticleCNN(), **arguments)


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match=r"amount must be a number, got '0\.5'"):
        tc.remove_channels(tc.models.TinyCNN(), "0.5")
    with pytest.raises(TypeError, match="takes a model, got str"):
        tc.remove_channels("model.tcz")


def test_models_in_codes_are_refused():
    train = tc.data.mnist()[0].take(64)
    weights, both = tc.QuantConfig(bits=8, activations=None), tc.QuantConfig(bits=8)
    for model in (
        tc.prepare_qat(tc.models.TinyCNN(), weights),
        tc.quantize(tc.models.TinyCNN(), weights),
        tc.quantize(tc.models.TinyCNN(), both, calibration=train),
        tc.quantize(tc.models.TinyCNN(), tc.QuantConfig(bits=8, dynamic=True)),
    ):
        with pytest.raises(TypeError, match=r"layer '.*' is a .*float model first"):
            tc.remove_channels(model, 0.5)


def test_numbers_that_are_none_are_compared_as_they_are():
    model = tc.models.TinyCNN()
    model.fc.bias.data[:2] = [np.nan, np.inf]
    assert tc.remove_channels(model, 0.5).conv1.out_channels == 2
