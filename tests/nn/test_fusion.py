"""Chains of layers: they compute what their layers compute, and who is looked into stands alone."""

import threading

import numpy as np
import pytest
from hypothesis import given, strategies as st
from strategies import pairs, seeds

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.graph import Node, topological_order
from tinycompress.nn.fusion import Nothing
from tinycompress.ops import activations
from tinycompress.ops.steps import Step
from tinycompress.tensor import Tensor

TOLERANCES = {"float32": {"rtol": 2e-4, "atol": 2e-5}, "float64": {"rtol": 1e-9, "atol": 1e-11}}


def operations(y):
    """The names of the operations that made ``y``, first to last."""
    order = topological_order(y._node)
    return [item.name for item in order if isinstance(item, Node)]


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def shaken(net, seed=1):
    """``net`` with parameters and statistics that are not those of a new layer."""
    rng = np.random.default_rng(seed)
    for module in net.modules():
        for p in module._parameters.values():
            if p is not None:
                p.data += (rng.normal(size=p.shape) / 4).astype(p.dtype)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            n = module.num_features
            module.running_mean = rng.normal(size=n).astype(module.running_mean.dtype)
            module.running_var = rng.uniform(0.5, 2, n).astype(module.running_var.dtype)
    return net


def everything(net, x):
    """The output and the gradients of input and parameters, for some loss."""
    tc.manual_seed(3)  # dropout
    x = Tensor(x, requires_grad=True)
    y = net(x)
    weights = np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    loss = (y * to_device(weights, y.device)).sum()
    parameters = [p for p in net.parameters() if p.requires_grad]
    return y, [y.data, *tc.grad(loss, [x, *parameters])]


def assert_fused_equals_unfused(net, x):
    y, fused = everything(net, x)
    with nn.fusion(False):
        _, alone = everything(net.copy(), x)
    tc.manual_seed(3)
    with tc.no_grad():
        quiet = net.copy()(x).data
    for a, b in zip([*fused, quiet], [*alone, alone[0]], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), **TOLERANCES[a.dtype.name])
    return y


# ------------------------------------------------------------------------------- what is computed

CHAINS = {
    "conv2d+relu+max_pool2d": lambda: (nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
    "conv2d+max_pool2d+relu": lambda: (nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.ReLU()),
    "conv2d+max_pool2d": lambda: (nn.Conv2d(2, 3, 3), nn.MaxPool2d((2, 3))),
    "conv2d+relu+avg_pool2d": lambda: (nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(2)),
    "conv2d+gelu+max_pool2d+tanh": lambda: (
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.GELU(),
        nn.MaxPool2d(3),
        nn.Tanh(),
    ),
    "conv2d+leaky_relu+max_pool2d": lambda: (
        nn.Conv2d(2, 4, 3, 2, 1, groups=2),
        nn.LeakyReLU(-0.5),
        nn.Identity(),
        nn.MaxPool2d(2),
    ),
    "linear+relu": lambda: (nn.Linear(9, 4), nn.ReLU()),
    "linear+silu+sigmoid": lambda: (nn.Linear(9, 4, bias=False), nn.SiLU(), nn.Sigmoid()),
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_one_operation_and_gives_what_its_layers_give(name, dtype, device):
    net = nn.Sequential(*CHAINS[name]()).to(dtype).to(device)
    x = to_device(normal(3, 2, 11, 9, dtype=dtype), device)
    assert operations(assert_fused_equals_unfused(net, x)) == [name]


@pytest.mark.parametrize("turning", [nn.GELU(), nn.SiLU(), nn.LeakyReLU(-0.5)])
def test_an_activation_that_falls_somewhere_does_not_change_places_with_a_maximum(turning):
    conv = nn.Conv2d(1, 1, 1, bias=False)
    conv.weight.data[...] = 1
    x = -2 * np.abs(normal(2, 1, 6, 6)) - 0.8  # where GELU and SiLU mostly fall
    y = assert_fused_equals_unfused(nn.Sequential(conv, turning, nn.MaxPool2d(2)), x)
    assert len(operations(y)) == 1


@st.composite
def convolution_layers(draw, channels):
    """A convolution with some of its geometry, and some layers that may follow it."""
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    out = groups * draw(st.integers(1, 3))
    conv = nn.Conv2d(
        channels,
        out,
        draw(pairs(1, 3)),
        draw(pairs(1, 2)),
        draw(pairs(0, 2)),
        draw(pairs(1, 2)),
        groups,
        draw(st.booleans()),
    )
    return [conv, *draw(st.lists(followers(out, image=True), max_size=4))], out


def followers(size, image):
    """Layers that keep the number of channels, most of which can be steps of a chain."""
    make = [
        st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.Identity]).map(
            lambda kind: kind()
        ),
        st.sampled_from([0.2, 0.0, -0.3]).map(nn.LeakyReLU),
        st.sampled_from([0.0, 0.4]).map(nn.Dropout),
        st.booleans().map(
            lambda affine: (nn.BatchNorm2d if image else nn.BatchNorm1d)(size, affine=affine)
        ),
    ]
    if image:
        kind, kernel = st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]), pairs(1, 3)
        make.append(st.builds(lambda kind, k: kind(k), kind, kernel))
        make.append(st.builds(lambda kind, k, s: kind(k, s), kind, kernel, pairs(1, 3)))
        make.append(st.builds(lambda kind, k: kind(k, ceil_mode=True), kind, kernel))
        make.append(st.builds(lambda kind: kind(2, padding=1), kind))
    return st.one_of(make)


