"""What goes wrong is said in one line, or refused with the choices there are."""

import pytest
import typer

import tinycompress as tc
from tinycompress import nn
from tinycompress.cli import common, output
from tinycompress.train import save_checkpoint

READERS = [
    ["eval", "FILE"],
    ["info", "FILE"],
    ["compare", "FILE"],
    ["quantize", "FILE"],
    ["prune", "FILE"],
    ["distill", "--teacher", "FILE"],
]


def on(command, path):
    return [str(path) if word == "FILE" else word for word in command]


# ------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("command", READERS)
def test_a_damaged_file_is_named(command, failure, model_file):
    data = bytearray(model_file.read_bytes())
    data[len(data) // 2] ^= 1
    model_file.write_bytes(data)
    line = failure(*on(command, model_file))
    assert line.startswith(f"error: {model_file}: not a readable .tcz file")
    assert "CRC-32" in line


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89TC", b"PK\x03\x04" + bytes(60)])
def test_what_is_no_model_is_told_apart_from_a_damaged_one(command, content, failure, tmp_path):
    (tmp_path / "thing.tcz").write_bytes(content)
    line = failure(*on(command, "thing.tcz"))
    assert "thing.tcz" in line
    if content != b"\x89TC":
        assert "Models are the files that --out and tc.save write" in line


@pytest.mark.parametrize("command", READERS)
def test_a_checkpoint_is_recognised(command, failure, tmp_path):
    model = tc.models.TinyCNN()
    save_checkpoint(tmp_path / "c.safetensors", model, tc.optim.SGD(model.parameters(), 0.1), {})
    line = failure(*on(command, "c.safetensors"))
    assert "safetensors" in line
    assert "--checkpoint FILE --resume" in line


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("path", ["missing.tcz", "."])
def test_a_file_that_is_not_there_is_an_error_of_usage(command, path, misuse):
    text = misuse(*on(command, path))
    assert "does not exist" in text or "is a directory" in text


@pytest.mark.parametrize("command", READERS[:1] + READERS[2:])
def test_a_network_that_takes_no_digits_is_named_with_its_layer(command, failure, tmp_path):
    net = nn.Sequential({"first": nn.Conv2d(3, 4, 3), "flat": nn.Flatten()})
    tc.save(net, tmp_path / "color.tcz")
    line = failure(*on(command, "color.tcz"))
    assert "channels" in line or "classes" in line
    assert "first" in line


@pytest.mark.parametrize("command", READERS[3:])
def test_nothing_is_left_behind_by_a_failure(command, failure, tmp_path):
    (tmp_path / "thing.tcz").write_bytes(b"hello")
    failure(*on(command, "thing.tcz"))
    assert [path.name for path in tmp_path.iterdir()] == ["thing.tcz"]


def test_a_model_that_cannot_be_quantized_or_pruned_says_so(failure, run, model_file, tmp_path):
    run("quantize", model_file, "--out", "q.tcz", "--workers", 1)
    assert "already is" in failure("quantize", "q.tcz", "--out", "again.tcz")
    tc.save(nn.Sequential(nn.Flatten()), tmp_path / "none.tcz")
    assert "nothing to quantize" in failure("quantize", "none.tcz")
    assert "no layer to prune" in failure("prune", "none.tcz")
    assert not (tmp_path / "again.tcz").exists()


# ------------------------------------------------------------------------ wrong options


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--model", "resnet"], tc.models.names()),
        (["distill", "--teacher", "model.tcz", "--student", "resnet"], tc.models.names()),
        (["eval", "model.tcz", "--dataset", "cifar"], ["mnist", "fashion-mnist"]),
        (["data", "--dataset", "cifar"], ["mnist", "fashion-mnist"]),
        (["train", "--optimizer", "lion"], ["sgd", "adam", "adamw"]),
        (["train", "--schedule", "step"], ["one-cycle", "cosine", "none"]),
        (["quantize", "model.tcz", "--scheme", "log"], ["symmetric", "affine"]),
        (["quantize", "model.tcz", "--granularity", "layer"], ["per_channel", "per_tensor"]),
        (["prune", "model.tcz", "--importance", "size"], ["magnitude", "gradient", "random"]),
        (["prune", "model.tcz", "--scope", "all"], ["global", "local"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_choices(args, words, misuse, run, model_file):
    text = misuse(*args)
    option, value = args[-2:]
    assert option in text
    assert repr(value) in text
    assert all(repr(word) in text for word in words)
    help_text = " ".join(run(args[0], "--help").out.replace("│", " ").split())
    assert all(word in help_text for word in words)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["quantize", "--bits", "0"], "--bits"),
        (["quantize", "--bits", "17"], "--bits"),
        (["quantize", "--bits", "four"], "--bits"),
        (["quantize", "--bits", "1", "--scheme", "affine"], "symmetric"),
        (["quantize", "--granularity", "per_group"], "group_size"),
        (["quantize", "--group-size", "8"], "group_size"),
        (["prune", "--sparsity", "1.0"], "below 1"),
        (["prune", "--sparsity", "-0.1"], "--sparsity"),
        (["prune", "--sparsity", "nan"], "--sparsity"),
        (["prune", "--epochs", "-1"], "--epochs"),
        (["prune", "--lr", "0"], "must be > 0"),
        (["distill", "--temperature", "0"], "temperature"),
        (["distill", "--temperature", "inf"], "temperature"),
        (["distill", "--alpha", "1.5"], "--alpha"),
        (["distill", "--alpha", "nan"], "--alpha"),
        (["distill", "--lr", "0"], "must be > 0"),
        (["eval", "--workers", "0"], "--workers"),
        (["eval", "--full=yes"], "--full"),
        (["eval", "--jsn"], "--jsn"),
    ],
)
def test_a_value_out_of_range_writes_nothing(args, words, misuse, model_file, tmp_path):
    name = ["--teacher", model_file] if args[0] == "distill" else [model_file]
    assert words in misuse(args[0], *name, *args[1:])
    assert list(tmp_path.iterdir()) == [model_file]


