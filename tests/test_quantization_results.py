"""The script of the measured results: it goes on where it was, and its simulation can disagree."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models, optim

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import quantization_results as results
from quantization_simulation import compare_answers


@pytest.fixture(scope="module")
def trained():
    tc.manual_seed(0)
    train, test = tc.data.mnist()
    model = models.TinyCNN()
    tc.fit(model, train.take(1000), 1, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model, train.take(100), test.images[:150]


@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (3, 12), (1, 8)])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_the_engine_and_the_simulation_agree(bits, scheme, trained):
    model, some, images = trained
    config = tc.QuantConfig(bits[0], activations=bits[1], activation_scheme=scheme)
    found = compare_answers(tc.quantize(model, config, some), images)
    assert found["images"] == 150
    assert found["different answers"] == 0
    assert found["farthest from a tie"] < 1e-3


def test_the_simulation_sees_another_rounding(trained, monkeypatch):
    model, some, images = trained
    q = tc.quantize(model, tc.QuantConfig(4, activations=4), some)
    monkeypatch.setattr("quantization_simulation.np.rint", np.floor)
    found = compare_answers(q, images)
    assert found["different codes"] > 1000
    assert found["farthest from a tie"] > 0.4
    assert len(found["which"]) == found["different answers"] > 0


def test_the_simulation_sees_a_layer_that_is_one_step_off(trained):
    model, some, images = trained
    q = tc.quantize(model, tc.QuantConfig(8, activations=8), some)
    layer = q.conv2
    grid = layer.grid

    def shifted(x, *args, **kwargs):
        y = type(layer).run(layer, x, *args, **kwargs)
        return y.with_steps(tc.tensor(np.minimum(y.steps().data + 1, grid.steps[1])))

    layer.forward = shifted
    assert compare_answers(q, images)["different codes"] > 1000


def test_a_rerun_goes_on_and_measures_nothing_twice(tmp_path, monkeypatch, capsys):
    common = ["--quick", "--out", str(tmp_path), "--floats", str(tmp_path / "f")]
    few = [*common, "--settings", "float", "ptq-w8a8"]
    monkeypatch.setitem(
        results.SETTINGS, "float", results.Setting("floats", None, ({"lr": 2e-3}, {"lr": 1e-3}))
    )
    results.main([*few, "--select"])
    chosen = json.loads((tmp_path / "lenet-5-choices.json").read_text())
    best = min(chosen["tried"]["float"], key=lambda each: each["error"])
    assert chosen["chosen"]["float"] == best["how"]
    assert len(chosen["tried"]["ptq-w8a8"]) == 3
    results.main([*few, "--seeds", "1"])
    capsys.readouterr()
    results.main([*few, "--seeds", "2"])
    assert "seed 0" not in capsys.readouterr().out
    file = json.loads((tmp_path / "lenet-5-ptq-w8a8.json").read_text())
    assert [row["seed"] for row in file["seeds"]] == [0, 1]
    assert {"name", "what", "command", "commit", "versions", "data", "mean", "std", "worst"} <= {
        *file
    }
    for row in file["seeds"]:
        path = tmp_path / f"lenet-5-ptq-w8a8-seed{row['seed']}.tcz"
        assert row["bytes"] == path.stat().st_size
        _, test = tc.data.mnist()
        assert tc.evaluate(tc.load(path), test.take(500)).error == pytest.approx(row["error"])
        assert row["how"] == chosen["chosen"]["ptq-w8a8"]
    errors = [row["error"] for row in file["seeds"]]
    assert file["mean"]["error"] == pytest.approx(np.mean(errors))
    assert file["worst"]["error"] == max(errors)
    results.main(["--table", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("\n") == 3


def test_what_is_chosen_on_is_never_the_test_set():
    rest, held = results.data_of(None, select=True)
    train, test = results.data_of(None, select=False)
    assert len(rest) + len(held) == len(train)
    np.testing.assert_array_equal(np.concatenate([rest.images, held.images]), train.images)
    np.testing.assert_array_equal(test.images, tc.data.mnist()[1].images[: len(test)])
    with pytest.raises(SystemExit):
        results.main(["--quick", "--data-dir", "."])