@st.composite
def networks(draw):
    """A Sequential, and an image or a vector for it."""
    layers, size = [], draw(st.integers(1, 3))
    image = draw(st.booleans())
    shape = (2, size, *draw(pairs(4, 13))) if image else (3, size)
    for _ in range(draw(st.integers(1, 2))):
        if image:
            more, size = draw(convolution_layers(size))
        else:
            out = draw(st.integers(1, 4))
            more = [nn.Linear(size, out, draw(st.booleans()))]
            more += draw(st.lists(followers(out, image=False), max_size=4))
            size = out
        layers += more
    net = nn.Sequential(*layers).train(draw(st.booleans()))
    dtype, seed = draw(st.sampled_from(list(TOLERANCES))), draw(seeds)
    return shaken(net.to(dtype), seed), normal(*shape, seed=seed, dtype=dtype)


@given(networks())
def test_any_sequential_fused_equals_unfused(drawn):
    """The output, the gradients of input and parameters, and what an error says."""
    net, x = drawn
    if fails(net.copy(), x):
        failing(net, x)
    else:
        assert_fused_equals_unfused(net, x)


def fails(net, x):
    try:
        with nn.fusion(False):
            net(x)
    except ValueError:
        return True
    return False


# ------------------------------------------------------------------------------ batch norm, folded


def norm_calls(net, x):
    """How many batch norms ran by themselves."""
    calls, kind = [], nn.BatchNorm1d.__mro__[1]  # the class that defines forward and in_chain
    forward = kind.forward

    def spy(self, *inputs):
        calls.append(self)
        return forward(self, *inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "forward", spy)
        net(x)
    return len(calls)


