"""Models that move between devices and dtypes, and the one early error where they do not match.

``tests/nn/test_layers.py`` runs every layer, forward and backward, on every device.
"""

import numpy as np
import pytest
from strict_cupy import no_sync

import tinycompress as tc
from tinycompress import DeviceError, functional as F, nn
from tinycompress.backend import device_of, to_device, to_numpy


def network():
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3, bias=False),
            "norm": nn.BatchNorm2d(4),
            "act": nn.ReLU(),
            "drop": nn.Dropout(0.2),
            "pool": nn.MaxPool2d(2),
            "flat": nn.Flatten(),
            "fc": nn.Linear(36, 3),
        }
    )


def images(n=4, dtype=np.float32):
    return np.random.default_rng(1).normal(size=(n, 1, 8, 8)).astype(dtype)


def everything(net):
    """All arrays of a model: parameters, buffers, masks."""
    masks = [p.mask for p in net.parameters() if p.mask is not None]
    return [*(p.data for p in net.parameters()), *net.buffers(), *masks]


def test_all_arrays_move_there_and_back(device):
    net = network()
    net.fc.weight.mask = net.fc.weight.data > 0
    before = [a.copy() for a in everything(net)]
    assert net.to(device) is net
    where = "cuda:0" if device == "cuda" else "cpu"
    assert net.device == where
    assert {device_of(a) for a in everything(net)} == {where}
    net.to("cpu")
    for a, b in zip(everything(net), before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_a_step_and_an_evaluation_there_equal_those_on_the_cpu(device):
    results = []
    for where in ("cpu", device):
        tc.manual_seed(3)
        net = network().to(where)
        x, labels = to_device(images(), where), to_device(np.array([0, 1, 2, 0]), where)
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        values = [loss.data, *(p.grad for p in net.parameters()), *net.buffers()]
        values.append(net.eval()(x).data)
        assert {device_of(v) for v in values} == {net.device}
        results.append([to_numpy(v) for v in values])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_a_step_never_waits_for_the_gpu(cupy):
    net = network().to("cuda")
    x, labels = to_device(images(), "cuda"), to_device(np.array([0, 1, 2, 0]), "cuda")
    with no_sync():
        F.cross_entropy(net(x), labels).backward()


def test_moving_drops_gradients():
    net = nn.Linear(2, 1)
    net(np.ones(2, np.float32)).sum().backward()
    net.to("float64")
    assert all(p.grad is None for p in net.parameters())


def test_the_second_gpu(cupy):
    net = network().to("cuda:1")
    assert net.device == "cuda:1"
    y = net(to_device(images(), "cuda:1"))
    y.sum().backward()
    assert {device_of(p.grad) for p in net.parameters()} == {"cuda:1"}
    with pytest.raises(DeviceError, match="cuda:0 and cuda:1"):
        net(to_device(images(), "cuda:0"))
    with pytest.raises(DeviceError, match="cuda:2 does not exist"):
        net.to("cuda:2")
    assert net.to("cuda:0").device == "cuda:0"


LAYERS = {
    "fc": (lambda: nn.Linear(3, 2), (4, 3)),
    "conv": (lambda: nn.Conv2d(1, 2, 3), (2, 1, 5, 5)),
    "bn": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "bare bn": (lambda: nn.BatchNorm1d(3, affine=False), (4, 3)),
    "bare bn, evaluated": (lambda: nn.BatchNorm1d(3, affine=False).eval(), (4, 3)),
    "ln": (lambda: nn.LayerNorm(3), (4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("layer_at", "input_at"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_two_devices_give_one_early_error(name, layer_at, input_at, cupy):
    make, shape = LAYERS[name]
    net = nn.Sequential({name: make()}).to(layer_at)
    state = net.state_dict()
    x = to_device(np.ones(shape, np.float32), input_at)
    with pytest.raises(DeviceError, match=r"cannot meet in one operation; move one") as caught:
        net(x)
    assert "cpu" in str(caught.value)
    assert "cuda:0" in str(caught.value)
    assert caught.value.__notes__[0].startswith(f"in {name}: ")
    for key, array in net.state_dict().items():  # no statistics of half a step
        np.testing.assert_array_equal(to_numpy(array), to_numpy(state[key]))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("layer_is", "input_is"), [("float64", "float32"), ("float32", "float64")])
def test_two_dtypes_give_one_early_error(name, layer_is, input_is):
    make, shape = LAYERS[name]
    net = nn.Sequential({name: make()}).to(layer_is)
    with pytest.raises(TypeError, match=r"float(32|64).*float(64|32).*\.to\("):
        net(np.ones(shape, input_is))


@pytest.mark.parametrize("target", ["float64", np.float64, np.dtype("float64"), tc.float64])
def test_to_float64_and_back(target):
    net = network()
    before = net.state_dict()
    net.register_buffer("steps", np.array(3))
    net.fc.weight.mask = net.fc.weight.data > 0
    net.to(target)
    assert {p.dtype.name for p in net.parameters()} == {"float64"}
    assert net.norm.running_var.dtype == np.float64
    assert net.steps.dtype == np.int64  # only floats are converted
    assert net.fc.weight.mask.dtype == bool
    y = net(images(dtype=np.float64))
    y.sum().backward()
    assert {p.grad.dtype.name for p in net.parameters()} == {"float64"}
    assert net.norm.running_mean.dtype == np.float64
    net.to("float32")
    for name, p in net.named_parameters():
        assert p.dtype == np.float32
        np.testing.assert_array_equal(p.data, before[name])


@pytest.mark.parametrize("target", ["cuad", "int8", np.int64, bool, None, "object", 3.5])
def test_to_takes_devices_and_floating_dtypes(target):
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r'expected a device \("cpu", "cuda", "cuda:1"\)'):
        net.to(target)
    assert net.weight.dtype == np.float32


def test_a_malformed_device_is_named():
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:N"'):
        nn.Linear(2, 1).to("cuda:x")


def test_a_parameter_that_two_layers_share_stays_shared(device):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    net.to(device)
    assert net[0].weight.data is net[1].weight.data


def test_a_model_without_arrays_is_on_the_cpu():
    assert nn.Sequential(nn.ReLU()).device == "cpu"
