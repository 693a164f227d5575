"""Files that go to torch and come from it, and files that are damaged."""

import json
import os

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from tinycompress import nn
from tinycompress.backend import to_numpy


def network(lib):
    """The same network, of ``tinycompress.nn`` or of ``torch.nn``."""
    block = lib.Sequential(lib.Conv2d(2, 4, 3, bias=False), lib.BatchNorm2d(4), lib.ReLU())
    return lib.Sequential(
        block, lib.MaxPool2d(2), lib.Flatten(), lib.Linear(16, 3), lib.LayerNorm(3)
    )


TORCHS = {  # names, shapes and dtypes of torch's state_dict of that network
    "0.0.weight": ((4, 2, 3, 3), np.float32),
    "0.1.weight": ((4,), np.float32),
    "0.1.bias": ((4,), np.float32),
    "0.1.running_mean": ((4,), np.float32),
    "0.1.running_var": ((4,), np.float32),
    "0.1.num_batches_tracked": ((), np.int64),
    "3.weight": ((3, 16), np.float32),
    "3.bias": ((3,), np.float32),
    "4.weight": ((3,), np.float32),
    "4.bias": ((3,), np.float32),
}


def torchs_state():
    rng = np.random.default_rng(3)
    return {
        name: rng.uniform(1, 2, size=shape).astype(dtype) for name, (shape, dtype) in TORCHS.items()
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def test_a_file_with_torchs_names_loads_unchanged(path, device):
    state = torchs_state()
    save_file(state, path)
    net = network(nn).to(device)
    assert nn.load_safetensors(net, path) == ([], [])
    own = net.state_dict()
    assert set(TORCHS) - set(own) == {"0.1.num_batches_tracked"}
    for name, array in own.items():
        np.testing.assert_array_equal(to_numpy(array), state[name])


@pytest.mark.torch
def test_the_table_above_is_torchs():
    torch = pytest.importorskip("torch")
    state = {n: a.numpy() for n, a in network(torch.nn).state_dict().items()}
    assert {n: (a.shape, a.dtype.type) for n, a in state.items()} == TORCHS


@pytest.mark.torch
def test_torch_and_this_compute_the_same_from_one_file(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as torch_save

    theirs, ours = network(torch.nn), network(nn)
    x = np.random.default_rng(0).normal(size=(5, 2, 7, 7)).astype(np.float32)
    with torch.no_grad():
        theirs(torch.from_numpy(x))  # the running statistics move
    torch_save(theirs.state_dict(), path)
    nn.load_safetensors(ours, path)
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(x).data, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_torch_loads_what_is_saved_here(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    ours, theirs = network(nn), network(torch.nn)
    nn.save_safetensors(ours, path)
    theirs.load_state_dict(load_file(path))
    for name, p in theirs.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), ours.state_dict()[name])


@pytest.mark.torch
def test_torchs_own_dictionary_loads_without_a_file():
    torch = pytest.importorskip("torch")
    theirs, ours = network(torch.nn), network(nn)
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours[3].weight.data, theirs[3].weight.detach().numpy())


def test_a_round_trip_is_exact(path, device):
    net, other = network(nn).to(device), network(nn)
    nn.save_safetensors(net, path, {"made by": "a test"})
    nn.load_safetensors(other, path)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, to_numpy(net.state_dict()[name]))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"made by": "a test"}


def test_memory_order_does_not_garble_the_file(path):
    """The safetensors writer copies memory as it lies; weights may lie otherwise."""
    net, other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    net.weight.data = np.asfortranarray(net.weight.data)
    nn.save_safetensors(net, path)
    nn.load_safetensors(other, path)
    np.testing.assert_array_equal(other.weight.data, net.weight.data)


def test_single_numbers_keep_their_shape(path):
    net, other = nn.Module(), nn.Module()
    net.register_buffer("scale", np.array(0.5, np.float32))
    other.register_buffer("scale", np.array(0.0, np.float32))
    nn.save_safetensors(net, path)
    nn.load_safetensors(other, path)
    assert other.scale.shape == ()
    assert other.scale == 0.5


def test_a_file_that_does_not_fit_is_named_and_changes_nothing(path):
    state = torchs_state()
    del state["3.bias"]
    save_file(state, path)
    net = network(nn)
    before = net.state_dict()
    with pytest.raises(ValueError, match=r"missing: 3\.bias") as caught:
        nn.load_safetensors(net, path)
    assert caught.value.__notes__ == [f"in {path}"]
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert nn.load_safetensors(net, path, strict=False).missing_keys == ["3.bias"]


def test_a_missing_file_is_named(tmp_path):
    for absent in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(absent)):
            nn.load_safetensors(network(nn), absent)


def damaged_files():
    whole = safetensors.numpy.save(torchs_state())
    yield "empty", b""
    yield "garbage", b"\xff" * 200
    yield "text", b"PK\x03\x04 this is a zip file or whatever else" * 10
    for cut in (4, 8, 20, len(whole) // 2, len(whole) - 1):
        yield f"cut after {cut}", whole[:cut]
    yield "too long", whole + b"\0"
    yield "header broken", whole[:10] + b"\x00\x01" + whole[12:]
    yield "header too long", (10**12).to_bytes(8, "little") + whole[8:]
    yield "shape changed", whole.replace(b"[3,16]", b"[3,17]")


DAMAGED = dict(damaged_files())


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_told_from_a_whole_file(damage, path):
    path.write_bytes(DAMAGED[damage])
    net = network(nn)
    before = net.state_dict()
    with pytest.raises(ValueError, match=r"net\.safetensors is not a whole safetensors file: ."):
        nn.load_safetensors(net, path)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def bfloat16_file():
    header = {"weight": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\x80\x3f" * 2


def test_kinds_of_numbers_that_numpy_lacks_are_named(path):
    path.write_bytes(bfloat16_file())
    with pytest.raises(ValueError, match=r"'weight' is stored as BF16.*save it as float32"):
        nn.load_safetensors(nn.Linear(2, 1, bias=False), path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    net = nn.Linear(2, 2)
    nn.save_safetensors(net, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        nn.save_safetensors(nn.Linear(2, 2), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