NORMED = {
    "conv": lambda: (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
    "conv, no bias": lambda: (nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()),
    "conv, no affine": lambda: (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.Tanh()),
    "conv, two norms": lambda: (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, 0.1)),
    "conv, groups": lambda: (nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.MaxPool2d(2)),
    "linear": lambda: (nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU()),
    "linear, no bias": lambda: (nn.Linear(9, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU()),
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NORMED)
def test_batch_norm_in_evaluation_is_folded_into_the_weights(name, dtype, device):
    net = shaken(nn.Sequential(*NORMED[name]())).to(dtype).eval()
    for norm in net:
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.affine:
            norm.weight.data[0] = -1.5  # a scale below 0 turns the order of values round
            assert (norm.weight.data > 0).any()
    net.to(device)
    before = net.state_dict()
    x = normal(5, 9, dtype=dtype) if "linear" in name else normal(3, 2, 8, 9, dtype=dtype)
    x = to_device(x, device)
    with nn.fusion(False), tc.no_grad():
        expected = net(x).data
    with tc.no_grad():
        y = net(x).data
        assert norm_calls(net, x) == 0
    assert y.dtype == dtype
    np.testing.assert_allclose(to_numpy(y), to_numpy(expected), **TOLERANCES[dtype])
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(to_numpy(array), to_numpy(before[key]))


def test_batch_norm_is_not_folded_where_gradients_are_recorded():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    x = normal(2, 1, 5, 5)
    assert norm_calls(net, x) == 1
    net[0].requires_grad_(False)
    assert norm_calls(net, x) == 1  # batch norm still learns
    net[0].requires_grad_(True)
    net[1].requires_grad_(False)
    assert norm_calls(net, x) == 1  # the convolution learns, through batch norm
    net.requires_grad_(False)
    assert norm_calls(net, x) == 0
    assert norm_calls(net, Tensor(x, requires_grad=True)) == 1
    net.requires_grad_(True)
    with tc.no_grad():
        assert norm_calls(net, x) == 0
        assert norm_calls(net.train(), x) == 1


def test_a_norm_over_another_axis_than_the_heads_outputs_is_not_folded():
    """(N, L, in) → (N, L, out), normalised over L; with L = out nothing but the axes tells."""
    net = shaken(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())).eval()
    assert_fused_equals_unfused(net, normal(5, 3, 4))
    net = shaken(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(3), nn.ReLU())).eval()
    assert_fused_equals_unfused(net, normal(5, 3, 4))


# ---------------------------------------------------------------------------- what is looked into

PLAIN = ["conv2d+relu+max_pool2d", "reshape", "linear"]
APART = ["conv2d", "relu", "max_pool2d", "reshape", "linear"]


def small():
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(8, 3),
        }
    )


X = normal(2, 1, 6, 6)


def test_a_tapped_layer_stands_alone_and_its_hook_sees_what_it_saw():
    net, seen = small(), {}
    with nn.fusion(False):
        expected = {"conv": net.conv(X).data, "relu": net.relu(net.conv(X)).data}
    expected["pool"] = net.pool(expected["relu"]).data
    cuts = {
        "conv": APART,
        "relu": APART,  # a chain begins with a convolution, so pooling is alone too
        "pool": ["conv2d+relu", *APART[2:]],
    }
    for name, operations_then in cuts.items():
        layer = net.get_submodule(name)
        with layer.register_forward_hook(lambda m, _, y: seen.update({m._name: y.data})):
            assert operations(net(X)) == operations_then
        np.testing.assert_allclose(seen[name], expected[name], rtol=1e-5, atol=1e-6)
        assert operations(net(X)) == PLAIN


def test_a_hook_may_replace_what_a_layer_inside_gives():
    net = small()
    with net.relu.register_forward_hook(lambda m, i, y: y * 0):
        np.testing.assert_allclose(net(X).data, np.tile(net.fc.bias.data, (2, 1)), rtol=1e-6)


def test_a_replaced_forward_is_called():
    net, calls = small(), []
    net.relu.forward = lambda x: calls.append("relu") or F.relu(x)
    assert operations(net(X)) == APART
    assert calls == ["relu"]
    del net.relu.forward
    assert operations(net(X)) == PLAIN


class Doubled(nn.ReLU):
    def forward(self, x):
        return super().forward(x) * 2


class DoubledAtTheCall(nn.ReLU):
    def __call__(self, x):
        return super().__call__(x) * 2


class DoubledByItsParent(Doubled):
    pass


class OnlyAnotherName(nn.ReLU):
    pass


class Squared(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) ** 2


@pytest.mark.parametrize("kind", [Doubled, DoubledAtTheCall, DoubledByItsParent])
def test_a_subclass_with_a_forward_of_its_own_stands_alone(kind):
    net = small()
    expected = net.pool(net.relu(net.conv(X)) * 2).data
    net.relu = kind()
    np.testing.assert_allclose(net[:3](X).data, expected, rtol=1e-6)
    assert operations(net[:3](X)) == ["conv2d", "relu", "multiply", "max_pool2d"]


def test_so_does_a_head():
    net = nn.Sequential(Squared(1, 2, 3), nn.ReLU())
    assert operations(net(X)) == ["conv2d", "power", "relu"]


