"""The program from outside: help, terminals, pipes, Ctrl-C."""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import entry_points

import pytest
from program import LISTENING, finish, in_terminal, interrupt, lines_of, start
from typer.main import get_command

import tinycompress as tc
from tinycompress.cli.app import app, main
from tinycompress.train import read_checkpoint

VERBS = (
    "demo", "train", "eval", "quantize", "sensitivity", "prune", "distill", "compare", "info",
    "data",
)  # fmt: skip
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


# --------------------------------------------------------------------------------- help


def test_version(run):
    assert run("--version").out == f"tinycompress {tc.__version__}\n"


def test_without_a_command_it_lists_them(run):
    result = run(code=2)
    shown = result.out + result.err
    assert all(f" {verb} " in shown for verb in VERBS)
    assert "Usage: tinycompress [OPTIONS] COMMAND" in shown


def test_help_lists_the_commands_and_fits_eighty_columns(run):
    text = run("--help").out
    assert all(f" {verb} " in text for verb in VERBS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_command_explains_every_option(verb, run):
    text = run(verb, "--help").out
    assert f"Usage: tinycompress {verb} [OPTIONS]" in text
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 80
    for option in get_command(app).commands[verb].params:
        assert option.help, option.name


def test_the_module_can_be_run():
    result = finish(start("--version"))
    assert result == (0, f"tinycompress {tc.__version__}\n", "")


def test_the_installed_program_is_the_same():
    (script,) = entry_points(group="console_scripts", name="tinycompress")
    assert script.load() is main


def test_nothing_heavy_is_imported_for_it():
    code = (
        "import sys, tinycompress.cli\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'cupy', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------- terminals and pipes


@POSIX
def test_progress_is_shown_in_a_terminal_and_fits_it():
    result = in_terminal("train", "--model", "tiny-cnn", "--epochs", 2, "--workers", 1)
    assert result.code == 0
    lines = lines_of(result.err)
    assert max(map(len, lines)) <= 80
    assert any("epoch 2/2" in line and "images/s" in line for line in lines)
    assert any("measuring model.tcz" in line for line in lines)
    assert "written to model.tcz" in [line.rstrip() for line in lines]


@POSIX
def test_with_json_standard_output_is_json_while_progress_goes_on():
    train = ("train", "--model", "tiny-cnn", "--epochs", 2, "--workers", 1, "--json")
    result = in_terminal(*train, pipe_out=True)
    assert "epoch 2/2" in result.err
    assert len(json.loads(result.out)["history"]) == 2


def test_where_nobody_looks_there_is_no_progress():
    train = ("train", "--model", "tiny-cnn", "--epochs", 1, "--workers", 1)
    result = finish(start(*train, env={**os.environ, "FORCE_COLOR": "1"}))
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out


@POSIX
def test_in_a_narrow_terminal_names_are_broken_and_numbers_are_not(model_file, tmp_path):
    long = tmp_path / ("a-rather-long-name-of-a-model-" * 3 + ".tcz")
    long.write_bytes(model_file.read_bytes())
    result = in_terminal("compare", "model.tcz", long.name, "--workers", 1)
    lines = lines_of(result.err)
    assert max(map(len, lines)) <= 80
    assert sum("9,418" in line for line in lines) == 2
    assert long.stem in "".join(line.split(" ")[0] for line in lines)


def test_where_it_is_piped_nothing_is_cut(model_file, tmp_path):
    name = "long-" * 40
    (tmp_path / f"{name}.tcz").write_bytes(model_file.read_bytes())
    for command in ("eval", "info"):
        result = finish(start(command, f"{name}.tcz"))
        assert name in result.out
        assert all(line == line.rstrip() for line in result.out.splitlines())


@POSIX
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(extra, model_file):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("info", "model.tcz", *extra, stdout=writing)
    os.close(writing)
    result = finish(process)
    assert (result.code, result.err) == (141, "")


@POSIX
def test_help_into_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    process = start("--help", stdout=writing)
    os.close(writing)
    assert finish(process).err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(model_file):
    with open("/dev/full", "w") as full:
        result = finish(start("info", "model.tcz", "--json", stdout=full))
    assert (result.code, result.err) == (1, "error: No space left on device\n")


def test_an_output_that_knows_only_ascii_gets_something():
    done = finish(start("data", env={**os.environ, "PYTHONIOENCODING": "ascii"}))
    assert (done.code, done.err) == (0, "")


def test_errors_of_a_real_process(tmp_path):
    (tmp_path / "text.tcz").write_text("hello")
    result = finish(start("eval", "text.tcz", "--json"))
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: text.tcz: ")
    assert result.err.count("\n") == 1
    result = finish(start("eval", "missing.tcz", "--json"))
    assert (result.code, result.out) == (2, "")
    assert "missing.tcz" in result.err


# -------------------------------------------------------------------------------- Ctrl-C


def wait_for(path, process):
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, finish(process)
        time.sleep(0.1)
    process.kill()
    pytest.fail(f"{path} never came")


@POSIX
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_ctrl_c_ends_with_130_and_a_checkpoint_to_go_on_from(extra, run_json, tmp_path):
    train = ("train", "--model", "tiny-cnn", "--schedule", "none", "--workers", 1)
    saved = ("--checkpoint", "c.safetensors", "--out", "m.tcz")
    process = start(*train, *saved, "--epochs", 100_000, *extra, command=LISTENING)
    wait_for(tmp_path / "c.safetensors", process)
    result = interrupt(process)
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        "interrupted; the same command with --resume goes on from c.safetensors\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.safetensors"]
    done = read_checkpoint("c.safetensors").state["epoch"]
    found = run_json(*train, *saved, "--epochs", done + 1, "--resume")
    assert len(found["history"]) == done + 1


def test_ctrl_c_without_a_checkpoint_says_what_was_lost(monkeypatch, run):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tc, "fit", interrupted)
    result = run("train", "--model", "tiny-cnn", code=130)
    assert result.out == ""
    assert result.err == "interrupted; nothing was kept, as --checkpoint FILE would have\n"
