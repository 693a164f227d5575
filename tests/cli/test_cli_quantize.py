"""``quantize`` with activations, training and a budget; ``sensitivity``."""

import json

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.quantize import QuantConfig
from tinycompress.compress.quantize.integer import IntegerConv2d, IntegerLinear

ALONE = ("--workers", "1")


def codes_of(path):
    return {n: a for n, a in tc.load(path).state_dict().items() if n.endswith("weight_codes")}


def same(a, b):
    a, b = tc.load(a).state_dict(), tc.load(b).state_dict()
    return list(a) == list(b) and all(np.array_equal(a[n], b[n]) for n in a)


# ------------------------------------------------------------------------------- activations


def test_with_activations_the_file_computes_in_integers(run_json, model_file, digits, accuracy):
    found = run_json(
        "quantize", model_file, "--bits", 4, "--activations", 6, "--calibrate", 64, *ALONE
    )
    model = tc.load("quantized.tcz")
    assert [type(m) for m in (model.conv1, model.fc)] == [IntegerConv2d, IntegerLinear]
    expected = tc.quantize(tc.load(model_file), QuantConfig(4, activations=6), digits[0].take(64))
    x = digits[1].images[:20]
    np.testing.assert_array_equal(model(x).data, expected(x).data)
    assert found["accuracy"] == accuracy("quantized.tcz")
    assert {(e["bits"], e["activations"], e["arithmetic"]) for e in found["layers"]} == {
        (4, 6, "integers")
    }
    assert found["config"]["activations"] == 6
    assert run_json("eval", "quantized.tcz", *ALONE)["accuracy"] == found["accuracy"]


def test_every_option_reaches_the_config(run_json, model_file):
    found = run_json(
        *("quantize", model_file, "--bits", 5, "--activations", 7, "--observer", "percentile"),
        *("--percentile", 99, "--activation-scheme", "symmetric", "--weight-observer", "mse"),
        *("--granularity", "per_tensor", "--override", "fc=8", "--override", "conv*=float"),
        *ALONE,
    )
    config = QuantConfig(
        5, granularity="per_tensor", activations=7, activation_scheme="symmetric",
        observer="percentile", weight_observer="mse", percentile=99,
    )  # fmt: skip
    config = config.replace(overrides={"fc": config.replace(bits=8), "conv*": None})
    assert QuantConfig.from_dict(found["config"]) == config
    assert [e["bits"] for e in found["layers"]] == [None, None, 8]


def test_dynamic_needs_no_calibration(run_json, model_file):
    found = run_json("quantize", model_file, "--dynamic", *ALONE)
    assert {e["observer"] for e in found["layers"]} == {"each example"}
    assert tc.load("quantized.tcz").fc.quantization.dynamic


@pytest.mark.parametrize("option", ["--equalize", "--bias-correction", "--adaround"])
@pytest.mark.parametrize("activations", [(), ("--activations", 8)])
def test_each_way_of_losing_less_changes_the_file(option, activations, run, model_file):
    plain = ("quantize", model_file, "--bits", 3, *activations, "--calibrate", 40, *ALONE)
    run(*plain, "-o", "plain.tcz")
    run(*plain, option, "-o", "better.tcz")
    assert not same("plain.tcz", "better.tcz")
    assert codes_of("plain.tcz").keys() == codes_of("better.tcz").keys()
    kind = type(tc.load("better.tcz").fc)
    assert (kind is IntegerLinear) == bool(activations)


# ---------------------------------------------------------------------------------- training


def test_training_for_codes_is_better_than_rounding(run_json, run, tmp_path, digits):
    model = tc.models.TinyCNN()
    tc.fit(model, digits[0], 30, tc.optim.Adam(model.parameters(), lr=0.01), workers=1)
    tc.save(model, tmp_path / "m.tcz")
    bits = ("quantize", "m.tcz", "--bits", 2, "--activations", 2, *ALONE)
    rounded = run_json(*bits, "-o", "rounded.tcz")
    trained = run_json(
        *bits, "--qat", 20, "--learn-step", "--lr", 0.005, "--batch-size", 32, "-o", "qat.tcz"
    )
    assert trained["loss"] < rounded["loss"]
    assert trained["accuracy"] > rounded["accuracy"] + 0.1
    assert {e["learned_step"] for e in trained["layers"]} == {True}
    assert {e["bits"] for e in trained["layers"]} == {2}


def test_training_can_be_of_weights_alone_and_is_repeatable(run, model_file):
    args = ("quantize", model_file, "--bits", 2, "--qat", 1, *ALONE)
    for name in ("a.tcz", "b.tcz"):
        run(*args, "-o", name)
    assert same("a.tcz", "b.tcz")
    assert type(tc.load("a.tcz").fc).__name__ == "QuantizedLinear"


# ------------------------------------------------------------------------------------- a budget


@pytest.mark.parametrize(
    "more", [(), ("--activations", 8, "--bias-correction"), ("--qat", 1), ("--equalize",)]
)
def test_a_budget_holds_in_the_file(more, run_json, model_file, tmp_path):
    found = run_json(
        "quantize", model_file, "--mixed", 1300, "--candidates", "2,4,8", *more, *ALONE
    )
    assert found["bytes"] == (tmp_path / "quantized.tcz").stat().st_size <= 1300
    bits = found["mixed"]["bits"]
    assert {e["name"]: e["bits"] for e in found["layers"]} == bits
    assert set(bits.values()) <= {2, 4, 8}
    assert found["mixed"]["budget_bytes"] == 1300


def test_a_budget_that_cannot_be_held_says_what_could(failure, model_file, tmp_path):
    line = failure("quantize", model_file, "--mixed", 100, *ALONE)
    assert "budget_bytes=100 is too small" in line
    assert not (tmp_path / "quantized.tcz").exists()


