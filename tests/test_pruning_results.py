"""The script of measured pruning: it goes on where it was, and compares what belongs together."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import pruning_results as results
import pruning_settings as settings
import pruning_speed as speed

DENSE, PRUNED, TABLE = "lenet-300-100-dense", "lenet-300-100-gradual-95", "lenet-300-100-criteria"


@pytest.fixture
def common(tmp_path):
    return ["--quick", "--workers", "1", "--out", str(tmp_path), "--dense", str(tmp_path / "d")]


@pytest.fixture
def work(tmp_path):
    """A run in which nothing is trained; ``fitted`` holds what would have been."""
    train, test = tc.data.mnist()
    run = settings.Work(train.take(300), test.take(100), tmp_path, tc.train.Workers(1), quick=True)
    run.fitted = []

    def fit(kind, model, how, seed, callbacks=()):
        run.fitted.append((model.copy(), seed, callbacks))
        return model

    run.fit = fit
    return run


def saved(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_a_rerun_goes_on_and_measures_nothing_twice(tmp_path, common, capsys):
    command = [*common, "--settings", PRUNED]
    results.main([*command, "--seeds", "1"])
    assert f"{DENSE} seed 0" in capsys.readouterr().out
    results.main([*command, "--seeds", "2"])
    assert "seed 0" not in capsys.readouterr().out
    dense, pruned = saved(tmp_path, DENSE), saved(tmp_path, PRUNED)
    assert {"name", "what", "command", "commit", "versions", "data", "mean", "std", "worst"} <= {
        *pruned
    }
    assert str(tmp_path) not in json.dumps(pruned)
    for file in (dense, pruned):
        assert [row["seed"] for row in file["seeds"]] == [0, 1]
    for row, base in zip(pruned["seeds"], dense["seeds"], strict=True):
        assert row["zeros"] == round(0.95 * row["weights"])
        assert row["weights"] == 784 * 300 + 300 * 100 + 1000
        assert row["more"] == pytest.approx(row["error"] - base["error"], abs=1e-4)
    more = [row["more"] for row in pruned["seeds"]]
    assert pruned["mean"]["more"] == pytest.approx(np.mean(more))
    assert pruned["std"]["more"] == pytest.approx(np.std(more, ddof=1))
    assert pruned["worst"]["more"] == max(more)
    path = tmp_path / f"{PRUNED}-seed0.tcz"
    assert path.stat().st_size == pruned["seeds"][0]["bytes"] < results.SMALL
    _, test = tc.data.mnist()
    error = tc.evaluate(tc.load(path), test.take(500)).error
    assert error == pytest.approx(pruned["seeds"][0]["error"])
    assert [each.name for each in tmp_path.glob("*.tcz")] == [path.name]
    results.main(["--table", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("\n") == 3


def test_the_best_is_chosen_with_a_seed_that_is_not_reported_and_used(
    tmp_path, common, monkeypatch
):
    seeds = []

    def make(work, seed, how):
        seeds.append(seed)
        return work.trained(settings.LENET300, seed, {"lr": how["lr"], "epochs": 1}), {}

    rates = tuple({"lr": lr, "epochs": 1} for lr in (1e-5, 3e-3, 1e-4))
    fake = replace(results.SETTINGS[PRUNED], make=make, candidates=rates)
    monkeypatch.setitem(results.SETTINGS, PRUNED, fake)
    results.main([*common, "--settings", PRUNED, "--select"])
    file = saved(tmp_path, "lenet-300-100-choices")
    assert seeds == [results.SELECTION_SEED] * 3
    assert file["chosen"] == {PRUNED: rates[1]}
    assert [each["how"] for each in file["tried"][PRUNED]] == list(rates)
    results.main([*common, "--settings", PRUNED, "--seeds", "1"])
    assert saved(tmp_path, PRUNED)["seeds"][0]["how"] == rates[1]
    assert results.SELECTION_SEED not in range(max(s.seeds for s in results.SETTINGS.values()))


def test_a_table_has_every_criterion_at_every_sparsity(tmp_path, common, monkeypatch, capsys):
    criteria = ("magnitude", "movement", "snip")
    parts = tuple({"criterion": c, "sparsity": s} for s in (0.5, 0.9) for c in criteria)
    monkeypatch.setitem(
        results.SETTINGS, TABLE, replace(results.SETTINGS[TABLE], parts=parts, seeds=1)
    )
    results.main([*common, "--settings", TABLE])
    file = saved(tmp_path, TABLE)
    assert [(row["criterion"], row["sparsity"]) for row in file["table"]] == [
        (part["criterion"], part["sparsity"]) for part in parts
    ]
    for row, cell in zip(file["seeds"], file["table"], strict=True):
        assert row["zeros"] == round(row["sparsity"] * row["weights"])
        assert cell["mean"]["error"] == row["error"]
        early = row["criterion"] in ("snip", "movement")
        assert ("error before training again" in row) is not early
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == list(criteria)
    assert lines[-4].split() == ["50%", "90%"]


def test_headlines_come_first_and_the_dense_network_before_what_is_compared_with_it(work, tmp_path):
    names = [name for name in results.SETTINGS if results.dense_of(name)]  # which bring the others
    jobs = results.Results(work, names, None, tmp_path, "").jobs()
    assert jobs[0] == (0, DENSE, {})
    for number, (seed, name, part) in enumerate(jobs):
        base = results.dense_of(name)
        assert base is None or (seed, base, {}) in jobs[:number]
        assert jobs.index((seed, name, part)) == number
    order = list(dict.fromkeys(name for _, name, _ in jobs))
    assert order.index("lenet-5-snip-99") < order.index("article-cnn-half") < order.index(TABLE)
    assert len(jobs) == sum(len(s.parts) * s.seeds for s in results.SETTINGS.values())


def test_snip_prunes_the_weights_that_training_starts_with(work):
    settings.snip("lenet-5", 0.99)(work, 3, {})
    [(start, seed, callbacks)] = work.fitted
    tc.manual_seed(3)
    fresh = models.create("lenet-5")
    assert not callbacks
    assert seed == 3
    for p, q in zip(start.parameters(), fresh.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data if p.mask is None else q.data * p.mask)
    assert tc.sparsity_report(start).zeros == round(0.99 * 430_500)


def test_a_ticket_and_its_control_have_the_same_masks_and_different_weights(work, monkeypatch):
    runs = []

    def fit(model, train, epochs, rule, callbacks=(), **options):
        runs.append((model.copy(), rule.defaults["lr"], epochs, options, callbacks))

    monkeypatch.setattr(settings, "fit", fit)
    how = {"lr": 1e-3, "epochs": 2, "rounds": 2, "rewind": 100}
    _, found = settings.lottery(0.9)(work, 1, how)
    (control, *alike), (ticket, *likewise) = runs
    assert alike[:3] == likewise[:3]
    assert not alike[3]
    assert likewise[3][0].step == 1
    assert tc.sparsity_report(ticket).zeros == tc.sparsity_report(control).zeros == 239_580
    for p, q in zip(ticket.parameters(), control.parameters(), strict=True):
        if p.mask is not None:
            np.testing.assert_array_equal(p.mask, q.mask)
            assert (p.data != q.data)[p.mask].mean() > 0.99
    errors = work.error(control), work.error(ticket)
    more = pytest.approx(errors[1] - errors[0])
    assert found == {settings.ANEW: errors[0], f"more than the {settings.ANEW}": more}


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
def test_retraining_starts_from_the_dense_network_of_the_seed(criterion, work):
    dense = work.trained(settings.LENET300, 2)
    work.fitted.clear()
    settings.by_criterion(work, 2, {}, criterion, 0.9)
    [(start, seed, _)] = work.fitted
    assert seed != 2  # the order of the images is another one
    for p, q in zip(start.parameters(), dense.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data if p.mask is None else q.data * p.mask)
    masked = [p.mask is not None for _, p in start.named_parameters()]
    assert any(masked) == (criterion == "magnitude")


def test_twice_as_fast_is_written_as_two(work, monkeypatch):
    dense = models.ArticleCNN()
    small = tc.remove_channels(dense, 0.5)

    def turn(model, *_):
        wide = model.fc1.weight.shape[0] == 100 if hasattr(model, "fc1") else None
        return lambda: {True: 2.0, False: 1.0, None: 3.0}[wide]

    monkeypatch.setattr(speed, "reading", turn)
    monkeypatch.setattr(speed, "training", turn)
    monkeypatch.setattr(tc, "compile", lambda model: model)
    file = speed.measure_speed(dense, small, work.train, quick=True)
    assert {way["faster"]["median"] for way in file["ways"]} == {2.0}
    assert {way["workers"] for way in file["ways"]} >= {1}
    assert file["macs"]["dense"] > 3 * file["macs"]["small"]


def test_turns_do_what_they_say(work):
    model = models.ArticleCNN()
    data = tc.data.mnist()[0].take(600)
    with tc.train.Workers(1) as team:
        assert speed.reading(model, data.images[:20], 10, team)() > 0
        before = model.conv1.weight.data.copy()
        assert speed.training(model, data, team)() > 0
    np.testing.assert_array_equal(model.conv1.weight.data, before)  # it trains a copy


def test_a_run_wants_the_data_or_the_sample():
    for wrong in ([], ["--quick", "--data-dir", "."]):
        with pytest.raises(SystemExit):
            results.main(wrong)
