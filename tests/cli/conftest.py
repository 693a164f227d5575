"""The commands on a few hundred images, in a folder of the test's own, without the network."""

import functools
import json

import numpy as np
import pytest
from program import Result
from typer.testing import CliRunner

import tinycompress as tc
from tinycompress.cli import common
from tinycompress.cli.app import app
from tinycompress.cli.options import DatasetName

_sample = functools.cache(tc.data.mnist)


@pytest.fixture(autouse=True)
def _own_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("TINYCOMPRESS_DATA", "TINYCOMPRESS_TRACEBACK", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TINYCOMPRESS_QUICK", "1")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _unpack_the_sample_once(monkeypatch):
    original = tc.data.mnist
    _sample()  # now, before a test puts other files in the place of MNIST's
    whole = lambda *args, **kwargs: (original if args or kwargs else _sample)(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(tc.data, "mnist", whole)


@pytest.fixture
def run():
    """``run("eval", file, "--json")`` in this process; the exit code must be ``code``."""

    def invoke(*args, code=0):
        result = CliRunner().invoke(app, [str(a) for a in args], prog_name="tinycompress")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        return Result(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def run_json(run):
    """The JSON object that a command prints, and prints alone."""

    def invoke(*args):
        result = run(*args, "--json")
        assert result.err == ""
        value = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert isinstance(value, dict)
        return value

    return invoke


@pytest.fixture
def failure(run):
    """The line that a command fails with: the only one, and nothing on standard output."""

    def invoke(*args):
        result = run(*args, code=1)
        assert result.out == ""
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        return result.err

    return invoke


@pytest.fixture
def misuse(run):
    """What is said of a wrong command line, with the frame around it taken away."""

    def invoke(*args):
        result = run(*args, code=2)
        assert result.out == ""
        lines = [line.strip("│╭╰─╮╯ ") for line in result.err.splitlines()]
        return " ".join(line for line in lines if line)

    return invoke


@pytest.fixture
def digits():
    """(train, test) as the commands see them."""
    return common.load_data(DatasetName.mnist, None, False)


@pytest.fixture
def model_file(tmp_path):
    """A small CNN, not trained."""
    tc.save(tc.models.TinyCNN(), tmp_path / "model.tcz")
    return tmp_path / "model.tcz"


@pytest.fixture
def accuracy(digits):
    """The accuracy of a file, by a loop that shares nothing with the report."""

    def measure(path):
        images, labels = digits[1].images, digits[1].labels
        model = tc.load(path)
        answers = [model(image[None]).numpy().argmax() for image in images]
        return float(np.mean(np.array(answers) == labels))

    return measure
