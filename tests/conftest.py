"""Fixtures of every test: the device it runs on, seeded random numbers, hypothesis profiles.

``device`` runs a test once on ``"cpu"``, once on the strict stand-in for CuPy (the value is then
``"cuda"``, and ``import cupy`` gives the stand-in), and once more on real CuPy where one is usable.
``pytest --device cpu`` (or ``strict``, or ``cuda``; may be repeated) limits it; a device asked for
in this way and not there is an error, not a skip. ``-m device`` runs only the tests that take one.
"""

import os
import sys
from pathlib import Path

# Before NumPy is imported: afterwards OpenBLAS does not listen any more.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).parent))  # strict_cupy, whatever pytest's import mode is

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import strict_cupy  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tinycompress import backend, random  # noqa: E402

# A fixture such as `device` stays the same for all examples of a property, and may.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("ci", max_examples=50, derandomize=True, **_common)
settings.register_profile("thorough", max_examples=1000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

DEVICES = ("cpu", "strict", "cuda")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=DEVICES,
        action="append",
        help="run the tests that take a device on this one only (default: all that are usable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "device: takes a device (marked by conftest.py itself)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker("device")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device") or _usable_devices()
        metafunc.parametrize("device", chosen, indirect=True)


def _usable_devices() -> list[str]:
    return [name for name in DEVICES if name != "cuda" or backend.cuda_is_available()]


@pytest.fixture
def cupy():
    """The strict stand-in, installed as ``cupy``, with two GPUs."""
    with strict_cupy.install() as module:
        backend.require_cuda(0)  # it tries the GPU once: here, where no test counts launches
        backend.require_cuda(1)
        yield module


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """``"cpu"`` or ``"cuda"``: the device on which the test puts its arrays."""
    if request.param == "strict":
        request.getfixturevalue("cupy")
        return "cuda"
    if request.param == "cuda":
        backend.require_cuda()
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_start():
    """Every test draws its initial weights and masks from the same start, whatever ran before."""
    random.manual_seed(0)
