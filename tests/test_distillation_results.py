"""The script of measured distillation: it goes on where it was, and compares like with like."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinycompress as tc

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import distillation_results as results
import distillation_settings as settings

ALONE, TAUGHT, TEACHER = "cnn-16-alone", "cnn-16-distilled", "cnn-teacher"


@pytest.fixture
def common(tmp_path):
    return ["--quick", "--workers", "1", "--out", str(tmp_path), "--kept", str(tmp_path / "kept")]


def saved(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture
def work(tmp_path):
    train, test = tc.data.mnist()
    team = tc.train.Workers(1)
    return settings.Work(train.take(300), test.take(200), tmp_path, team, at_most=1)


def test_a_rerun_goes_on_and_measures_nothing_twice(tmp_path, common, capsys):
    command = [*common, "--settings", ALONE, TAUGHT, "--seed-list"]
    results.main([*command, "0"])
    assert f"{TAUGHT} seed 0" in capsys.readouterr().out
    results.main([*command, "0", "1"])
    said = capsys.readouterr().out
    assert "seed 0" not in said
    assert f"{TAUGHT} seed 1" in said
    alone, taught = saved(tmp_path, ALONE), saved(tmp_path, TAUGHT)
    assert [row["seed"] for row in taught["seeds"]] == [0, 1]
    assert str(tmp_path) not in json.dumps(taught)
    assert {"name", "what", "command", "commit", "versions", "data", "mean", "std"} <= {*taught}
    for row, beside in zip(taught["seeds"], alone["seeds"], strict=True):
        assert row["fewer than alone"] == beside["errors"] - row["errors"]
    assert (tmp_path / f"{TAUGHT}-seed0.tcz").stat().st_size == taught["seeds"][0]["bytes"]


def test_the_share_of_the_gap_is_that_of_all_seeds_together(tmp_path):
    def rows(*errors, **more):
        return {"seeds": [{"seed": i, "errors": e, **more} for i, e in enumerate(errors)]}

    (tmp_path / f"{ALONE}.json").write_text(json.dumps(rows(150, 130)))
    (tmp_path / f"{TAUGHT}.json").write_text(json.dumps(rows(80, 70, **{"teacher's errors": 60})))
    assert results.gap_closed(tmp_path, TAUGHT) == pytest.approx((280 - 150) / (280 - 120))
    assert results.gap_closed(tmp_path, ALONE) is None


def test_a_choice_is_made_by_errors_on_images_held_out(tmp_path, work, monkeypatch, capsys):
    candidates = ({"lr": 1e-6, "epochs": 3}, {"lr": 1e-2, "epochs": 3})
    name = "hinton-alone"
    chosen = settings.Setting("", settings.hinton_alone, candidates)
    work.at_most = 3
    monkeypatch.setitem(settings.SETTINGS, name, chosen)
    results.select(work, [name], tmp_path, "command")
    file = saved(tmp_path, "choices")
    assert file["chosen"][name] == candidates[1]
    errors = [each["error"] for each in file["tried"][name]]
    assert errors[1] < errors[0]
    assert not list(tmp_path.glob("*final*"))
    results.main(["--table", "--tried", name, "--out", str(tmp_path)])
    printed = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()[-2:]]
    assert printed == ["lr 0.01, epochs 3", "lr 1e-06, epochs 3"]


def test_other_sizes_take_what_was_chosen_for_the_headline(tmp_path):
    (tmp_path / "choices.json").write_text(json.dumps({"chosen": {"cnn-4-alone": {"lr": 7}}}))
    assert results.choices(tmp_path)["cnn-8-alone"] == {"lr": 7}


def test_what_was_chosen_is_what_did_best_of_all_that_the_command_tries():
    file = json.loads((results.parser().get_default("out") / "choices.json").read_text())
    for name, tried in file["tried"].items():
        candidates = [dict(how) for how in settings.SETTINGS[name].candidates]
        assert sorted(map(str, candidates)) == sorted(str(each["how"]) for each in tried)
        best = min(tried, key=lambda each: (each["error"], each["loss"]))
        assert file["chosen"][name] == best["how"]


def test_every_network_was_made_as_chosen():
    out = results.parser().get_default("out")
    chosen = results.choices(out)
    for path in out.glob("*-*.json"):
        how = chosen.get(path.stem, dict(settings.SETTINGS[path.stem].candidates[0]))
        assert all(row["how"] == how for row in json.loads(path.read_text())["seeds"])


def test_settings_given_up_are_tried_and_not_reported(tmp_path):
    name = "cnn-4-alone-shifted"
    assert results.pending(tmp_path, {name: settings.SETTINGS[name].seeds}, None) == []


def test_without_threes_no_three_is_learned_from_and_only_their_bias_is_moved(work, monkeypatch):
    seen = []
    distill = tc.distill

    def spy(teacher, student, data, **options):
        seen.append(data.labels)
        return distill(teacher, student, data, **options)

    monkeypatch.setattr(tc, "distill", spy)
    name = "hinton-without-3-corrected"
    after = work.trained(name, 0)
    before = work.trained("hinton-without-3", 0)
    assert len(seen) == 1
    assert 3 not in (seen[0] if seen[0].ndim == 1 else seen[0].argmax(1))
    state = before.state_dict()
    bias = next(key for key in reversed(list(state)) if key.endswith("bias"))
    moved = after.state_dict()[bias] - state[bias]
    assert np.flatnonzero(moved).tolist() == [3]
    same = [key for key in state if key != bias]
    assert all(np.array_equal(state[key], after.state_dict()[key]) for key in same)
    row = settings.graded(work, name, 0, after)
    assert row["3s"] == int((work.held.labels == 3).sum())
    assert row["errors on 3s"] <= row["errors"]


def test_several_processes_may_add_to_one_file(tmp_path):
    from experiments import add_row

    path = tmp_path / "a.json"
    add_row(path, {"name": "a"}, {"seed": 1, "errors": 3}, ["errors"])
    file = add_row(path, {"name": "other"}, {"seed": 0, "errors": 5}, ["errors"])
    assert file == saved(tmp_path, "a")
    assert file["name"] == "a"
    assert [row["seed"] for row in file["seeds"]] == [0, 1]
    assert file["mean"] == {"errors": 4}
    assert list(tmp_path.iterdir()) == [path]
