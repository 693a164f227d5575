"""``prune`` and ``sensitivity --sparsities``: each option does what it says, or is refused."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.nn import summary

ALONE = ("--workers", "1")
SHOT = ("--epochs", 0, *ALONE)


def zeros(path):
    model = tc.load(path)
    return {layer.name: layer.sparsity for layer in tc.sparsity_report(model).layers}


@pytest.mark.parametrize("structure", ["kernel", "row", "channel", "2:4"])
def test_structures(structure, run, model_file):
    share = () if structure == "2:4" else ("--sparsity", 0.5, "--scope", "local")
    run("prune", model_file, "-o", "p.tcz", "--structure", structure, *share, *SHOT)
    w = tc.load("p.tcz").conv2.weight.data  # (8, 4, 3, 3)
    assert (w == 0).mean() == 0.5
    axes = {"kernel": (2, 3), "row": (1, 2, 3), "channel": (1, 2, 3), "2:4": ()}[structure]
    if axes:
        assert np.isin((w == 0).mean(axis=axes), [0, 1]).all()
    else:
        assert ((w == 0).sum(axis=1) == 2).all()


def test_channels_are_really_removed(run_json, model_file):
    found = run_json("prune", model_file, "--channels", 0.5, "-o", "p.tcz", *SHOT)
    thin = tc.load("p.tcz")
    assert [thin.conv1.weight.shape[0], thin.conv2.weight.shape[0]] == [2, 4]
    assert found["macs"] == summary(thin).macs < found["before"]["macs"] / 2
    assert "really gone" in found["pruning"]["says"]


def test_a_layer_of_its_own_and_the_rest(run, model_file):
    options = ("--sparsity", 0.25, "--layer", "fc=0.9", "--skip", "conv1")
    run("prune", model_file, "-o", "p.tcz", *options, *SHOT)
    assert zeros("p.tcz") == {"conv1": 0, "conv2": 0.25, "fc": 0.9}
    run("prune", model_file, "-o", "p.tcz", "--layer", "conv*=0.5", *SHOT)
    assert zeros("p.tcz") == {"conv1": 0.5, "conv2": 0.5, "fc": 0}


@pytest.mark.parametrize(
    "options",
    [
        ("--schedule", "cubic", "--importance", "taylor"),
        ("--schedule", "linear"),
        ("--importance", "movement"),
        ("--regrow",),
        ("--rounds", 2),
    ],
)
def test_pruning_in_training_reaches_what_was_asked_for(options, run, model_file):
    run("prune", model_file, "--sparsity", 0.75, "-o", "p.tcz", *options, "--epochs", 2, *ALONE)
    assert tc.sparsity_report(tc.load("p.tcz")).zeros == round(0.75 * 2_324)


def test_channels_go_little_by_little_too(run, model_file):
    options = ("--channels", 0.5, "--schedule", "cubic", "--epochs", 1, *ALONE)
    run("prune", model_file, "-o", "p.tcz", *options)
    shapes = [tc.load("p.tcz").get_submodule(n).weight.shape[0] for n in ("conv1", "conv2")]
    assert sum(shapes) < 12


def test_a_budget_is_kept(run_json, model_file, failure):
    options = ("--budget-parameters", 600, "-o", "p.tcz", *SHOT)
    found = run_json("prune", model_file, *options)
    assert found["nonzero"] <= 600
    assert set(found["sparsities"]) == {"conv1", "conv2", "fc"}
    said = failure("prune", model_file, "--budget-parameters", 5, *SHOT)
    assert "too small" in said


def test_the_report_counts_and_says_what_was_not_gained(run, run_json, model_file):
    found = run_json("prune", model_file, "--sparsity", 0.9, "-o", "p.tcz", *SHOT)["pruning"]
    after = found["after"]
    assert after["zeros"] == round(0.9 * 2_324)
    assert after["dense_bytes"] == 4 * 2_346
    assert after["macs"] == found["before"]["macs"] == 61_184
    assert after["nonzero_macs"] < 61_184
    assert after["bytes"] < found["before"]["bytes"]
    assert "no time: NumPy multiplies by zeros too" in found["says"]
    text = run("prune", model_file, "-o", "p.tcz", "--report", *SHOT).out
    assert "bytes of the file" in text
    assert "no time" in text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--channels", 0.5, "--sparsity", 0.5), "leave out --sparsity"),
        (("--channels", 0.5, "--structure", "row"), "leave out --structure"),
        (("--channels", 1.0), "below 1"),
        (("--structure", "rows"), "structure must be one of"),
        (("--structure", "2:4", "--sparsity", 0.9), "leave it out"),
        (("--layer", "fc"), "LAYER=SHARE"),
        (("--layer", "fc=1.5"), "below 1"),
        (("--layer", "fc=0.5", "--layer", "fc=0.9"), "given twice"),
        (("--budget-macs", 9, "--budget-parameters", 9), "one of the two"),
        (("--budget-macs", 9, "--layer", "fc=0.5"), "budget"),
        (("--schedule", "cubic", "--epochs", 0), "give --epochs"),
        (("--schedule", "step"), "cubic"),
        (("--regrow", "--rounds", 2), "together"),
        (("--regrow", "--structure", "row"), "single weights"),
        (("--importance", "movement", "--structure", "2:4"), "movement ranks"),
        (("--importance", "batch_norm"), "ranks channels"),
    ],
)
def test_what_contradicts_itself_is_an_error_of_usage(options, word, misuse, model_file, tmp_path):
    assert word in misuse("prune", model_file, *options)
    assert not (tmp_path / "pruned.tcz").exists()


def test_sensitivity_to_pruning(run, run_json, model_file):
    options = ("sensitivity", model_file, "--sparsities", "0.5,0.9", "--budget-macs", 30_000)
    found = run_json(*options, *ALONE)
    assert len(found["layers"]) == 6
    assert set(found["sparsities"]) == {"conv1", "conv2", "fc"}
    lines = run(*options, *ALONE).out.splitlines()
    assert lines[0].split() == ["layer", "type", "weights", "0.5", "0.9"]
    assert lines[-1].startswith("chosen: --layer conv1=")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--structure", "row"), "give --sparsities"),
        (("--sparsities", "0.5", "--bits", 4), "is for quantizing"),
        (("--sparsities", "half"), "no shares"),
        (("--sparsities", "0.5", "--importance", "movement"), "in training"),
        (
            ("--sparsities", "0.5", "--budget-macs", 9, "--budget-parameters", 9),
            "one of the two",
        ),
    ],
)
def test_sensitivity_does_one_thing_at_a_time(options, word, misuse, model_file):
    assert word in misuse("sensitivity", model_file, *options)