def test_a_subclass_that_changes_nothing_is_fused():
    net = small()
    net.relu = OnlyAnotherName()
    assert operations(net(X)) == PLAIN


class Clipped(nn.Module):
    """A layer of the reader's own that says what it is."""

    def forward(self, x):
        return F.relu(x)

    def in_chain(self):
        return Step("clipped", activations.relu, {}, monotone=True)


class Kept(Doubled):
    """Says that it does nothing, whatever the class above it does."""

    def in_chain(self):
        return Nothing()


def test_a_layer_of_ones_own_can_join():
    net = small()
    net.relu = Clipped()
    assert operations(net(X))[0] == "conv2d+clipped+max_pool2d"
    net.relu = Kept()
    assert operations(net(X))[0] == "conv2d+max_pool2d"


def test_nothing_is_fused_under_detect_anomaly():
    with tc.detect_anomaly():
        assert not nn.fusion_enabled()
        assert operations(small()(X)) == APART
    net = small()
    net.conv.weight.data[...] = 3e38
    with tc.detect_anomaly(), pytest.raises(tc.AnomalyError, match=r"^conv2d: the forward"):
        net(np.full_like(X, 9))


def test_layers_with_codes_for_weights_are_fused():
    net = tc.quantize(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval())
    assert operations(assert_fused_equals_unfused(net, normal(2, 4))) == ["linear+relu"]


def test_pruned_layers_are_fused():
    """The mask is the parameter's; the forward pass does not see it."""
    net = small()
    net.conv.weight.mask = np.zeros(net.conv.weight.shape, bool)
    net.conv.weight.data[...] = 0
    assert operations(assert_fused_equals_unfused(net, X)) == PLAIN


def test_what_cannot_be_a_step_ends_the_chain():
    conv, fc = nn.Conv2d(1, 2, 3), nn.Linear(4, 4)
    cases = [
        ((conv, nn.BatchNorm2d(2), nn.ReLU()), "conv2d, batch_norm, relu"),
        ((conv, nn.MaxPool2d(2, 1), nn.ReLU()), "conv2d, max_pool2d, relu"),
        ((conv, nn.MaxPool2d(2, padding=1)), "conv2d, max_pool2d"),
        ((conv, nn.AvgPool2d(2, ceil_mode=True)), "conv2d, avg_pool2d"),
        (
            (conv, nn.MaxPool2d(2), nn.AvgPool2d(1), nn.ReLU()),
            "conv2d+max_pool2d, avg_pool2d, relu",
        ),
        ((conv, nn.ReLU(), nn.Dropout(0.5), nn.Tanh()), "conv2d+relu, dropout, tanh"),
        ((fc, nn.MaxPool2d(2)), "linear, max_pool2d"),
        ((fc, nn.Softmax(), nn.ReLU()), "linear, softmax, relu"),
        ((nn.ReLU(), nn.MaxPool2d(2)), "relu, max_pool2d"),
    ]
    for layers, expected in cases:
        x = Tensor(normal(2, 1, 4, 4), requires_grad=True)
        assert operations(nn.Sequential(*layers)(x)) == expected.split(", ")


def test_dropout_in_training_is_not_left_out_of_a_chain():
    net = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.ReLU())
    assert operations(net(normal(2, 4))) == ["linear", "dropout", "relu"]
    assert operations(net.eval()(normal(2, 4))) == ["linear+relu"]


# ---------------------------------------------------------------------------- what changes is seen


def test_each_pass_sees_the_layers_as_they_are():
    net = small()
    assert operations(net(X)) == PLAIN
    net.relu = nn.Tanh()
    assert operations(net(X))[0] == "conv2d+tanh+max_pool2d"
    net.set_submodule("pool", nn.MaxPool2d(2, 2, 1))
    assert operations(net(X[:, :, :4, :4]))[0] == "conv2d+tanh"
    net.pool = nn.Identity()
    net.relu = None
    with pytest.raises(ValueError, match="in_features = 8"):
        net(X)
    net.fc = nn.Linear(32, 3)
    assert operations(net(X)) == ["conv2d", "reshape", "linear"]
    net.conv.weight = nn.Parameter(net.conv.weight.data * 0)
    net.conv.bias = None
    np.testing.assert_allclose(net(X).data, np.tile(net.fc.bias.data, (2, 1)), rtol=1e-6)


