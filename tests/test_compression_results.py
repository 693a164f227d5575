"""The script of measured compression: files, their bytes, and what is said of them."""

import json
import sys
from pathlib import Path

import pytest

import tinycompress as tc
from tinycompress import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import compression_results as results
import compression_settings as settings

NAME = "lenet-300-100-95"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a quick run of one seed leaves."""
    folder = tmp_path_factory.mktemp("compression")
    results.main([*common(folder), "--settings", NAME, "--seed-list", "0"])
    return folder


def common(folder):
    return ["--quick", "--workers", "1", "--out", str(folder), "--kept", str(folder / "kept")]


def saved(folder, name=NAME):
    return json.loads((folder / f"{name}.json").read_text())


def kept(folder, seed=0):
    return folder / "kept" / f"{NAME}-2000-seed{seed}.tcz"


def test_numbers_are_those_of_the_file(folder):
    (row,) = saved(folder)["seeds"]
    path = kept(folder)
    assert row["bytes"] == path.stat().st_size
    assert row["ratio"] == pytest.approx(4 * 266_610 / row["bytes"], abs=0.01)
    _, test = tc.data.mnist()
    assert row["error"] == tc.evaluate(tc.load(path), test.take(500), workers=1).error
    assert row["nonzero"] <= round(0.05 * 266_200)
    assert [stage["name"] for stage in row["stages"]][-1] == "rounded"
    assert row["stages"][-1]["bytes"] == row["bytes"]
    assert "error" not in row["stages"][0]  # test images are looked at once
    assert [layer["name"] for layer in row["layers"]] == ["fc1", "fc2", "fc3"]


def test_a_rerun_measures_nothing_twice_and_goes_on(folder, capsys):
    before = saved(folder)["seeds"][0]
    results.main([*common(folder), "--settings", NAME, "--seed-list", "0", "1"])
    assert "seed 0:" not in capsys.readouterr().out
    seeds = saved(folder)["seeds"]
    assert [row["seed"] for row in seeds] == [0, 1]
    assert seeds[0] == before
    assert str(folder) not in json.dumps(seeds)


def test_files_are_written_anew_and_what_was_measured_stays(folder, monkeypatch):
    before = saved(folder)["seeds"][0]
    short = kept(folder).read_bytes()
    kept(folder).write_bytes(written_long(short))
    file = saved(folder)
    file["seeds"] = [before | {"bytes": 2 * before["bytes"], "ratio": before["ratio"] / 2}]
    (folder / f"{NAME}.json").write_text(json.dumps(file))
    results.main([*common(folder), "--settings", NAME, "--recode"])
    (row,) = saved(folder)["seeds"]
    assert kept(folder).read_bytes() == short
    assert row["bytes"] == len(short) == before["bytes"]
    assert row["ratio"] == pytest.approx(before["ratio"], abs=0.02)
    assert (row["error"], row["layers"]) == (before["error"], before["layers"])
    assert "coded by" in saved(folder)


def written_long(data):
    """The same model in a file that an older writer might have made: its codes are dense."""
    from tinycompress.format import codecs, from_bytes, to_bytes
    from tinycompress.format.dense import PACKED, RAW

    model, every = from_bytes(data), dict(codecs.CODECS)
    try:
        for number in set(every) - {RAW, PACKED}:
            del codecs.CODECS[number]
        return to_bytes(model)
    finally:
        codecs.CODECS.update(every)


def test_choosing_sees_training_images_only(folder, tmp_path, monkeypatch):
    looked_at = []
    monkeypatch.setattr(results, "measure", lambda work, *_: looked_at.append(work.held) or ROW)
    results.main([*common(tmp_path), "--settings", NAME, "--select"])
    (held,) = looked_at
    assert held.name == "held out"
    assert saved(tmp_path, "choices")["tried"][NAME]["bytes"] == 7


ROW = {"error": 1.0, "dense error": 1.0, "loss": 0.1, "bytes": 7, "ratio": 2.0}


def test_the_table_has_the_paper_s_columns(folder, capsys):
    results.main(["--table", "--out", str(folder), "--layers", NAME])
    said = capsys.readouterr().out
    assert f"{NAME}" in said
    layer = saved(folder)["seeds"][0]["layers"][0]
    assert f"{layer['huffman_bits']:.2f}" in said


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_every_setting_says_what_it_is(name):
    setting = settings.SETTINGS[name]
    assert name.startswith(setting.model)
    assert ("taught" in name) == ("with a teacher" in setting.what)
    assert ("plain" in name) == ("as they are" in setting.what)


TRIED = {
    "taught": settings.Setting("lenet-300-100", 0.98, 4, 1, 1, taught=True, shift=1, bias_bits=5),
    "plain": settings.Setting("lenet-300-100", 0.98, 4, 1, 1, shift=0, lr=4e-3),
    "on": settings.Setting("lenet-300-100", 0.99, 3, 1, 1, after="plain", shift=0),
}


@pytest.fixture
def work(folder, tmp_path, monkeypatch):
    """What runs of these settings have; dense networks are there already."""
    for name, setting in TRIED.items():
        monkeypatch.setitem(settings.SETTINGS, name, setting)
    train, test = tc.data.mnist()
    return settings.Work(train.take(200), test, tmp_path, tc.train.Workers(1), quick=True)


def test_a_setting_is_what_is_asked_for(work, monkeypatch):
    """Sparsity, bits, teacher, rates and shifts go where they belong."""
    asked, rates = {}, []
    compressed = tc.deep_compress

    def spy(model, data, **how):
        asked.update(how)
        rates.append(how["optimizer"]([nn.Parameter([1.0])]).param_groups[0]["lr"])
        return compressed(model, data, **how | {"epochs": 0, "share_epochs": 0, "teacher": None})

    monkeypatch.setattr(tc, "deep_compress", spy)
    work.compress("taught", 3)
    assert (asked["sparsity"], asked["bits"], asked["seed"]) == (0.98, 4, 1003)
    assert isinstance(asked["teacher"], nn.Module)
    assert (asked["augment"].pixels, asked["bias_bits"]) == (1, 5)
    work.compress("plain", 3)
    assert (asked["teacher"], asked["augment"], asked["bias_bits"]) == (None, None, 11)
    assert rates == [settings.RATES["lenet-300-100"], 4e-3]


def test_a_setting_goes_on_from_what_another_pruned(work):
    """Zeros of the first are zeros of the second, which is made when it is first asked for."""
    compressed = work.compress("on", 0)
    assert work.thin("plain", 0).exists()
    before, after = tc.load(work.thin("plain", 0)), tc.load(work.thin("on", 0))
    assert tc.sparsity_report(before).sparsity == pytest.approx(0.98, abs=1e-4)
    assert tc.sparsity_report(after).sparsity == pytest.approx(0.99, abs=1e-4)
    for name in ("fc1", "fc2", "fc3"):
        zero = before.get_submodule(name).weight.data == 0
        assert not after.get_submodule(name).weight.data[zero].any()
        assert not compressed.model.get_submodule(name).weight.data[zero].any()


def test_a_single_seed_has_no_spread():
    file = {"mean": {"error": 1.0}, "std": {"error": 0.25}, "seeds": [{}, {}]}
    assert results.with_spread(file, "error", 2) == "1.00 ± 0.25"
    assert results.with_spread({**file, "seeds": [{}]}, "error", 2) == "1.00"
