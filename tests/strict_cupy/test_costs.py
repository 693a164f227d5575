"""Launches are counted, views are free, orders in memory are CuPy's, devices are kept apart."""

import copy
import importlib
import operator
import sys
import threading

import numpy as np
import pytest

import strict_cupy
from strict_cupy import counting, install
from strict_cupy.spec import SPEC


@pytest.fixture
def x(cupy):
    return cupy.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))


LAUNCHES = {
    "an operator": (1, lambda cp, x: x + 1),
    "three operators": (3, lambda cp, x: (x + 1) * x - 2),
    "in place": (1, lambda cp, x: operator.iadd(x, 1)),
    "a reduction": (1, lambda cp, x: x.sum()),
    "a function": (1, lambda cp, x: cp.exp(x)),
    "out": (1, lambda cp, x: cp.exp(x, out=x)),
    "a product": (1, lambda cp, x: x[0] @ x[1].T),
    "an assignment": (1, lambda cp, x: operator.setitem(x, 0, 1)),
    "an index array": (1, lambda cp, x: x[[1, 0]]),
    "zeros": (1, lambda cp, x: cp.zeros(3)),
    "a cast": (1, lambda cp, x: x.astype(np.float64)),
    "no cast": (0, lambda cp, x: x.astype(np.float32, copy=False)),
    "a slice": (0, lambda cp, x: x[1:, 0]),
    "a transpose": (0, lambda cp, x: x.transpose(2, 0, 1)),
    "a reshape of what is contiguous": (0, lambda cp, x: x.reshape(6, 4)),
    "a reshape that must copy": (1, lambda cp, x: x.transpose(1, 0, 2).reshape(6, 4)),
    "broadcast_to": (0, lambda cp, x: cp.broadcast_to(x, (5, 2, 3, 4))),
    "windows": (0, lambda cp, x: cp.lib.stride_tricks.sliding_window_view(x, 2, axis=2)),
    "empty": (0, lambda cp, x: cp.empty(3)),
    "an empty array": (0, lambda cp, x: x[:0] + 1),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches(name, cupy, x):
    expected, expression = LAUNCHES[name]
    with counting() as counts:
        expression(cupy, x)
    assert (counts.launches, counts.syncs) == (expected, [])


def test_uploads(cupy):
    with counting() as counts:
        x = cupy.asarray(np.ones(3))
        cupy.asarray(x)
        x[np.array([0, 1])]
    assert counts.uploads == 2


def test_a_view_shares_memory(cupy, x):
    x[0][1, :] = -1
    x.T[0, 0, 0] = 7
    assert x[0, 1].tolist() == [-1] * 4
    assert x[0, 0, 0].item() == 7


class TestOrderInMemory:
    """CuPy's kernels write in C order, also where NumPy would keep the order of the operands."""

    @pytest.fixture
    def turned(self, x):
        return x.transpose(2, 0, 1)

    def test_elementwise_results_are_in_c_order(self, cupy, turned):
        for y in (turned + 1, cupy.exp(turned), -turned, cupy.where(turned > 1, turned, 0)):
            assert y.flags.c_contiguous

    def test_reductions_copies_and_gathers_too(self, cupy, turned):
        for y in (turned.sum(0), turned.copy(), turned[[0, 1]], cupy.concatenate([turned] * 2)):
            assert y.flags.c_contiguous

    def test_alike_and_casts_keep_the_order(self, cupy, turned):
        for y in (cupy.zeros_like(turned), cupy.empty_like(turned), turned.astype(np.float64)):
            assert not y.flags.c_contiguous
            assert np.argsort(y.strides).tolist() == np.argsort(turned.strides).tolist()

    def test_get_gives_c_order(self, turned):
        assert turned.get().flags.c_contiguous
        assert turned.T.get(order="F").flags.f_contiguous

    def test_there_is_no_writeable_flag(self, x):
        assert x.flags["C_CONTIGUOUS"]
        with pytest.raises(AttributeError):
            x.flags.writeable  # noqa: B018


class TestDevices:
    def test_arrays_are_made_on_the_current_device(self, cupy):
        with cupy.cuda.Device(1):
            x = cupy.zeros(3)
            assert cupy.cuda.Device().id == 1
        assert (x.device.id, cupy.zeros(3).device.id) == (1, 0)
        assert (cupy.empty_like(x).device.id, x[1:].device.id) == (0, 1)

    def test_kernels_run_on_the_device_of_their_arrays_or_not_at_all(self, cupy, x):
        with cupy.cuda.Device(1):
            y = cupy.zeros((2, 3, 4))
        work = [
            lambda: x + y,
            lambda: y + 1,
            lambda: y.sum(),
            lambda: cupy.add(x, 1, out=y),
            lambda: operator.setitem(x, 0, y[0]),
            lambda: operator.iadd(y, 1),
            lambda: y.fill(0),
            lambda: cupy.add.at(y, cupy.asarray([0]), 1.0),
        ]
        for do in work:
            with pytest.raises(ValueError, match="different from the current device"):
                do()
        with y.device:
            assert (y + 1).device.id == 1
            with pytest.raises(ValueError, match="different from the current device"):
                x + y

    def test_copies_go_to_the_current_device(self, cupy, x):
        with cupy.cuda.Device(1):
            assert cupy.asarray(x).device.id == x.copy().device.id == 1
            assert copy.deepcopy(x).device.id == 0
            assert cupy.asarray(x).tolist() == x.tolist()
            with pytest.raises(NotImplementedError, match="non-contiguous"):
                cupy.asarray(x.transpose(1, 0, 2))
            assert cupy.array(x.transpose(1, 0, 2), order="C").device.id == 1

    def test_values_can_be_fetched_from_anywhere(self, cupy):
        with cupy.cuda.Device(1):
            x = cupy.ones(3)
        assert x.get().tolist() == x.tolist() == [1, 1, 1]

    def test_use_and_threads(self, cupy):
        seen = []
        cupy.cuda.Device(1).use()
        worker = threading.Thread(target=lambda: seen.append(cupy.cuda.Device().id))
        worker.start()
        worker.join()
        assert (cupy.cuda.Device().id, seen) == (1, [0])

    def test_a_device_that_is_not_there(self, cupy):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError), cupy.cuda.Device(2):
            pass
        assert cupy.cuda.runtime.getDeviceCount() == 2

    def test_streams(self, cupy):
        with cupy.cuda.Stream(non_blocking=True) as stream, counting() as counts:
            stream.synchronize()
            cupy.cuda.Stream.null.synchronize()
        assert counts.syncs == ["Stream.synchronize"] * 2


