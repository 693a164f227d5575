"""``eval``, ``compare``, ``quantize``, ``prune``, ``distill``: the numbers are the file's."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.cli.options import (
    DatasetName,
    GranularityName,
    ImportanceName,
    ModelName,
    ObserverName,
    RampName,
    SchemeName,
    ScopeName,
    WeightObserverName,
)
from tinycompress.compress.prune.importance import CRITERIA, ELSEWHERE
from tinycompress.compress.prune.one_shot import SCOPES
from tinycompress.compress.prune.ramp import SCHEDULES
from tinycompress.compress.quantize.affine import SCHEMES
from tinycompress.compress.quantize.config import GRANULARITIES, OBSERVERS, WEIGHT_OBSERVERS
from tinycompress.data.sources import SOURCES

ROW = {
    "name",
    "images",
    "accuracy",
    "error",
    "loss",
    "parameters",
    "nonzero",
    "bytes",
    "macs",
    "ms_per_1000",
    "file",
}
ALONE = ("--workers", "1")


def weights_of(path):
    return {n: p for n, p in tc.load(path).state_dict().items() if n.endswith("weight")}


# -------------------------------------------------------------------------------- eval


def test_eval_prints_one_object_with_the_promised_keys(run_json, model_file, accuracy):
    found = run_json("eval", model_file, *ALONE)
    assert set(found) == ROW
    assert found["accuracy"] == accuracy(model_file)
    assert found["error"] == pytest.approx(100 * (1 - found["accuracy"]))
    assert found["bytes"] == model_file.stat().st_size
    assert found["parameters"] == found["nonzero"] == 2_346
    assert found["macs"] == 61_184
    assert found["loss"] > 0
    assert found["ms_per_1000"] > 0


def test_eval_prints_the_same_as_a_table(run, run_json, model_file):
    found = run_json("eval", model_file, *ALONE)
    head, row = run("eval", model_file, *ALONE).out.splitlines()
    assert " ".join(head.split()) == "model accuracy params nonzero bytes × MACs ms/1k"
    assert row.split()[:5] == [
        "model",
        f"{found['accuracy']:.2%}",
        "2,346",
        "2,346",
        f"{found['bytes']:,}",
    ]


def test_weights_that_are_nan_are_measured_and_are_still_json(run_json, tmp_path):
    model = tc.models.TinyCNN()
    model.fc.weight.data[:] = np.nan
    tc.save(model, tmp_path / "broken.tcz")
    assert run_json("eval", "broken.tcz", *ALONE)["loss"] is None


# ----------------------------------------------------------------------------- compare


def test_compare_lists_the_files_in_their_order(run_json, model_file, tmp_path):
    tc.save(tc.models.create("lenet-300-100"), tmp_path / "big.tcz")
    found = run_json("compare", "big.tcz", model_file, *ALONE)
    assert list(found) == ["models"]
    assert [row["name"] for row in found["models"]] == ["big", "model"]
    assert [row["parameters"] for row in found["models"]] == [266_610, 2_346]
    assert all(set(row) == ROW for row in found["models"])


def test_files_of_one_name_are_told_apart(run_json, model_file, tmp_path):
    (tmp_path / "older").mkdir()
    tc.save(tc.models.TinyCNN(), tmp_path / "older" / "model.tcz")
    found = run_json("compare", "model.tcz", "older/model.tcz", *ALONE)
    assert [row["name"] for row in found["models"]] == ["model.tcz", "older/model.tcz"]


def test_names_are_not_read_as_markup(run, model_file, tmp_path):
    (tmp_path / "[bold] :smile:.tcz").write_bytes(model_file.read_bytes())
    assert "[bold] :smile: " in run("compare", model_file, "[bold] :smile:.tcz", *ALONE).out


# ---------------------------------------------------------------------------- quantize


def test_quantize_stores_codes_of_the_bits_that_were_asked_for(run_json, model_file, tmp_path):
    sizes = {}
    for bits in (1, 2, 4, 8, 16):
        found = run_json("quantize", model_file, "--bits", bits, "-o", f"q{bits}.tcz", *ALONE)
        assert set(found) == ROW | {"before", "config", "layers"}
        assert found["before"]["file"] == str(model_file)
        assert set(found["before"]) == ROW
        assert found["bytes"] == (tmp_path / f"q{bits}.tcz").stat().st_size
        sizes[bits] = found["bytes"]
    overhead = sizes[16] - 2_324 * 2  # weights of two bytes each; scales, biases, layers
    for bits in (4, 8):
        assert abs(sizes[bits] - (2_324 * bits / 8 + overhead)) < 60
    assert sizes[1] < sizes[2] < sizes[4]


@pytest.mark.parametrize("scheme", list(SchemeName))
@pytest.mark.parametrize("granularity", list(GranularityName))
def test_quantize_takes_every_scheme_and_granularity(scheme, granularity, run, model_file):
    group = ["--group-size", 9] if granularity == GranularityName.per_group else []
    run(
        *("quantize", model_file, "--bits", 4, "--scheme", scheme),
        *("--granularity", granularity, *group, "-o", "q.tcz", *ALONE),
    )
    config = tc.load("q.tcz").fc.quantization
    assert (config.bits, config.scheme, config.granularity) == (4, scheme, granularity)
    assert config.group_size == (9 if group else None)


def test_the_nonzero_of_a_quantized_model_are_codes_that_are_not_zero(run_json, model_file):
    found = run_json("quantize", model_file, "--bits", 2, "-o", "q.tcz", *ALONE)
    model = tc.load("q.tcz")
    codes = sum(int((m.weight_codes != 0).sum()) for m in (model.conv1, model.conv2, model.fc))
    biases = sum(m.bias.size for m in (model.conv1, model.conv2, model.fc))
    assert found["nonzero"] == codes + biases < found["parameters"] == 2_346


# ------------------------------------------------------------------------------- prune


@pytest.mark.parametrize("importance", [*CRITERIA, "random"])
@pytest.mark.parametrize("scope", list(ScopeName))
def test_prune_leaves_exactly_what_was_asked_for(importance, scope, run_json, model_file):
    found = run_json(
        *("prune", model_file, "--sparsity", 0.75, "--epochs", 0, "-o", "p.tcz"),
        *("--importance", importance, "--scope", scope, *ALONE),
    )
    weights = weights_of("p.tcz")
    zeros = {name: int((w == 0).sum()) for name, w in weights.items()}
    assert sum(zeros.values()) == round(0.75 * 2_324)
    assert found["nonzero"] == 2_346 - round(0.75 * 2_324)
    alike = all(zeros[name] == round(0.75 * w.size) for name, w in weights.items())
    assert alike == (scope == ScopeName.in_each)


def test_retraining_holds_the_zeros_and_moves_the_rest(run, model_file):
    run("prune", model_file, "--epochs", 0, "-o", "cut.tcz", *ALONE)
    run("prune", model_file, "--epochs", 2, "-o", "trained.tcz", *ALONE)
    cut, trained = weights_of("cut.tcz"), weights_of("trained.tcz")
    for name in cut:
        np.testing.assert_array_equal(cut[name] == 0, trained[name] == 0)
        kept = cut[name] != 0
        assert not np.allclose(cut[name][kept], trained[name][kept])


def test_what_was_pruned_can_be_quantized_and_keeps_its_zeros(run, model_file):
    run("prune", model_file, "--epochs", 0, "-o", "p.tcz", *ALONE)
    run("quantize", "p.tcz", "--bits", 4, "-o", "pq.tcz", *ALONE)
    pruned, both = tc.load("p.tcz"), tc.load("pq.tcz")
    assert not both.fc.weight_codes[pruned.fc.weight.data == 0].any()
    sizes = [tc.inspect(name).bytes for name in ("pq.tcz", "p.tcz", str(model_file))]
    assert sizes == sorted(sizes)


# ----------------------------------------------------------------------------- distill


def test_distill_trains_a_student_of_another_architecture(run_json, model_file, tmp_path):
    found = run_json(
        *("distill", "--teacher", model_file, "--student", "lenet-300-100", "--epochs", 1),
        *("--out", "s.tcz", *ALONE),
    )
    assert type(tc.load(tmp_path / "s.tcz")) is tc.models.LeNet300100
    assert found["parameters"] == 266_610
    assert found["before"]["parameters"] == 2_346


def test_alpha_0_is_training_on_the_labels_alone(run, model_file, tmp_path):
    same = ("--epochs", 2, "--seed", 3, "--lr", 0.05, *ALONE)
    run("train", "--model", "tiny-cnn", *same, "-o", "alone.tcz")
    for alpha in (0, 1):
        run("distill", "--teacher", model_file, "--alpha", alpha, *same, "-o", f"s{alpha}.tcz")
    alone, labels, teacher = (
        tc.load(name).fc.weight.data for name in ("alone.tcz", "s0.tcz", "s1.tcz")
    )
    np.testing.assert_allclose(labels, alone, atol=1e-5)
    assert not np.allclose(teacher, alone, atol=1e-3)


# ------------------------------------------------------------------------ all of them


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (["quantize", "model.tcz"], "quantized.tcz"),
        (["prune", "model.tcz", "--epochs", "0"], "pruned.tcz"),
        (["distill", "--teacher", "model.tcz", "--epochs", "1"], "student.tcz"),
    ],
)
def test_the_table_has_both_files_and_the_last_line_the_new_one(command, out, run, model_file):
    _, before, after, written = run(*command, *ALONE).out.splitlines()
    assert before.startswith("model ")
    assert after.startswith(out.removesuffix(".tcz"))
    assert written == f"written to {out}"


@pytest.mark.parametrize(
    "command",
    [["quantize"], ["prune"], ["distill", "--teacher"]],
)
def test_a_file_is_not_replaced_by_what_is_made_of_it(command, misuse, model_file, tmp_path):
    (tmp_path / "link.tcz").symlink_to(model_file)
    before = model_file.read_bytes()
    for out in (model_file, "./model.tcz", "link.tcz"):
        assert "made from" in misuse(*command, "model.tcz", "--out", out)
    assert model_file.read_bytes() == before


def test_the_choices_are_those_of_the_library():
    assert [*DatasetName] == [*SOURCES]
    assert [*ModelName] == tc.models.names()
    assert [*SchemeName] == [*SCHEMES]
    assert [*GranularityName] == [*GRANULARITIES]
    assert [*ObserverName] == [*OBSERVERS]
    assert [*WeightObserverName] == [*WEIGHT_OBSERVERS]
    assert [*ImportanceName] == [*CRITERIA, "random", *ELSEWHERE]
    assert [*RampName] == [*SCHEDULES]
    assert [*ScopeName] == [*SCOPES]


def test_a_network_of_your_own_is_measured_like_any_other(run_json, tmp_path, accuracy):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    tc.save(net, tmp_path / "own.tcz")
    found = run_json("eval", "own.tcz", *ALONE)
    assert found["macs"] == 7_840
    assert found["accuracy"] == accuracy(tmp_path / "own.tcz")
