"""The script that measures the options of quantization: its tables and what it asks for."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tinycompress import models
from tinycompress.data import mnist
from tinycompress.train import Workers

SCRIPT = Path(__file__).parents[1] / "tools" / "quantization_options.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("quantization_options", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["quantization_options"] = module  # dataclasses look there
    specification.loader.exec_module(module)
    return module


def test_rows_are_measured_and_put_into_tables(script):
    train, held_out = mnist()
    with Workers(1) as team:
        bench = script.Bench(models.TinyCNN(), train.take(20), held_out.take(50), team)
        rows = [*script.dynamic(bench, [8, 2]), *script.observers(bench, [8, 2])]
    assert {row.what for row in rows} == {"mse", *script.OBSERVERS}
    assert all(row.error == pytest.approx(bench.float.error + row.more) for row in rows)
    text = script.tables(rows, [8, 2])
    assert "static, observers of activations" in text
    assert len([line for line in text.splitlines() if line.startswith("kl ")]) == 1


def test_it_asks_for_data(script, capsys):
    with pytest.raises(SystemExit):
        script.main([])
    assert "--data-dir FOLDER or --quick" in capsys.readouterr().err


def test_all_numbers_are_kept(script, tmp_path, monkeypatch):
    row = script.Row("question", "what", 8, None, 1.0, 0.1, 0.0, 0.5)
    monkeypatch.setattr(script, "measure", lambda *_: ({"LeNet-5": {"error": 1.0}}, [row]))
    script.main(["--quick", "--bits", "8", "--json", str(tmp_path / "x.json")])
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["rows"][0]["what"] == "what"
    assert kept["command"].endswith("--json " + str(tmp_path / "x.json"))
