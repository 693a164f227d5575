"""``data``, ``--data-dir``, ``--full``: what is found, what is missing, what to do about it."""

import dataclasses
import hashlib
import importlib
import socket

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.data import write_idx
from tinycompress.data.idx import pack_idx
from tinycompress.data.sources import MNIST, IdxFile

NAMES = [file.name for file in MNIST.files]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@pytest.fixture
def arrays(monkeypatch):
    """Small files in the place of MNIST's: their arrays."""
    generator = np.random.default_rng(0)
    shapes, highs = [(40, 28, 28), (40,), (20, 28, 28), (20,)], [256, 10, 256, 10]
    made = [generator.integers(0, h, s, np.uint8) for h, s in zip(highs, shapes, strict=True)]
    files = tuple(
        IdxFile(name, array.shape, hashlib.sha256(pack_idx(array)).hexdigest())
        for name, array in zip(NAMES, made, strict=True)
    )
    small = dataclasses.replace(MNIST, files=files)
    monkeypatch.setattr(importlib.import_module("tinycompress.data.mnist"), "MNIST", small)
    sources = importlib.import_module("tinycompress.data.sources")
    monkeypatch.setitem(sources.SOURCES, "mnist", small)
    return made


@pytest.fixture
def folder(arrays, tmp_path):
    (tmp_path / "files").mkdir()
    for name, array in zip(NAMES, arrays, strict=True):
        write_idx(tmp_path / "files" / f"{name}.gz", array)
    return tmp_path / "files"


# -------------------------------------------------------------------------- the command


def test_what_is_missing_is_listed_with_where_it_was_looked_for(run, run_json, tmp_path):
    text = run("data").out
    assert text.count("not found") == 4
    assert f"\n  {tmp_path / 'cache' / 'tinycompress' / 'mnist'}\n" in text
    assert "not complete" in text
    assert "--download" in text
    assert "sample" in text
    found = run_json("data")
    assert found["complete"] is False
    assert [file["name"] for file in found["files"]] == NAMES
    assert all(file["path"] is file["size"] is None for file in found["files"])


def test_what_is_there_is_checked(run, run_json, folder):
    found = run_json("data", "--data-dir", folder)
    assert found["complete"] is True
    for file in found["files"]:
        assert file["path"] == str(folder / f"{file['name']}.gz")
        assert file["checked"] == "sha256"
        assert file["problem"] == ""
    text = run("data", "--data-dir", folder).out
    assert text.count("sha256") == 4
    assert text.endswith("MNIST is complete.\n")


def test_what_is_damaged_is_said_to_be(run, folder):
    data = (folder / f"{NAMES[1]}.gz").read_bytes()
    (folder / f"{NAMES[1]}.gz").write_bytes(data[:-9])
    text = run("data", "--data-dir", folder).out
    (line,) = [line for line in text.splitlines() if line.startswith(NAMES[1])]
    problem = line.split(f"{folder / NAMES[1]}.gz: ")[1]
    assert "truncated" in problem or "damaged" in problem
    assert text.count("sha256") == 3
    assert "not complete" in text


def test_without_a_network_it_says_which_files_to_put_where(failure, tmp_path):
    line = failure("data", "--download", "--data-dir", tmp_path / "new")
    assert "no network?" in line
    assert all(f"{name}.gz" in line for name in NAMES)
    assert f"Put them, packed or not, into {tmp_path / 'new' / 'mnist'}" in line
    assert failure("data", "--download", "--json").count("\n") == 1


def test_a_folder_that_is_a_file_is_named(failure, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a folder" in failure("data", "--data-dir", "file")


def test_fashion_mnist_is_looked_for_by_its_own_name(run, run_json):
    assert run_json("data", "--dataset", "fashion-mnist")["name"] == "fashion-mnist"
    assert "Fashion-MNIST is not complete" in run("data", "--dataset", "fashion-mnist").out


# ---------------------------------------------------------------------- the other commands


def test_a_data_dir_is_what_is_trained_and_tested_on(run_json, folder, tmp_path):
    options = ("--data-dir", folder, "--workers", 1)
    found = run_json("train", "--model", "tiny-cnn", "--epochs", 1, "--batch-size", 8, *options)
    assert found["images"] == 20
    again = run_json("eval", "model.tcz", *options)
    assert again["accuracy"] == found["accuracy"]
    assert run_json("eval", "model.tcz", "--workers", 1)["images"] == 250


def test_full_finds_the_files_of_the_environment(run_json, folder, model_file, monkeypatch):
    monkeypatch.setenv("TINYCOMPRESS_DATA", str(folder))
    assert run_json("eval", model_file, "--full", "--workers", 1)["images"] == 20
    assert run_json("eval", model_file, "--workers", 1)["images"] == 250


def test_a_data_dir_without_the_files_downloads_nothing(failure, model_file, tmp_path):
    (tmp_path / "empty").mkdir()
    line = failure("eval", model_file, "--data-dir", "empty")
    assert all(f"{name}.gz" in line for name in NAMES)
    assert "network" not in line
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("how", [["--full"], ["--dataset", "fashion-mnist"]])
def test_without_a_network_a_command_says_the_same(how, failure, model_file):
    for command in (["eval", model_file], ["train"], ["compare", model_file]):
        assert "Put them, packed or not, into " in failure(*command, *how)


def test_the_sample_needs_neither_files_nor_a_network(run_json, model_file, monkeypatch):
    monkeypatch.delenv("TINYCOMPRESS_QUICK")
    images = 300
    train, test = tc.data.mnist()
    monkeypatch.setattr(tc.data, "mnist", lambda: (train, test.take(images)))
    assert run_json("eval", model_file, "--workers", 1)["images"] == images