def test_a_module_that_stands_twice():
    conv, relu = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
    net = nn.Sequential({"a": conv, "b": relu, "c": conv, "d": relu})
    y = assert_fused_equals_unfused(net, normal(2, 2, 5, 5))
    assert operations(y) == ["conv2d+relu", "conv2d+relu"]


def test_frozen_weights_get_no_gradient():
    net = small()
    net.conv.weight.requires_grad = False
    net(X).sum().backward()
    assert net.conv.weight.grad is None
    assert net.conv.bias.grad is not None
    assert_fused_equals_unfused(net, X)
    net.conv.requires_grad_(False)
    assert operations(net(X)) == ["linear"]
    assert_fused_equals_unfused(net, X)


def test_sequentials_inside_other_modules_are_fused():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())

        def forward(self, x):
            return self.body(x) + x

    net = nn.Sequential(Block(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)))
    y = assert_fused_equals_unfused(net, X)
    assert operations(y) == ["conv2d+relu", "add", "conv2d+max_pool2d"]


# -------------------------------------------------------------------------------------- the switch


def test_the_switch():
    net = small()
    assert nn.fusion_enabled()
    with nn.fusion(False):
        assert not nn.fusion_enabled()
        assert operations(net(X)) == APART
        with nn.fusion(True):
            assert operations(net(X)) == PLAIN
        assert not nn.fusion_enabled()
    with pytest.raises(KeyError), nn.fusion(False):
        raise KeyError
    assert nn.fusion_enabled()


def test_the_switch_is_for_this_thread():
    seen = []
    with nn.fusion(False):
        thread = threading.Thread(target=lambda: seen.append(nn.fusion_enabled()))
        thread.start()
        thread.join()
        assert not nn.fusion_enabled()
    assert seen == [True]


# ------------------------------------------------------------------------------------------ errors


def failing(net, x):
    """The error of ``net(x)``, which must be the same without fusion."""
    caught = []
    for on in (False, True):
        with nn.fusion(on), tc.no_grad(), pytest.raises((ValueError, TypeError)) as info:
            net(x)
        caught.append(info.value)
    assert str(caught[0]) == str(caught[1])
    assert caught[0].__notes__ == caught[1].__notes__
    assert caught[1].__context__ is None
    return caught[1]


@pytest.mark.parametrize(
    ("layers", "shape", "note", "message"),
    [
        ((nn.Conv2d(3, 2, 3), nn.ReLU()), (2, 1, 6, 6), "in 0: Conv2d", "3"),
        ((nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(5)), (2, 1, 6, 6), "in 2: MaxPool2d", "fit"),
        ((nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3)), (2, 1, 6, 6), "in 1: BatchNorm2d", "3 channels"),
        ((nn.Conv2d(1, 2, 3), nn.BatchNorm1d(2)), (2, 1, 6, 6), "in 1: BatchNorm1d", "axes"),
        (
            (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).to("float64")),
            (2, 1, 6, 6),
            "in 1: BatchNorm2d",
            "float64",
        ),
        ((nn.Linear(3, 2), nn.BatchNorm1d(1), nn.ReLU()), (2, 3), "in 1: BatchNorm1d", "channels"),
        ((nn.Linear(3, 2), nn.LeakyReLU("steep")), (2, 3), "in 1: LeakyReLU", "negative_slope"),
    ],
)
def test_an_error_in_a_chain_names_the_layer(layers, shape, note, message):
    error = failing(nn.Sequential(*layers).eval(), normal(*shape))
    assert error.__notes__ == [note, "in the model: Sequential"]
    assert message in str(error)


def test_what_only_a_chain_does_wrong_is_not_hidden():
    class Broken(nn.ReLU):
        def in_chain(self):
            return Step("broken", lambda y: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        nn.Sequential(nn.Linear(3, 2), Broken())(normal(2, 3))
