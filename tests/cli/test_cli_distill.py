"""``tinycompress distill`` with all that it can be asked for."""

from dataclasses import asdict

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.cli.distillation import labelled
from tinycompress.compress.distill import Ensemble, compare, distillation_report, few_labels
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


def test_the_student_alone_hears_no_teacher(run_json, model_file, second):
    """Not even of the images whose label is missing: so it is the same beside any teacher."""
    alone = []
    for teacher in (model_file, second):
        report = run_json(
            "distill", "--teacher", teacher, "--few-labels", 3, "--alone", "--epochs", 2,
            "-o", "s.tcz", *ALONE,
        )["report"]  # fmt: skip
        alone.append({k: report["alone"][0][k] for k in ("errors", "calibration_error")})
    assert alone[0] == alone[1]


def test_where_labels_are_few_the_student_alone_sees_those_images_as_often_as_all(digits):
    few = few_labels(digits[0], 3)
    known = np.flatnonzero(few.labels.any(axis=1))
    alone = labelled(few)
    assert len(alone) == len(few)
    np.testing.assert_array_equal(alone.images[: len(known)], few.images[known])
    np.testing.assert_array_equal(alone.images[len(known) : 2 * len(known)], few.images[known])
    assert alone.labels.any(axis=1).all()
    assert labelled(digits[0]) is digits[0]


def test_layers_and_logits_of_the_second_teacher(run, failure, model_file, second):
    """The first one has no layer conv2."""
    both = ("distill", "--teacher", second, "--teacher", model_file, "--epochs", 1, *ALONE)
    assert "no layer 'conv2'" in failure(*both, "--hint", "conv2=conv2:0.001")
    made = []
    for k, terms in enumerate(
        (["--hint", "conv2=conv2@2:0.001"], ["--attention", "relu1=relu1@2"],
         ["--relations", "logits:5"], ["--relations", "logits@1:5"], ["--relations", "logits@2:5"])
    ):  # fmt: skip
        run(*both, *terms, "-o", f"{k}.tcz")
        made.append(tuple(sorted(weights(f"{k}.tcz").items())))
    assert made[2] == made[3]
    assert len(set(made)) == 4


def test_several_teachers_are_graded_with_their_weights(run_json, model_file, second, digits):
    both = ("--teacher", model_file, "--teacher", second, "--epochs", 1, "--alone")
    for weights in ([], [0, 1]):
        given = [x for w in weights for x in ("--teacher-weight", w)]
        found = run_json("distill", *both, *given, "-o", "s.tcz", *ALONE)
        teacher = Ensemble([tc.load(model_file), tc.load(second)], weights or None)
        student = tc.load("s.tcz")
        expected = distillation_report(teacher, student, student, digits[1]).teacher
        assert found["report"]["teacher"] == asdict(expected)


def test_a_file_that_holds_an_ensemble_is_one_teacher(run_json, model_file, second):
    members = [tc.load(model_file), tc.load(second)]
    tc.save(Ensemble(members), "both.tcz")
    found = run_json("distill", "--teacher", "both.tcz", "--epochs", 1, "-o", "s.tcz", *ALONE)
    assert found["before"]["parameters"] == sum(p.size for m in members for p in m.parameters())


def test_a_file_that_cannot_be_written_costs_no_training(misuse, model_file, monkeypatch):
    def trained(*args, **kwargs):
        pytest.fail("it was trained")

    monkeypatch.setattr("tinycompress.cli.distill.distill_model", trained)
    for out in ("nowhere/s.tcz", ".", f"{'s' * 245}.tcz", model_file):
        assert "--out" in misuse("distill", "--teacher", model_file, "-o", out)


def test_damaged_teachers_end_in_one_line(failure, model_file, tmp_path):
    data = model_file.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    for name, content in {"cut": data[:100], "flipped": flipped, "empty": b""}.items():
        (tmp_path / f"{name}.tcz").write_bytes(content)
        line = failure("distill", "--teacher", model_file, "--teacher", f"{name}.tcz", *ALONE)
        assert f"{name}.tcz: not a readable .tcz file" in line
    assert not (tmp_path / "student.tcz").exists()


def test_teachers_of_other_images_and_classes_are_named(failure):
    tc.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), "five.tcz")
    tc.save(nn.Sequential(nn.Conv2d(3, 2, 28), nn.Flatten(), nn.Linear(2, 10)), "colours.tcz")
    line = failure("distill", "--teacher", "five.tcz", *ALONE)
    assert "teacher tells 5 classes apart, the student 10" in line
    line = failure("distill", "--teacher", "colours.tcz", *ALONE)
    assert "the teacher does not take these images, float32 (1, 28, 28)" in line


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--hint", "conv2"], "--hint"),
        (["--hint", "conv2=conv2:much"], "must be a number"),
        (["--hint", "conv2=conv2:-1"], "weight must be"),
        (["--hint", "logits:1"], "--hint"),
        (["--hint", "conv2=conv2@2:1"], "names teacher 2, and there are 1"),
        (["--hint", "conv2=conv2@0"], "names teacher 0"),
        (["--hint", "conv2=conv2@"], "names teacher nobody"),
        (["--relations", "logits@one"], "names teacher one"),
        (["--decoupled", "inf"], "--decoupled"),
        (["--matching", "inf"], "--matching"),
        (["--decoupled", "1", "--few-labels", "2"], "needs the label of every image"),
        (["--few-labels", "0", "--alone"], "without labels nobody learns alone"),
        (["--relations", "=fc"], "--relations"),
        (["--student", "tiny-cnn", "--budget-bytes", "9000"], "not both"),
        (["--teacher-weight", "1", "--teacher-weight", "2"], "2 weights for 1 teacher"),
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
