"""Three ways of having no GPU are told apart, and each message holds its fix."""

import sys
from types import ModuleType

import numpy as np
import pytest
import strict_cupy

from tinycompress import backend
from tinycompress.backend import DeviceError


@pytest.fixture
def failing_import(monkeypatch):
    """``failing_import(error)``: importing CuPy raises ``error``."""

    def arrange(error):
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "cupy":
                    raise error

        for name in [n for n in sys.modules if n == "cupy" or n.startswith("cupy.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    return arrange


def fails_everywhere(match):
    """Every way to a GPU ends in the same message."""
    for ask in (backend.require_cuda, lambda: backend.to_device(np.ones(3), "cuda")):
        with pytest.raises(DeviceError, match=match):
            ask()
    assert not backend.cuda_is_available()


def test_failure_1_cupy_is_not_installed(failing_import):
    failing_import(ModuleNotFoundError("No module named 'cupy'", name="cupy"))
    fails_everywhere(r"not installed.*nvidia-smi.*tinycompress\[cuda13\].*tinycompress\[cuda12\]")


def test_failure_2_no_usable_gpu_or_driver_with_the_versions():
    with strict_cupy.install(device_count=0):
        fails_everywhere(r"no usable GPU \(CUDA runtime 12\.9, driver none\).*nvidia-smi.*cuda12")


def test_failure_2_when_even_the_versions_cannot_be_read(monkeypatch):
    with strict_cupy.install(device_count=0) as cupy:
        monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 1 / 0)
        fails_everywhere(r"CUDA runtime 12\.9, driver unknown")


def raises(error):
    def function(*args, **kwargs):
        raise error

    return function


NO_COMPILER = RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12"')
NO_CUBLAS = ImportError("libcublas.so.12: cannot open shared object file")


@pytest.mark.parametrize(("where", "error"), [("ones", NO_COMPILER), ("matmul", NO_CUBLAS)])
def test_failure_3_a_cuda_library_does_not_load_at_its_first_use(where, error, monkeypatch):
    with strict_cupy.install() as cupy:
        backend._check_libraries.cache_clear()
        owner, name = (cupy, "ones") if where == "ones" else (cupy.ndarray, "__matmul__")
        monkeypatch.setattr(owner, name, raises(error))
        fails_everywhere(rf"did not load \({type(error).__name__}: .*lib(nvrtc|cublas)")
        fails_everywhere(r"pip install 'cupy-cuda13x\[ctk\]' \(or 'cupy-cuda12x\[ctk\]'\)")
        monkeypatch.undo()
        assert backend.cuda_is_available()  # a failure is not remembered


def test_a_gpu_that_fails_is_told_from_a_missing_library(monkeypatch):
    with strict_cupy.install() as cupy:
        backend._check_libraries.cache_clear()
        error = cupy.cuda.runtime.CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC")
        monkeypatch.setattr(cupy, "ones", raises(error))
        fails_everywhere("cuda:0 does not work: cudaErrorECCUncorrectable")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.12: cannot open shared object file"),
        ModuleNotFoundError("No module named 'cupy_backends'", name="cupy_backends"),
        AttributeError("module 'numpy' has no attribute 'bool8'"),
        RuntimeError("CuPy failed to load libcuda.so.1: OSError"),
        OSError("Exec format error"),
        UserWarning("CuPy may not function correctly because multiple CuPy packages are installed"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_broken_install_is_no_missing_install(failing_import, error):
    failing_import(error)
    fails_everywhere(rf"installed but does not import \({type(error).__name__}.*uninstall every")


def test_an_empty_folder_left_by_an_uninstalled_cupy_is_a_broken_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    fails_everywhere("installed but does not import")
    assert backend.is_array(np.ones(3))
    assert not backend.is_array(1.0)


def test_a_gpu_number_too_high_says_how_many_there_are():
    with strict_cupy.install(device_count=2):
        with pytest.raises(DeviceError, match=r"cuda:2 does not exist: this machine has 2 GPU"):
            backend.to_device(np.ones(3), "cuda:2")
        assert backend.device_of(backend.to_device(np.ones(3), "cuda:1")) == "cuda:1"


def test_cuda_is_available_on_the_stand_in():
    with strict_cupy.install():
        assert backend.cuda_is_available()
