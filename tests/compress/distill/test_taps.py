"""Taps give what a layer gives, on the thread that asked, and are gone afterwards."""

import threading

import numpy as np
import pytest
from distill_models import blobs, plain_student, teacher_net

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.distill import Taps
from tinycompress.tensor import Tensor


def one_by_one(model, x, until):
    for name, layer in model.named_children():
        x = layer(x)
        if name == until:
            return x


@pytest.mark.parametrize("name", ["conv", "norm", "relu", "pool", "fc1", "fc2"])
def test_a_tap_has_what_the_layer_gave_although_neighbours_are_fused(name):
    model, x = teacher_net().eval(), blobs(4).images
    with Taps(model, [name]) as taps:
        outputs = model(x)
    expected = one_by_one(model, x, name)
    np.testing.assert_array_equal(taps[name].data, expected.data)
    np.testing.assert_allclose(outputs.data, model(x).data, atol=1e-5)


def test_afterwards_there_are_no_hooks_even_after_an_error():
    model = teacher_net()
    with pytest.raises(RuntimeError), Taps(model, ["conv", "fc1"]):
        raise RuntimeError
    assert not any(m._hooks for m in model.modules())


def test_gradients_flow_through_a_tap():
    model, x = teacher_net(), blobs(4).images
    with Taps(model, ["fc1"]) as taps:
        model(x)
    taps["fc1"].sum().backward()
    assert model.conv.weight.grad is not None
    assert model.fc2.weight.grad is None


def test_layers_inside_layers_have_dotted_names():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

        def forward(self, x):
            return self.inner(x) + 1

    model = nn.Sequential({"block": Block()})
    with Taps(model, ["block.inner.0", "block"]) as taps:
        model(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(taps["block"].data, taps["block.inner.0"].data.clip(min=0) + 1)


def test_each_thread_hears_its_own():
    model = teacher_net().eval()
    barrier, found = threading.Barrier(4, timeout=20), {}

    def work(k):
        x = blobs(3, seed=k).images
        for _ in range(20):
            with Taps(model, ["fc1"]) as taps:
                barrier.wait()
                model(x)
                barrier.wait()
            found.setdefault(k, []).append(taps["fc1"].data)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in range(4):
        expected = one_by_one(model, blobs(3, seed=k).images, "fc1").data
        for heard in found[k]:
            np.testing.assert_array_equal(heard, expected)


def test_what_cannot_be_tapped_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never, self.pair = nn.ReLU(), nn.ReLU(), Pair()

        def forward(self, x):
            return self.pair(self.twice(self.twice(x)))[0]

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    x = Tensor(np.ones((1, 2), np.float32))
    model = Odd()
    with pytest.raises(ValueError, match=r"no layer 'nowhere'; there are: twice, never, pair"):
        Taps(model, ["nowhere"])
    with pytest.raises(ValueError, match="ran twice"), Taps(model, ["twice"]):
        model(x)
    with Taps(model, ["never", "pair"]) as taps:
        model(x)
    with pytest.raises(ValueError, match="'never' did not run"):
        taps["never"]
    with pytest.raises(ValueError, match="'pair' gives out a tuple"):
        taps["pair"]


def test_codes_are_the_numbers_that_they_stand_for():
    data = blobs(64)
    config = tc.QuantConfig(bits=8, activations=8)
    prepared = tc.prepare_qat(plain_student(), config, data).eval()
    integer = tc.convert(prepared)
    heard = []
    for model in (prepared, integer):
        with Taps(model, ["conv"]) as taps:
            model(data.images[:4])
        heard.append(taps["conv"].data)
    np.testing.assert_allclose(heard[0], heard[1], rtol=1e-6)
    floats = run_relu(prepared, data.images[:4])
    np.testing.assert_allclose(heard[0], floats, atol=0.05 * floats.max())


def run_relu(prepared, x):
    conv = prepared.conv
    return tc.functional.conv2d(x, conv.weight, conv.bias).relu().data
