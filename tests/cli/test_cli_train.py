"""``train``: what it writes, what it says, and what it refuses before it begins."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.cli.options import OptimizerName
from tinycompress.cli.recipe import LEARNING_RATES
from tinycompress.train.step import SHARD_SIZE

TINY = ("train", "--model", "tiny-cnn", "--workers", "1")


def assert_same_weights(a, b):
    a, b = (tc.load(path).state_dict() for path in (a, b))
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_trained_model_is_written_and_measured(run_json, tmp_path, accuracy):
    found = run_json(*TINY, "--epochs", 6, "--batch-size", 16, "--out", "small.tcz")
    assert found["name"] == "small"
    assert found["file"] == "small.tcz"
    assert found["bytes"] == (tmp_path / "small.tcz").stat().st_size
    assert found["accuracy"] == accuracy(tmp_path / "small.tcz") > 0.3
    assert [epoch["epoch"] for epoch in found["history"]] == list(range(6))
    assert found["history"][-1]["loss"] < found["history"][0]["loss"]
    assert found["history"][0]["val_accuracy"] is None


def test_the_default_file_is_model_tcz(run, tmp_path):
    assert run(*TINY, "--epochs", 1).out.endswith("\nwritten to model.tcz\n")
    assert type(tc.load(tmp_path / "model.tcz")) is tc.models.TinyCNN


@pytest.mark.parametrize("name", tc.models.names())
def test_every_model_can_be_trained_by_its_name(name, run, tmp_path):
    run("train", "--model", name, "--epochs", 1, "--batch-size", 256, "--workers", 1)
    assert tc.inspect(tmp_path / "model.tcz").model == name


def test_the_same_seed_gives_the_same_file_and_another_another(run, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(*TINY, "--epochs", 1, "--seed", seed, "--out", f"{name}.tcz")
    a, b, c = ((tmp_path / f"{name}.tcz").read_bytes() for name in "abc")
    assert a == b != c


def test_two_workers_give_the_same_file(run, tmp_path):
    run("train", "--model", "tiny-cnn", "--epochs", 1, "--workers", 1, "--out", "one.tcz")
    run("train", "--model", "tiny-cnn", "--epochs", 1, "--workers", 2, "--out", "two.tcz")
    assert (tmp_path / "one.tcz").read_bytes() == (tmp_path / "two.tcz").read_bytes()


def test_images_that_are_held_out_are_validated_on(run, run_json):
    found = run_json(*TINY, "--epochs", 2, "--validate", 0.25, "--batch-size", 64)
    assert all(0 <= epoch["val_accuracy"] <= 1 for epoch in found["history"])
    text = run(*TINY, "--epochs", 2, "--validate", 0.25, "--batch-size", 64).out
    head, *rows = text.splitlines()[:3]
    assert " ".join(head.split()) == "epoch loss accuracy val loss val accuracy images/s"
    for row, epoch in zip(rows, found["history"], strict=True):
        number, loss, seen, val_loss, val_accuracy, _ = row.split()
        assert number == str(epoch["epoch"] + 1)
        assert (loss, seen) == (f"{epoch['loss']:.4f}", f"{epoch['accuracy']:.2%}")
        assert val_loss == f"{epoch['val_loss']:.4f}"
        assert val_accuracy == f"{epoch['val_accuracy']:.2%}"


def test_augmentation_changes_what_is_learned(run, tmp_path):
    run(*TINY, "--epochs", 1, "--out", "plain.tcz")
    run(*TINY, "--epochs", 1, "--out", "moved.tcz", "--augment")
    assert (tmp_path / "plain.tcz").read_bytes() != (tmp_path / "moved.tcz").read_bytes()


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "none"])
@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_each_optimizer_learns_with_its_own_default_rate(optimizer, schedule, run_json):
    found = run_json(
        *TINY, "--epochs", 3, "--batch-size", 32, "--optimizer", optimizer, "--schedule", schedule
    )
    assert found["history"][-1]["loss"] < found["history"][0]["loss"]
    assert max(epoch["lr"] for epoch in found["history"]) <= LEARNING_RATES[optimizer]


def test_gradients_are_kept_short_unless_told_otherwise(run, failure):
    """The default rates need it: without a limit, LeNet-5 ends in infinity for some seeds."""
    wild = ("train", "--model", "lenet-5", "--lr", 0.5, "--schedule", "none", "--workers", 1)
    wild += ("--batch-size", 16, "--epochs", 1)
    run(*wild)
    assert "the loss became nan" in failure(*wild, "--clip-norm", 0)
    run(*TINY, "--epochs", 1, "--clip-norm", 1e-9)
    tc.manual_seed(0)
    start = tc.models.TinyCNN()
    np.testing.assert_allclose(tc.load("model.tcz").fc.weight.data, start.fc.weight.data, atol=1e-6)


# ----------------------------------------------------------------------------- profile


def test_a_profile_adds_up_to_a_step(run_json):
    batch = ("--batch-size", 2 * SHARD_SIZE)  # of the 256 images
    found = run_json("train", "--model", "tiny-cnn", "--epochs", 2, *batch, "--profile")
    profile = found["profile"]
    assert (profile["workers"], profile["steps"]) == (1, 2 * 256 // (2 * SHARD_SIZE))
    rows = {row["name"]: row for row in profile["rows"]}
    assert sum(row["ms"] for row in rows.values()) == pytest.approx(profile["step_ms"])
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert rows["linear"]["calls_per_step"] == rows["cross_entropy"]["calls_per_step"] == 2
    convolutions = [row for name, row in rows.items() if name.startswith("conv2d")]
    assert sum(row["calls_per_step"] for row in convolutions) == 4
    for row in (rows["linear"], *convolutions):
        assert row["forward_ms"] > 0 < row["backward_ms"]
        assert row["forward_ms"] + row["backward_ms"] == pytest.approx(row["ms"])
    assert profile["rows"][-1]["name"] == "rest"


def test_a_profile_is_shown_as_a_table(run):
    text = run(*TINY, "--epochs", 1, "--batch-size", 64, "--profile").out
    about, head, *rows = text.splitlines()[3:]
    assert about == "4 steps were measured, on one worker, in this process"
    assert head.split() == [
        "ms",
        "per",
        "step",
        "calls",
        "forward",
        "backward",
        "together",
        "share",
    ]
    rows = [row.rsplit(None, 2) for row in rows[: rows.index("")]]
    names = [row[0].split()[0] for row in rows]
    assert names[-2:] == ["rest", "step"]
    assert "linear" in names
    *parts, whole = [float(row[1]) for row in rows]
    assert sum(parts) == pytest.approx(whole, abs=0.006 * len(rows))
    assert rows[-1][2] == "100.0%"
    assert "ms per step" not in run(*TINY, "--epochs", 1).out


def test_a_profile_changes_nothing_else(run, run_json, tmp_path):
    run(*TINY, "--epochs", 1, "--out", "a.tcz")
    assert "profile" not in run_json(*TINY, "--epochs", 1, "--out", "b.tcz")
    run(*TINY, "--epochs", 1, "--out", "c.tcz", "--profile")
    assert len({(tmp_path / name).read_bytes() for name in ("a.tcz", "b.tcz", "c.tcz")}) == 1


def test_a_profile_of_no_steps_is_empty(run, tmp_path):
    done = (*TINY, "--epochs", 1, "--checkpoint", "c.safetensors")
    run(*done)
    text = run(*done, "--resume", "--profile").out
    assert "0 steps were measured" in text


def test_a_profile_of_several_workers_is_refused(misuse):
    assert "one worker" in misuse("train", "--workers", 2, "--profile")


# ------------------------------------------------------------------------- checkpoints


def test_a_resumed_run_ends_as_one_that_went_through(run, run_json, tmp_path):
    steady = (*TINY, "--schedule", "none")
    run(*steady, "--epochs", 4, "--out", "whole.tcz")
    half = ("--checkpoint", "c.safetensors", "--out", "half.tcz")
    run(*steady, "--epochs", 2, *half)
    found = run_json(*steady, "--epochs", 4, *half, "--resume")
    assert [epoch["epoch"] for epoch in found["history"]] == [0, 1, 2, 3]
    assert_same_weights(tmp_path / "whole.tcz", tmp_path / "half.tcz")


def test_resuming_what_never_began_begins(run, tmp_path):
    run(*TINY, "--epochs", 1, "--checkpoint", "c.safetensors", "--resume")
    assert (tmp_path / "c.safetensors").is_file()


def test_a_checkpoint_of_other_settings_is_not_mixed_in(run, failure, tmp_path):
    saved = ("--epochs", 1, "--checkpoint", "c.safetensors")
    run(*TINY, *saved)
    before = (tmp_path / "model.tcz").read_bytes()
    line = failure(*TINY, *saved, "--resume", "--batch-size", 32)
    assert "batch_size: 128 there, 32 here" in line
    assert (tmp_path / "model.tcz").read_bytes() == before


def test_a_damaged_checkpoint_is_refused(run, failure, tmp_path):
    saved = ("--epochs", 1, "--checkpoint", "c.safetensors")
    run(*TINY, *saved)
    data = bytearray((tmp_path / "c.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "c.safetensors").write_bytes(data)
    assert "c.safetensors is damaged" in failure(*TINY, *saved, "--resume")


# ---------------------------------------------------------------- refused before training


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(tc, "fit", lambda *_, **__: pytest.fail("it trained"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--out", "nowhere/m.tcz"], "does not exist"),
        (["--out", "."], "not an ordinary file"),
        (["--checkpoint", "nowhere/c"], "Invalid value for --checkpoint"),
        (["--checkpoint", "model.tcz"], "the same file"),
        (["--resume"], "--resume needs --checkpoint"),
        (["--lr", "0"], "must be > 0"),
        (["--lr", "-0.1"], "--lr"),
        (["--lr", "nan"], "--lr"),
        (["--lr", "inf"], "--lr"),
        (["--lr", "fast"], "--lr"),
        (["--weight-decay", "-1"], "--weight-decay"),
        (["--clip-norm", "-1"], "--clip-norm"),
        (["--epochs", "0"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--workers", "0"], "--workers"),
        (["--seed", "-1"], "--seed"),
        (["--validate", "0.9"], "--validate"),
        (["--data-dir", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_a_wrong_option_costs_no_training(args, words, misuse, no_training):
    assert words in misuse("train", *args)


def test_a_folder_that_cannot_be_written_costs_no_training(misuse, no_training, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    assert "cannot write to" in misuse("train")


def test_too_few_images_to_hold_out_are_named(failure):
    assert "at least one example on each side" in failure(*TINY, "--validate", 0.0001)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(failure, tmp_path):
    line = failure(*TINY, "--lr", 1e20, "--schedule", "none", "--batch-size", 16)
    assert "epoch" in line
    assert not (tmp_path / "model.tcz").exists()