class TestInstall:
    def test_import_gives_it_and_afterwards_what_was_there(self, monkeypatch):
        real = type(sys)("cupy")
        monkeypatch.setitem(sys.modules, "cupy", real)
        monkeypatch.setitem(sys.modules, "cupy.fft", real)
        with install() as cupy:
            assert importlib.import_module("cupy") is cupy
            assert importlib.import_module("cupy.cuda").runtime.getDeviceCount() == 2
            assert importlib.util.find_spec("cupy") is not None
            assert "cupy.fft" not in sys.modules
        assert sys.modules["cupy"] is sys.modules["cupy.fft"] is real
        assert "cupy.cuda" not in sys.modules

    def test_it_leaves_when_a_test_fails(self):
        before = "cupy" in sys.modules
        with pytest.raises(ZeroDivisionError), install() as cupy:
            cupy.cuda.Device(cupy.cuda.Device(1).use().id / 0)
        assert ("cupy" in sys.modules) == before
        with install() as cupy:
            assert cupy.cuda.Device().id == 0

    def test_without_a_device_it_is_a_cupy_without_a_driver(self):
        with install(device_count=0) as cupy:
            assert not cupy.cuda.is_available()
            assert cupy.cuda.runtime.driverGetVersion() == 0
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InsufficientDriver"):
                cupy.zeros(3)
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InsufficientDriver"):
                cupy.asarray(np.ones(3))

    def test_names_are_those_of_the_real_cupy(self, cupy):
        assert cupy.__version__ == SPEC["version"]
        assert cupy.float32 is np.float32
        for name in ("exp", "einsum", "ndarray", "newaxis", "get_array_module"):
            assert hasattr(cupy, name)
        for name in ("errstate", "seterr", "put_at", "vecdot", "block", "char"):
            assert not hasattr(cupy, name)
        with pytest.raises(NotImplementedError, match="RawKernel is not in the stand-in"):
            cupy.RawKernel("", "f")
        assert cupy.get_array_module(cupy.ones(1)) is cupy
        assert cupy.get_array_module(np.ones(1)) is np

    def test_arrays_have_no_attribute_that_cupys_have_not(self, cupy):
        public = {name for name in dir(cupy.ndarray) if not name.startswith("_")}
        assert public <= set(SPEC["ndarray"])

    def test_public_names(self):
        assert set(strict_cupy.__all__) == {"Counts", "counting", "install", "no_sync"}