@pytest.mark.parametrize("command", ["quantize", "prune", "distill"])
def test_an_output_that_cannot_be_written_is_refused_first(command, misuse, model_file):
    name = ["--teacher", model_file] if command == "distill" else [model_file]
    for out in ("nowhere/new.tcz", ".", "/dev/null"):
        assert "cannot write" in misuse(command, *name, "--out", out)


@pytest.mark.parametrize("command", ["eval", "compare", "quantize", "prune", "info"])
def test_a_file_must_be_given(command, misuse):
    assert "Missing argument 'FILE'" in misuse(command)


def test_a_teacher_must_be_given(misuse):
    assert "Missing option '--teacher'" in misuse("distill")


def test_a_command_that_is_misspelt_is_answered_with_the_right_one(misuse):
    assert "Did you mean 'quantize'?" in misuse("quantise")


# ------------------------------------------------------------------ what the errors become


def guarded(error, capsys):
    @common.command
    def failing():
        raise error

    with pytest.raises(typer.Exit) as stopped:
        failing()
    out, err = capsys.readouterr()
    assert out == ""
    return stopped.value.exit_code, err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("x must be 1, got 2"), "error: x must be 1, got 2"),
        (RuntimeError(), "error: RuntimeError"),
        (MemoryError("no 9 GiB"), "error: no 9 GiB"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (PermissionError(13, "Permission denied", "a.tcz"), "error: a.tcz: Permission denied"),
        (
            ValueError("these are missing:\n  a.gz\n  b.gz\nPut them\nthere"),
            "error: these are missing: a.gz; b.gz; Put them; there",
        ),
        (ValueError("[red]not markup[/] :smile:"), "error: [red]not markup[/] :smile:"),
        (ValueError("long " * 100 + "end"), "error: " + "long " * 100 + "end"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(error, line, capsys):
    assert guarded(error, capsys) == (1, line + "\n")


def test_the_layer_that_an_error_came_from_is_named(capsys):
    error = ValueError("x has 3 channels")
    error.add_note("in layer conv1")
    error.add_note("in the model")
    assert guarded(error, capsys) == (1, "error: x has 3 channels (in layer conv1)\n")


def test_ctrl_c_is_exit_code_130(capsys):
    assert guarded(KeyboardInterrupt(), capsys) == (130, "interrupted\n")


def test_a_mistake_in_the_program_keeps_its_traceback():
    @common.command
    def failing():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        failing()


def test_the_traceback_of_an_error_can_be_asked_for(monkeypatch, run):
    monkeypatch.setenv("TINYCOMPRESS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="at least one example"):
        run("train", "--validate", 0.0001)


def test_json_has_no_nan():
    values = {"a": [float("nan"), 1.5, (float("inf"),)], "b": None, "c": "NaN"}
    assert output._finite(values) == {"a": [None, 1.5, [None]], "b": None, "c": "NaN"}
