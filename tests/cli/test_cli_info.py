"""``info``: what a file holds, for any network that a file can hold."""

import re

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn


def color_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))


def test_it_lists_layers_and_tensors(run, model_file):
    text = run("info", model_file).out
    first, *lines = text.splitlines()
    assert first == f"{model_file}: tiny-cnn, 9,418 bytes, format 1"
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["conv2"] == ["conv2", "Conv2d", "8×11×11", "296", "296", "34,848"]
    assert rows["total"] == ["total", "2,346", "2,346", "61,184"]
    assert rows["fc.weight"][:3] == ["fc.weight", "10×200", "raw"]
    assert rows["file"] == ["file", "9,418"]


def test_the_bytes_add_up_to_the_file(run_json, model_file, run, tmp_path):
    run("quantize", model_file, "--bits", 4, "-o", "q.tcz", "--workers", 1)
    for path in (model_file, tmp_path / "q.tcz"):
        found = run_json("info", path)
        assert found["bytes"] == path.stat().st_size
        assert sum(t["bytes"] for t in found["tensors"]) < found["bytes"]
        assert [t["name"] for t in found["tensors"]] == list(tc.load(path).state_dict())
        lines = run("info", path).out.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("tensor "))
        rows = [re.split(r" {2,}", line.strip()) for line in lines[start + 1 :]]
        sizes = {row[0]: row for row in rows}
        listed = [number(sizes[t["name"]], f"{t['bytes']:,}") for t in found["tensors"]]
        listed += [int(row[-1].replace(",", "")) for row in rows[-3:-1]]
        assert sum(listed) == found["bytes"]


def number(row, text):
    """The number that ``text`` says, which stands in this row."""
    assert text in row
    return int(text.replace(",", ""))


def test_the_parts_of_a_tensor_add_up_to_its_bytes(run_json, run, model_file):
    run("prune", model_file, "--sparsity", 0.9, "--epochs", 0, "-o", "p.tcz", "--workers", 1)
    tensors = {t["name"]: t for t in run_json("info", "p.tcz")["tensors"]}
    for t in tensors.values():
        assert t["index_bytes"] + t["value_bytes"] + t["table_bytes"] == t["bytes"]
    weight = tensors["fc.weight"]
    assert weight["value_bytes"] == 4 * weight["nonzero"]
    assert 0 < weight["index_bytes"] < 2000 / 8


def test_the_entropy_of_codes_stands_beside_what_they_take(run_json, run, model_file):
    run("quantize", model_file, "--bits", 4, "-o", "q.tcz", "--workers", 1)
    codes = [t for t in run_json("info", "q.tcz")["tensors"] if t["name"].endswith("codes")]
    for t in codes:
        values = tc.load("q.tcz").state_dict()[t["name"]]
        _, counts = np.unique(values, return_counts=True)
        p = counts / counts.sum()
        assert t["entropy"] == pytest.approx(-(p * np.log2(p)).sum())
        assert t["value_bytes"] >= 0.98 * t["entropy"] * values.size / 8
    lines = run("info", "q.tcz").out.splitlines()
    row = next(line for line in lines if line.startswith("fc.weight_codes"))
    assert row.split()[-1] == f"{codes[-1]['entropy']:.2f}"


def test_it_agrees_with_eval(run_json, model_file):
    info, measured = run_json("info", model_file), run_json("eval", model_file, "--workers", 1)
    for key in ("parameters", "nonzero", "macs", "bytes"):
        assert info[key] == measured[key]


@pytest.fixture
def color_file(tmp_path):
    tc.save(color_net(), tmp_path / "color.tcz")
    return tmp_path / "color.tcz"


def test_a_network_that_takes_no_digits_is_described_all_the_same(run, run_json, color_file):
    text = run("info", color_file).out
    assert "18,117 parameters, 18,117 of them not zero" in text
    assert "--input-shape" in text
    assert "0.weight" in text
    found = run_json("info", color_file)
    assert found["parameters"] == found["nonzero"] == 18_117
    assert found["macs"] is found["layers"] is None
    assert found["architecture"][0] == "Sequential"


@pytest.mark.parametrize("shape", ["3,32,32", "3x32x32", "3, 32, 32"])
def test_its_layers_are_seen_at_work_on_their_own_input(shape, run_json, color_file):
    found = run_json("info", color_file, "--input-shape", shape)
    assert found["macs"] == 30 * 30 * 4 * 27 + 18_000
    assert found["layers"][0]["output_shape"] == [4, 30, 30]


def test_a_network_of_plain_numbers_takes_a_plain_shape(run_json, tmp_path):
    tc.save(nn.Sequential(nn.Linear(7, 3)), tmp_path / "line.tcz")
    assert run_json("info", "line.tcz", "--input-shape", 7)["macs"] == 21


def test_a_shape_that_does_not_fit_is_named(failure, color_file):
    assert "channels" in failure("info", color_file, "--input-shape", "1,32,32")


@pytest.mark.parametrize("shape", ["", "3,,32", "3,-2", "0,5", "a,b"])
def test_a_shape_that_is_none_is_an_error_of_usage(shape, misuse, color_file):
    assert "is no shape" in misuse("info", color_file, "--input-shape", shape)


def test_a_layer_without_any_weights_is_described(run, tmp_path):
    tc.save(nn.Sequential(nn.Flatten()), tmp_path / "none.tcz")
    assert "total" in run("info", "none.tcz").out


def test_it_changes_nothing(run, model_file):
    before = model_file.read_bytes()
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    run("info", model_file)
    assert model_file.read_bytes() == before
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