def test_the_tables_show_the_choice_and_the_layers(run, model_file):
    out = run("quantize", model_file, "--mixed", 1300, "--report", *ALONE).out
    assert "of 1,300 bytes" in out
    assert "-bit weights" in out
    assert out.splitlines()[-1] == "written to quantized.tcz"


# --------------------------------------------------------------------------------- wrong options


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--activations", 1], ["--activations"]),
        (["--activations", 8, "--scheme", "affine"], ["--scheme", "symmetric"]),
        (
            ["--activations", 8, "--granularity", "per_group", "--group-size", 4],
            ["--granularity", "per_channel"],
        ),
        (["--observer", "median"], ["--observer", "moving_average"]),
        (["--weight-observer", "kl"], ["--weight-observer", "mse"]),
        (["--percentile", 20], ["--percentile", "above 50"]),
        (["--percentile", 101], ["--percentile", "at most 100"]),
        (["--bits", 1, "--scheme", "affine"], ["--scheme", "symmetric"]),
        (["--group-size", 4], ["--group-size", "per_group"]),
        (["--calibrate", 0], ["--calibrate"]),
        (["--learn-step"], ["--learn-step", "--qat EPOCHS"]),
        (["--qat", 1, "--dynamic"], ["--qat", "--dynamic"]),
        (["--qat", 1, "--adaround"], ["--adaround", "leave it out"]),
        (["--qat", 1, "--bias-correction"], ["--bias-correction", "leave it out"]),
        (["--qat", 1, "--lr", 0], ["--lr", "must be > 0"]),
        (["--lr", 0.01], ["--lr", "--qat EPOCHS"]),
        (["--batch-size", 32], ["--batch-size", "--qat EPOCHS"]),
        (["--candidates", "2,4"], ["--candidates", "--mixed BYTES"]),
        (["--mixed", 0], ["--mixed"]),
        (["--mixed", 900, "--candidates", "2,x"], ["--candidates", "2,4,8"]),
        (["--mixed", 900, "--candidates", "0,4"], ["--candidates"]),
        (["--override", "fc"], ["--override", "LAYER=BITS"]),
        (["--override", "fc=four"], ["--override", "1 to 16"]),
        (["--override", "fc=17"], ["--override", "17"]),
        (["--override", "fc7=4"], ["--override", "fc7", "conv1, relu1"]),
    ],
)
def test_what_contradicts_itself_names_the_option(args, words, misuse, model_file, tmp_path):
    text = misuse("quantize", model_file, *args)
    assert all(word in text for word in words), text
    assert not (tmp_path / "quantized.tcz").exists()


@pytest.mark.parametrize("more", [(), ("--activations", 8), ("--mixed", 1000), ("--qat", 1)])
def test_a_model_in_codes_says_what_it_is_and_nothing_is_written(
    more, failure, model_file, digits, tmp_path
):
    model = tc.load(model_file)
    tc.save(tc.quantize(model, QuantConfig(8), digits[0].take(8)), tmp_path / "integers.tcz")
    tc.save(tc.quantize(model), tmp_path / "weights.tcz")
    before = sorted(tmp_path.iterdir())
    assert "computes in integers already" in failure("quantize", "integers.tcz", *more, *ALONE)
    assert "already is" in failure("quantize", "weights.tcz", *more, *ALONE)
    assert sorted(tmp_path.iterdir()) == before


# ---------------------------------------------------------------------------------- sensitivity


def test_sensitivity_prints_the_library_s_numbers(run_json, model_file, digits):
    found = run_json("sensitivity", model_file, "--bits", 3, "--images", 100, *ALONE)
    train = digits[0]
    data = tc.data.Dataset(train.images[-100:], train.labels[-100:])
    expected = tc.sensitivity(tc.load(model_file), QuantConfig(3), data, workers=1)
    rows = {k: found[k] for k in ("images", "accuracy", "loss", "layers", "together")}
    assert rows == json.loads(json.dumps(expected.to_dict()))
    assert found["config"]["bits"] == 3


def test_sensitivity_of_activations_and_overrides(run_json, model_file):
    found = run_json(
        *("sensitivity", model_file, "--activations", 4, "--observer", "mse", "--images", 50),
        *("--override", "conv1=float", *ALONE),
    )
    assert [(r["name"], r["activations"]) for r in found["layers"]] == [("conv2", 4), ("fc", 4)]


def test_sensitivity_is_a_table_with_all_layers_at_the_end(run, model_file, tmp_path):
    before = sorted(tmp_path.iterdir())
    lines = run("sensitivity", model_file, "--images", 50, *ALONE).out.splitlines()
    assert lines[0].split()[:2] == ["layer", "type"]
    assert [line.split()[0] for line in lines[1:]] == ["in", "conv1", "conv2", "fc", "all"]
    assert sorted(tmp_path.iterdir()) == before


def test_sensitivity_refuses_what_it_cannot_do(failure, misuse, tmp_path, model_file):
    tc.save(nn.Sequential(nn.Flatten()), tmp_path / "none.tcz")
    assert "nothing to quantize" in failure("sensitivity", "none.tcz")
    assert "--override" in misuse("sensitivity", model_file, "--override", "fc9=2")
    assert "--images" in misuse("sensitivity", model_file, "--images", 0)


@pytest.mark.parametrize("command", ["quantize", "sensitivity"])
def test_the_help_explains_bits_and_activations(command, run):
    text = " ".join(run(command, "--help").out.replace("│", " ").split())
    for words in ("--activations", "computes in integers", "moving_average", "LAYER=BITS"):
        assert words in text
