"""The demo on a few hundred images: its table, its JSON and its files tell the same story."""

import json
import re
import shlex

import pytest
from program import finish, in_terminal, lines_of, start

import tinycompress as tc
from tinycompress.report import file_stem

ROWS = (
    "article CNN",
    "8-bit weights",
    "4-bit weights",
    "pruned 90%",
    "pruned, 8-bit",
    "pruned, 4-bit",
    "student alone",
    "student distilled",
    "student pruned 50%",
    "student pruned, 8-bit",
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(the folder in which the demo ran in a terminal, the lines that it showed)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYCOMPRESS_QUICK", "1")
        patch.delenv("COLUMNS", raising=False)
        patch.delenv("FORCE_COLOR", raising=False)
        folder = tmp_path_factory.mktemp("demo run")
        patch.chdir(folder)
        result = in_terminal("demo", "--workers", "1", "--out", "my demo")
    assert result.code == 0, result.err
    return folder / "my demo", lines_of(result.err)


@pytest.fixture(scope="module")
def document(shown):
    return json.loads((shown[0] / "demo.json").read_text())


def cells(lines, name):
    """The row of the table that begins with ``name``, cell by cell."""
    (row,) = [line for line in lines if re.match(re.escape(name) + r"\s+\d+\.\d\d%", line)]
    return row[len(name) :].split()


def test_the_table_says_what_the_json_says(shown, document):
    assert tuple(row["name"] for row in document["models"]) == ROWS
    first = document["models"][0]["bytes"]
    for row in document["models"]:
        accuracy, parameters, nonzero, size, times, macs, _ = cells(shown[1], row["name"])
        assert accuracy == f"{row['accuracy']:.2%}"
        assert parameters == f"{row['parameters']:,}"
        assert nonzero == f"{row['nonzero']:,}"
        assert size == f"{row['bytes']:,}"
        assert float(times) == pytest.approx(first / row["bytes"], rel=0.005)
        assert macs == ("2.59M" if row["macs"] == 2_585_960 else "61.2k")


def test_every_row_is_the_file_that_it_names(document, shown):
    for row in document["models"]:
        path = shown[0].parent / row["file"]
        assert path == shown[0] / f"{file_stem(row['name'])}.tcz"
        assert row["bytes"] == path.stat().st_size
        assert row["images"] == 250
        assert row["error"] == pytest.approx(100 * (1 - row["accuracy"]))
        assert row["ms_per_1000"] > 0
    assert len(list(shown[0].iterdir())) == len(ROWS) + 1


def test_the_techniques_do_what_their_rows_say(document):
    rows = {row["name"]: row for row in document["models"]}
    whole = rows["article CNN"]
    assert whole["parameters"] == whole["nonzero"] == 179_926
    assert 3.9 < whole["bytes"] / rows["8-bit weights"]["bytes"] < 4.3  # codes are coded
    assert 7.5 < whole["bytes"] / rows["4-bit weights"]["bytes"] < 9
    weights = 179_926 - (32 + 64 + 100 + 10)  # biases are not pruned
    assert rows["pruned 90%"]["nonzero"] == 179_926 - round(0.9 * weights)
    assert rows["pruned, 8-bit"]["nonzero"] <= rows["pruned 90%"]["nonzero"]
    assert rows["pruned, 4-bit"]["bytes"] < rows["pruned, 8-bit"]["bytes"]
    assert rows["student alone"]["parameters"] == rows["student distilled"]["parameters"] == 2_346
    assert rows["student pruned 50%"]["nonzero"] == 2_346 - round(0.5 * (2_346 - 4 - 8 - 10))
    assert rows["student pruned, 8-bit"]["bytes"] == min(row["bytes"] for row in rows.values())


def test_the_students_of_all_seeds_are_reported(shown, document):
    students = document["students"]
    rows = {row["name"]: row["accuracy"] for row in document["models"]}
    assert students["seeds"] == [0, 1, 2]
    assert len(students["alone"]) == len(students["distilled"]) == 3
    assert students["alone"][0] == rows["student alone"]
    assert students["distilled"][0] == rows["student distilled"]
    means = [f"{sum(students[kind]) / 3:.2%}" for kind in ("alone", "distilled")]
    text = f"The student over 3 seeds: {means[0]} alone, {means[1]} with the teacher."
    assert text in shown[1]


def test_the_document_says_where_it_comes_from(document):
    assert document["command"] == "tinycompress demo --seed 0"
    assert document["version"] == tc.__version__
    assert document["seconds"] > 0


@pytest.mark.parametrize("name", ["article CNN", "pruned, 4-bit", "student distilled"])
def test_a_fresh_process_reads_the_accuracy_that_the_table_says(name, document, shown):
    (row,) = [row for row in document["models"] if row["name"] == name]
    path = shown[0] / f"{file_stem(name)}.tcz"
    result = finish(start("eval", path, "--json"))
    assert (result.code, result.err) == (0, "")
    again = json.loads(result.out)
    for key in ("accuracy", "error", "loss", "parameters", "nonzero", "bytes", "macs", "images"):
        assert again[key] == row[key]


def test_it_fits_eighty_columns_and_says_what_it_is_doing(shown):
    assert max(map(len, shown[1])) <= 80
    for what in ("training", "quantizing", "pruning", "distilling", "measuring"):
        assert any(line.startswith("• ") and what in line for line in shown[1])
    assert any("on all 250 test images" in line for line in shown[1])


def test_the_command_that_it_recommends_can_be_pasted(shown):
    (command,) = [line for line in shown[1] if "tinycompress eval" in line]
    program, verb, path = shlex.split(command)
    assert (program, verb) == ("tinycompress", "eval")
    assert (shown[0].parent / path).is_file()


def test_an_output_that_is_a_file_is_refused(misuse, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "taken" in misuse("demo", "--out", "taken")
