"""Everything on "cuda:1", while CuPy's current device is 0: as on the CPU, and nothing moves away.

CuPy makes new arrays, and runs kernels, on the current device, whatever device the operands are on.
Whoever computes with arrays therefore says where (``backend.on_device``); the stand-in refuses a
kernel on the wrong device, as CuPy does where the GPUs cannot reach each other.
"""

import copy

import numpy as np
import pytest
import strict_cupy

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.backend import device_of, to_device, to_numpy


def small_model():
    tc.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64, 10),
        nn.LayerNorm(10),
    )


def batch(device):
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((12, 1, 8, 8)), rng.integers(0, 10, 12)
    return to_device(images.astype(np.float32), device), to_device(labels, device)


def train(device, optimizer=optim.SGD, steps=3, **options):
    model = small_model().to(device)
    optimizer = optimizer(model.parameters(), lr=0.05, **options)
    images, labels = batch(device)
    for step in range(steps):
        optimizer.zero_grad()
        with tc.random.key_stream(0, step):
            F.cross_entropy(model(images), labels).backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, optimizer


def all_arrays(model, optimizer):
    yield from (p.data for p in model.parameters())
    yield from (p.grad for p in model.parameters())
    yield from model.buffers()
    for state in optimizer.state.values():
        yield from (a for a in state.values() if not isinstance(a, int))


@pytest.mark.parametrize("gpu", ["cuda:0", "cuda:1"])
@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_training_gives_what_it_gives_on_a_cpu_and_stays_there(cupy, gpu, rule):
    options = {"momentum": 0.9} if rule is optim.SGD else {}
    here, there = train("cpu", rule, **options), train(gpu, rule, **options)
    for a, b in zip(all_arrays(*here), all_arrays(*there), strict=True):
        assert device_of(b) == gpu
        np.testing.assert_allclose(to_numpy(b), a, rtol=1e-4, atol=1e-6)
    assert cupy.cuda.Device().id == 0


@pytest.mark.usefixtures("cupy")
def test_copies_and_states_stay_there():
    model, optimizer = train("cuda:1", optim.Adam)
    twin = model.copy()
    assert twin.device == copy.deepcopy(model).device == "cuda:1"
    assert {device_of(a) for a in model.state_dict().values()} == {"cuda:1"}
    fresh = small_model().to("cuda:1")
    fresh.load_state_dict(model.state_dict())
    other = optim.Adam(fresh.parameters(), lr=0.05)
    other.load_state_dict(optimizer.state_dict())
    for state in other.state.values():
        assert {device_of(a) for a in state.values() if not isinstance(a, int)} == {"cuda:1"}
    assert model.to("float64").device == "cuda:1"


@pytest.mark.usefixtures("cupy")
def test_a_tensor_stays_there_through_what_is_no_recorded_operation():
    x = tc.tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3), device="cuda:1")
    x[0] = 7.0
    for y in (x > 1, x.argmax(axis=1), x.clone(), copy.deepcopy(x), x.to("float64"), x.detach()):
        assert y.device == "cuda:1"
    assert x.numpy().tolist() == [[7, 7, 7], [3, 4, 5]]


@pytest.mark.usefixtures("cupy")
def test_a_graph_over_two_gpus_brings_each_gradient_home():
    a = tc.tensor(np.ones(3, np.float32), device="cuda:0", requires_grad=True)
    b = tc.tensor(np.full(3, 2, np.float32), device="cuda:1", requires_grad=True)
    for _ in range(2):
        (((a * 3).to("cuda:1") * b).sum() + a.to("cuda:1").sum()).backward()
    assert (device_of(a.grad), device_of(b.grad)) == ("cuda:0", "cuda:1")
    assert a.grad.get().tolist() == [14, 14, 14]
    assert b.grad.get().tolist() == [6, 6, 6]


@pytest.mark.usefixtures("cupy")
def test_fit_and_evaluate_there():
    rng = np.random.default_rng(0)
    images = rng.random((24, 1, 8, 8), dtype=np.float32)
    data = tc.data.Dataset(images, rng.integers(0, 10, 24)).to("cuda:1")
    model = small_model().to("cuda:1")
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    tc.fit(model, data, 1, optimizer, batch_size=8, validate=data)
    assert model.device == "cuda:1"
    assert tc.evaluate(model, data).count == 24


def test_arrays_of_two_gpus_meet_in_one_early_error(cupy):
    a, b = (tc.tensor([1.0, 2.0], device=f"cuda:{i}") for i in range(2))
    with pytest.raises(tc.DeviceError, match=r"multiply: arrays on cuda:0 and cuda:1 cannot meet"):
        a * b


def test_a_training_step_waits_for_no_gpu(cupy):
    model, optimizer = train("cuda", steps=1)
    images, labels = batch("cuda")
    with strict_cupy.no_sync("a training step"):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
