"""Copies and pickles: weights, masks and modes go along; graph, gradients and hooks do not."""

import copy
import pickle

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import device_of, to_numpy

WAYS = [lambda m: m.copy(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
each_way = pytest.mark.parametrize("duplicate", WAYS, ids=["copy", "deepcopy", "pickle"])


def used_network():
    """A network that was called, differentiated, pruned, frozen in part and hooked."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    net(np.random.default_rng(1).normal(size=(5, 1, 4, 4)).astype(np.float32)).sum().backward()
    net[0].weight.mask = net[0].weight.data > 0
    net[3].bias.requires_grad = False
    net[1].eval()
    net.register_forward_hook(lambda *_: pytest.fail("hooks must not be copied"))
    return net


@each_way
def test_everything_that_belongs_to_the_model_goes_along(duplicate):
    net = used_network()
    twin = duplicate(net)
    assert list(twin.state_dict()) == list(net.state_dict())
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], array)
    np.testing.assert_array_equal(twin[0].weight.mask, net[0].weight.mask)
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]
    assert [p.requires_grad for p in twin.parameters()] == [
        p.requires_grad for p in net.parameters()
    ]
    assert repr(twin) == repr(net)


@each_way
def test_gradients_and_hooks_stay_behind(duplicate):
    twin = duplicate(used_network())
    assert all(p.grad is None and p.is_leaf for p in twin.parameters())
    twin(np.zeros((1, 1, 4, 4), np.float32))  # the hook would fail the test


@each_way
def test_nothing_is_shared_with_the_original(duplicate):
    net = used_network()
    before = net.state_dict()
    twin = duplicate(net)
    for p in twin.parameters():
        p.data[...] = 7
    twin[0].weight.mask[...] = False
    for b in twin.buffers():
        b[...] = 7
    twin.train()
    twin.register_forward_hook(lambda m, i, y: y * 0)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert net[0].weight.mask.any()
    assert not net[1].training
    assert len(net._hooks) == 1


@each_way
def test_what_is_shared_inside_stays_shared_inside(duplicate):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net.again = net[0]
    twin = duplicate(net)
    assert twin[1].weight is twin[0].weight
    assert twin[2] is twin[0]
    assert twin[0].weight is not net[0].weight


def test_a_copy_computes_the_same_and_learns_alone():
    net = tc.models.create("tiny-cnn")
    twin = net.copy()
    x = np.random.default_rng(0).random((2, 1, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(twin(x).data, net(x).data)
    twin(x).sum().backward()
    assert all(p.grad is None for p in net.parameters())


def test_copies_stay_on_their_device(device):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(device)
    net[0].weight.mask = net[0].weight.data > 0
    twin = net.copy()
    assert twin.device == net.device
    assert device_of(twin[0].weight.mask) == net.device
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(to_numpy(twin.state_dict()[name]), to_numpy(array))


def test_a_parameter_shows_its_shape_not_its_numbers():
    assert repr(nn.Parameter(np.zeros((2, 3)))) == (
        "Parameter(shape=(2, 3), dtype=float64, device='cpu')"
    )
