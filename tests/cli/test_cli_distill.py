"""``tinycompress distill`` with all that it can be asked for."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.compress.distill import compare
from tinycompress.compress.quantize import integer

ALONE = ("--workers", 1)


@pytest.fixture
def second(tmp_path):
    """Another teacher, not trained."""
    tc.manual_seed(9)
    tc.save(tc.models.LeNet300100(), tmp_path / "second.tcz")
    return "second.tcz"


def weights(name):
    return {key: array.tobytes() for key, array in tc.load(name).state_dict().items()}


def test_each_option_of_the_loss_makes_another_student(run, model_file, second):
    losses = {
        "plain": [],
        "hint": ["--hint", "conv2=conv2:0.001"],
        "attention": ["--attention", "relu1=relu1:10"],
        "relations": ["--relations", "fc=pool2:10"],
        "logits": ["--relations", "logits:10"],
        "matching": ["--matching", "0.1"],
        "decoupled": ["--decoupled", "0.1"],
        "two": ["--teacher", second],
        "weighted": ["--teacher", second, "--teacher-weight", 3, "--teacher-weight", 1],
        "labels": ["--few-labels", 2],
        "without": ["--without", 3, "--without", 5],
        "corrected": ["--without", 3, "--without", 5, "--correct-bias"],
    }
    made = {}
    for name, extra in losses.items():
        run("distill", "--teacher", model_file, "--epochs", 1, *extra, "-o", f"{name}.tcz", *ALONE)
        made[name] = weights(f"{name}.tcz")
    assert len({tuple(sorted(w.items())) for w in made.values()}) == len(losses)
    again = ("distill", "--teacher", model_file, "--epochs", 1, "--hint", "conv2=conv2:0.001")
    run(*again, "-o", "again.tcz", *ALONE)
    assert weights("again.tcz") == made["hint"]
    different = {k for k in made["corrected"] if made["corrected"][k] != made["without"][k]}
    assert different == {"fc.bias"}


def test_a_budget_is_kept_by_the_file(run_json, model_file, tmp_path):
    found = run_json(
        "distill", "--teacher", model_file, "--budget-bytes", 8_000, "--epochs", 1,
        "-o", "small.tcz", *ALONE,
    )  # fmt: skip
    assert 4_000 < (tmp_path / "small.tcz").stat().st_size == found["bytes"] <= 8_000
    found = run_json(
        "distill", "--teacher", model_file, "--budget-parameters", 900, "--epochs", 1,
        "-o", "small.tcz", *ALONE,
    )  # fmt: skip
    assert found["parameters"] <= 900


def test_quantized_and_pruned_while_it_learns(run_json, model_file):
    found = run_json(
        "distill", "--teacher", model_file, "--bits", 4, "--sparsity", 0.5, "--epochs", 2,
        "-o", "small.tcz", *ALONE,
    )  # fmt: skip
    model = tc.load("small.tcz")
    layers = [m for m in model.modules() if isinstance(m, integer.IntegerLayer)]
    codes = np.concatenate([np.asarray(m.weight_codes).ravel() for m in layers])
    assert np.abs(codes).max() <= 7
    assert (codes == 0).mean() >= 0.5
    assert found["bytes"] < found["before"]["bytes"] / 3


def test_alone_shows_the_gap(run, run_json, model_file, digits):
    command = ("distill", "--teacher", model_file, "--epochs", 1, "--alone", "-o", "s.tcz", *ALONE)
    text = run(*command).out
    assert "student alone" in text
    assert "written to s.tcz" in text
    found = run_json(*command)
    report = found["report"]
    assert report["count"] == len(digits[1])
    assert report["distilled"][0]["accuracy"] == found["accuracy"]
    teacher, student = tc.load(model_file), tc.load("s.tcz")
    assert found["agreement"] == compare(teacher, student, digits[1]).agreement
    run("distill", "--teacher", model_file, "--alpha", 0, "--epochs", 1, "-o", "a.tcz", *ALONE)
    alone = compare(teacher, tc.load("a.tcz"), digits[1])
    assert report["alone"][0]["accuracy"] == alone.student_accuracy


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--hint", "conv2"], "--hint"),
        (["--hint", "conv2=conv2:much"], "must be a number"),
        (["--hint", "conv2=conv2:-1"], "weight must be"),
        (["--hint", "logits:1"], "--hint"),
        (["--relations", "=fc"], "--relations"),
        (["--student", "tiny-cnn", "--budget-bytes", "9000"], "not both"),
        (["--teacher-weight", "1", "--teacher-weight", "2"], "2 weights for 1 teachers"),
        (["--sparsity", "1.5"], "--sparsity"),
        (["--correct-bias"], "--without"),
        (["--without", "11"], "--without"),
        (["--few-labels", "1000"], "--few-labels"),
        (["--bits", "17"], "--bits"),
    ],
)
def test_wrong_options_are_named(extra, words, misuse, model_file):
    assert words in misuse("distill", "--teacher", model_file, *extra, *ALONE)


def test_layers_and_budgets_that_are_not_there_are_named(failure, model_file):
    line = failure("distill", "--teacher", model_file, "--hint", "conv9=conv2", *ALONE)
    assert "no layer 'conv9'" in line
    line = failure("distill", "--teacher", model_file, "--budget-bytes", 50, *ALONE)
    assert "the smallest needs" in line
