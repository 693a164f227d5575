"""Devices: which library an array belongs to, how arrays move, and that they never mix."""

import sys

import numpy as np
import pytest

from tinycompress import backend
from tinycompress.backend import DeviceError


def put(x, device):
    return backend.to_device(x, device)


# ------------------------------------------------------------------------------- names of devices


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
    ],
)
def test_parse_device(text, parsed):
    assert backend.parse_device(text) == parsed


@pytest.mark.parametrize(
    "text", ["gpu", "", "cuda:", "cuda:-1", "cuda:x", "cuda:1.0", "CPU", "mps"]
)
def test_parse_device_refuses_and_shows_what_is_allowed(text):
    with pytest.raises(ValueError, match=r'"cpu", "cuda" or "cuda:N", got ' + repr(text)):
        backend.parse_device(text)


# ------------------------------------------------------------------------- what an array belongs to


def test_array_module_and_device_of(device):
    x = put(np.ones(3), device)
    expected = "numpy" if device == "cpu" else "cupy"
    assert backend.array_module(x).__name__ == expected
    assert backend.is_array(x)
    assert backend.device_of(x) == ("cpu" if device == "cpu" else "cuda:0")


def test_numpy_scalars_are_on_the_cpu():
    assert backend.array_module(np.float32(1)) is np
    assert backend.device_of(np.float32(1)) == "cpu"
    assert not backend.is_array(np.float32(1))


@pytest.mark.parametrize("thing", [1.0, [1.0], None, "array"])
def test_anything_else_is_no_array(thing):
    assert not backend.is_array(thing)
    with pytest.raises(TypeError, match=f"NumPy or CuPy array, got {type(thing).__name__}"):
        backend.array_module(thing)


def test_numpy_arrays_are_known_without_loading_cupy(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert backend.device_of(np.ones(3)) == "cpu"
    assert not backend.is_array("text")
    backend.check_same_device("add", np.ones(3), np.ones(3))
    assert "cupy" not in sys.modules


# ------------------------------------------------------------------------------------- moving


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]
)
def test_round_trip_keeps_every_bit(device, dtype, rng):
    x = rng.integers(0, 2, (3, 4, 5)).astype(dtype)
    there = put(x, device)
    assert (there.shape, there.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(backend.to_numpy(there), x)
    np.testing.assert_array_equal(put(there, "cpu"), x)


def test_an_array_that_is_there_already_is_not_copied(device):
    x = put(np.ones(3), device)
    assert put(x, device) is x
    assert device != "cpu" or backend.to_numpy(x) is x


def test_a_transposed_view_keeps_its_values(device, rng):
    x = rng.standard_normal((2, 3, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(backend.to_numpy(put(x, device)), x)


def test_a_gpu_array_is_a_copy(device):
    x = np.ones(3)
    there = put(x, device)
    there += 1
    assert x.tolist() == ([2, 2, 2] if device == "cpu" else [1, 1, 1])


def test_numpy_scalars_move(device):
    there = put(np.float32(2.5), device)
    assert (there.shape, there.dtype, float(there)) == ((), np.float32, 2.5)


def test_between_two_gpus_transposed_or_not(cupy):
    x = put(np.arange(24.0).reshape(2, 3, 4), "cuda:0")
    for a in (x, x.transpose(1, 2, 0), x[:, ::2]):
        there = put(a, "cuda:1")
        assert backend.device_of(there) == "cuda:1"
        np.testing.assert_array_equal(backend.to_numpy(there), a.get())
        assert backend.device_of(put(there, "cuda")) == "cuda:0"
    assert cupy.cuda.Device().id == 0


def test_on_device_makes_arrays_where_the_other_lives(cupy):
    x = put(np.ones(3), "cuda:1")
    with backend.on_device(x):
        y = x + cupy.ones(3)
    assert backend.device_of(y) == "cuda:1"
    assert cupy.cuda.Device().id == 0
    with backend.on_device(np.ones(3)):
        assert cupy.cuda.Device().id == 0


# --------------------------------------------------------------------------------- mixed devices


def test_one_device_is_fine(device):
    x = put(np.ones(3), device)
    backend.check_same_device("add", x, x, x)
    backend.check_same_device("add", x)


@pytest.mark.parametrize(
    ("first", "second"), [("cpu", "cuda:0"), ("cuda:0", "cpu"), ("cuda:0", "cuda:1")]
)
def test_mixed_devices_name_the_operation_both_devices_and_the_fix(cupy, first, second):
    a, b = put(np.ones(3), first), put(np.ones(3), second)
    with pytest.raises(DeviceError) as caught:
        backend.check_same_device("conv2d", a, a, b)
    message = str(caught.value)
    assert message.startswith(f"conv2d: arrays on {first} and {second} ")
    assert f'.to("{first}")' in message
    assert f'.to("{second}")' in message
