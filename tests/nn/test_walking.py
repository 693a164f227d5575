"""The order and the names in which a network's parts are found: torch's."""

import numpy as np
import pytest

from tinycompress import nn


def block(lib, channels):
    return lib.Sequential(
        lib.Conv2d(channels, channels, 3, padding=1, bias=False),
        lib.BatchNorm2d(channels),
        lib.ReLU(),
    )


def network(lib):
    """The same nested network, of ``tinycompress.nn`` or of ``torch.nn``."""

    class Net(lib.Module):
        def __init__(self):
            super().__init__()
            self.stem = lib.Conv2d(1, 4, 3)
            self.blocks = lib.ModuleList([block(lib, 4), block(lib, 4)])
            self.norm = lib.LayerNorm((4, 2, 2))
            self.head = lib.Sequential(lib.Flatten(), lib.Linear(16, 8), lib.Linear(8, 3))
            self.scale = lib.Parameter(lib_ones(lib, 3))  # after the layers, but it comes first

    return Net()


def lib_ones(lib, n):
    if lib is nn:
        return np.ones(n, np.float32)
    import torch

    return torch.ones(n)


PARAMETERS = [
    "scale",
    "stem.weight",
    "stem.bias",
    "blocks.0.0.weight",
    "blocks.0.1.weight",
    "blocks.0.1.bias",
    "blocks.1.0.weight",
    "blocks.1.1.weight",
    "blocks.1.1.bias",
    "norm.weight",
    "norm.bias",
    "head.1.weight",
    "head.1.bias",
    "head.2.weight",
    "head.2.bias",
]
BUFFERS = [f"blocks.{i}.1.running_{what}" for i in (0, 1) for what in ("mean", "var")]
STATE = [*PARAMETERS[:6], *BUFFERS[:2], *PARAMETERS[6:9], *BUFFERS[2:], *PARAMETERS[9:]]


def test_order_of_parameters_buffers_and_state():
    net = network(nn)
    assert [n for n, _ in net.named_parameters()] == PARAMETERS
    assert [n for n, _ in net.named_buffers()] == BUFFERS
    assert list(net.state_dict()) == STATE
    assert list(map(id, net.parameters())) == [id(p) for _, p in net.named_parameters()]


@pytest.mark.torch
def test_names_and_order_are_torchs():
    torch = pytest.importorskip("torch")
    ours, theirs = network(nn), network(torch.nn)

    def counted(names):
        return [n for n in names if not n.endswith("num_batches_tracked")]

    for walk in ("named_parameters", "named_modules", "named_children", "named_buffers"):
        expected = counted(n for n, _ in getattr(theirs, walk)())
        assert [n for n, _ in getattr(ours, walk)()] == expected
    assert list(ours.state_dict()) == counted(theirs.state_dict())
    for name, p in theirs.named_parameters():
        assert dict(ours.named_parameters())[name].shape == tuple(p.shape)


def shared(lib):
    """One layer in two places, and one weight in two layers."""
    net = lib.Sequential(lib.Linear(3, 3), lib.ReLU(), lib.Linear(3, 3), lib.Linear(3, 3))
    net.again = net[0]
    net[3].weight = net[2].weight
    return net


def test_what_is_shared_is_one_parameter_with_one_name():
    net = shared(nn)
    names = [n for n, _ in net.named_parameters()]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias", "3.bias"]
    assert len(list(net.modules())) == 5
    assert len(list(net.children())) == 5  # a Sequential calls it twice


def test_what_is_shared_stands_in_the_state_under_every_name():
    net = shared(nn)
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert list(net.state_dict()) == [*names, "again.weight", "again.bias"]


@pytest.mark.torch
def test_sharing_looks_as_in_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = shared(nn), shared(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for walk in ("named_parameters", "named_modules"):
        assert [n for n, _ in getattr(ours, walk)()] == [n for n, _ in getattr(theirs, walk)()]


def test_get_submodule_follows_dots():
    net = network(nn)
    assert net.get_submodule("") is net
    assert net.get_submodule("blocks.1.0") is net.blocks[1][0]
    for wrong in ("blocks.2", "stem.weight", "blocks..0", "nope"):
        with pytest.raises(AttributeError, match=r"there is no layer .*blocks\.1\.0"):
            net.get_submodule(wrong)
    net.norm = None
    with pytest.raises(AttributeError, match=r"no layer 'norm\.x'"):
        net.get_submodule("norm.x")
    with pytest.raises(AttributeError, match="there are: none"):
        nn.ReLU().get_submodule("0")


def test_set_submodule_replaces_in_place_and_in_order():
    net = network(nn)
    new = nn.Linear(16, 8, bias=False)
    net.set_submodule("head.1", new)
    assert net.head[1] is new
    assert [n for n, _ in net.head.named_children()] == ["0", "1", "2"]
    assert "head.1.bias" not in net.state_dict()
    with pytest.raises(AttributeError, match="there is no layer"):
        net.set_submodule("head.7", new)
    with pytest.raises(TypeError, match=r"'head\.1' needs a Module, got ndarray"):
        net.set_submodule("head.1", np.zeros(2))
    with pytest.raises(ValueError, match="without dots"):
        net.set_submodule("", new)


def test_a_prefix_goes_before_all_names():
    names = [n for n, _ in nn.Sequential(nn.ReLU()).named_modules("model")]
    assert names == ["model", "model.0"]


def test_apply_visits_children_first_and_in_order():
    order = []
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Tanh())
    net.again = net[1]
    assert net.apply(order.append) is net
    assert order == [net[0][0], net[0][1], net[0], net[1], net]


def test_train_and_eval_reach_everything_below():
    net = network(nn)
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.blocks.train()
    assert [m.training for m in (net, net.blocks, net.blocks[1][1], net.stem)] == [
        False,
        True,
        True,
        False,
    ]


def test_train_is_not_fit():
    with pytest.raises(TypeError, match=r"True or False, got ndarray; tc\.fit"):
        nn.ReLU().train(np.zeros(3))


def test_evaluation_mode_gives_every_module_its_own_mode_back():
    net = network(nn)
    net.blocks.eval()
    before = [m.training for m in net.modules()]

    def fails(net):
        with nn.evaluation_mode(net):
            assert not any(m.training for m in net.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fails(net)
    assert [m.training for m in net.modules()] == before


def test_zero_grad_and_freezing_reach_every_parameter():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net(np.ones((1, 2), np.float32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net[0].requires_grad_(False)
    net(np.ones((1, 2), np.float32)).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [True, True, False, False]


def test_containers_are_sequences():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    net = nn.Sequential(*layers)
    assert len(net) == 3
    assert list(net) == layers
    assert net[-1] is layers[2]
    front = net[:2]
    assert isinstance(front, nn.Sequential)
    assert list(front) == layers[:2]
    assert [n for n, _ in net[1:].named_children()] == ["1", "2"]
    held = nn.ModuleList(layers)
    assert len(held.append(nn.Tanh())) == 4
    assert held[1] is layers[1]
    assert [n for n, _ in held.named_children()] == ["0", "1", "2", "3"]
    with pytest.raises(NotImplementedError, match="ModuleList does not define forward"):
        held(np.ones(2))
    with pytest.raises(IndexError):
        _ = net[3]


def test_repr_shows_the_arguments_and_the_tree():
    text = repr(nn.Sequential({"fc": nn.Linear(2, 3, bias=False), "act": nn.ReLU()}))
    assert text.splitlines() == [
        "Sequential(",
        "  (fc): Linear(in_features=2, out_features=3, bias=False)",
        "  (act): ReLU()",
        ")",
    ]
