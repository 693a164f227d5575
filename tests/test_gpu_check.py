"""The command for a machine with a GPU, as far as a machine without one can try it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_cupy

TOOLS = Path(__file__).parents[1] / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_check, gpu_timings = load("gpu_check"), load("gpu_timings")


def test_without_a_gpu_it_says_what_to_do_and_exits_with_2(capsys, tmp_path):
    with strict_cupy.install(device_count=0):
        assert gpu_check.main(["--output", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "gpu_check: CuPy is installed, but it finds no usable GPU" in output.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["speed"])
    assert "unknown part speed: choose from tests, curves, timings" in capsys.readouterr().err


@pytest.fixture
def few_images(monkeypatch):
    """Random images in place of MNIST, and small batches."""
    rng = np.random.default_rng(0)
    images = rng.random((40, 1, 28, 28), dtype=np.float32)
    sample = gpu_check.tc.data.Dataset(images, rng.integers(0, 10, 40))
    monkeypatch.setattr(gpu_check.tc.data, "mnist", lambda: (sample, sample))
    monkeypatch.setattr(gpu_check, "BATCH_SIZE", 16)


@pytest.mark.usefixtures("few_images")
def test_the_loss_curves_agree_and_the_report_is_written(cupy, tmp_path):
    arguments = ["curves", "--steps", "4", "--output", str(tmp_path)]
    assert gpu_check.main(arguments) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "strict-stand-in.json"
    report = json.loads(path.read_text())
    assert report["ok"]
    assert report["versions"]["cupy"] == cupy.__version__
    assert len(report["commit"]) >= 7
    for dtype in ("float64", "float32"):
        curves = report["curves"][dtype]
        assert len(curves["cpu"]) == len(curves["cuda"]) == 4
        assert curves["largest_relative_difference"] <= curves["tolerance"]


@pytest.mark.usefixtures("few_images")
def test_a_gpu_that_computes_something_else_is_found_out(cupy, tmp_path, monkeypatch):
    right = cupy.ndarray.__matmul__
    monkeypatch.setattr(cupy.ndarray, "__matmul__", lambda a, b: right(a, b) * 1.0001)
    monkeypatch.setattr(cupy, "matmul", lambda a, b, **kw: right(a, b) * 1.0001)
    assert gpu_check.main(["curves", "--steps", "4", "--output", str(tmp_path)]) == 1
    (path,) = tmp_path.iterdir()
    assert not json.loads(path.read_text())["curves"]["float64"]["ok"]


def test_a_failing_test_is_named_in_the_report(tmp_path):
    xml = tmp_path / "tests.xml"
    xml.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1" time="0.5">'
        '<testcase classname="tests.test_a" name="test_b[cuda]"><failure/></testcase>'
        '<testcase classname="tests.test_a" name="test_c[cuda]"/></testsuite></testsuites>'
    )
    result = gpu_check.read_junit(xml)
    assert result["failed"] == ["tests.test_a::test_b[cuda]"]
    assert (result["tests"], result["failures"], result["skipped"]) == (3, 1, 1)


def test_timings_take_turns_and_compare_within_a_round(device):
    result = gpu_timings.time_batch(4, device, rounds=2, steps=1, warm_up=1)
    assert result["batch"] == 4
    for kind in ("train", "inference"):
        assert result[f"{kind}_tinycompress"] > 0
        if f"{kind}_torch" in result:
            assert result[f"{kind}_ratio"] > 0
    assert device != "cpu" or "torch" not in sys.modules or "train_ratio" in result
