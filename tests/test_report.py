"""The report's numbers are those of the file, and each model has a file of its own."""

import io
import os

import numpy as np
import pytest
from rich.console import Console

import tinycompress as tc
from tinycompress import nn
from tinycompress.report import Comparison, Measurement, compare, file_stem, measure, time_per_1000


@pytest.fixture(scope="module")
def digits():
    train, test = tc.data.mnist()
    return train.take(256), test.take(200)


@pytest.fixture(scope="module")
def models(digits):
    """A trained student, and what each technique makes of it."""
    tc.manual_seed(0)
    model = tc.models.TinyCNN()
    rule = tc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tc.fit(model, digits[0], 6, rule, batch_size=16, workers=1)
    pruned = tc.prune(model, 0.8)
    return {
        "float": model,
        "pruned": pruned,
        "8-bit": tc.quantize(model, tc.QuantConfig(bits=8)),
        "pruned, 4-bit": tc.quantize(pruned, tc.QuantConfig(bits=4)),
    }


@pytest.fixture(scope="module")
def table(models, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return compare(models, digits[1], folder=folder, workers=1), folder


def row(**changes):
    values = {
        "name": "model",
        "images": 10_000,
        "accuracy": 0.9876,
        "error": 1.24,
        "loss": 0.05,
        "parameters": 179_926,
        "nonzero": 18_178,
        "bytes": 95_230,
        "macs": 2_585_960,
        "ms_per_1000": 123.4,
    }
    return Measurement(**{**values, **changes})


# ----------------------------------------------------------------------- what is measured


def test_bytes_are_the_size_of_the_file(table):
    for measured in table[0]:
        path = table[1] / f"{file_stem(measured.name)}.tcz"
        assert measured.bytes == os.path.getsize(path)


def test_accuracy_error_and_loss_are_those_of_the_loaded_file(table, digits):
    for measured in table[0]:
        model = tc.load(table[1] / f"{file_stem(measured.name)}.tcz")
        logits = np.concatenate([model(image[None]).numpy() for image in digits[1].images])
        logits = logits.astype(np.float64)
        labels = digits[1].labels
        wrong = int((logits.argmax(axis=1) != labels).sum())
        assert measured.images == len(labels)
        assert measured.accuracy == (len(labels) - wrong) / len(labels)
        assert measured.error == 100 * wrong / len(labels)
        picked = logits[np.arange(len(labels)), labels]
        loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - picked)
        assert measured.loss == pytest.approx(loss, rel=1e-5)
    assert table[0]["float"].accuracy > 0.5  # a trained model, whose answers can be told apart


def test_nonzero_is_a_count(table, models):
    layers = ("conv1", "conv2", "fc")
    for name, codes in zip(models, (False, False, True, True), strict=True):
        count = 0
        for layer in (getattr(models[name], n) for n in layers):
            w = layer.weight_codes if codes else layer.weight.data
            count += np.count_nonzero(w) + np.count_nonzero(layer.bias.data)
        assert table[0][name].nonzero == count
    assert all(measured.parameters == 2_346 for measured in table[0])
    assert table[0]["pruned"].nonzero == 2_346 - round(0.8 * 2_324)
    assert table[0]["pruned, 4-bit"].nonzero <= table[0]["pruned"].nonzero


def test_a_mask_alone_saves_nothing_but_zeros_do():
    """What a file holds is what is stored: a mask over weights that are not zero is no saving."""
    model = tc.models.TinyCNN()
    masked = model.copy()
    masked.fc.weight.mask = np.zeros(masked.fc.weight.shape, dtype=bool)
    whole, hidden = (nn.summary(m).nonzero for m in (model, masked))
    assert whole == hidden


def test_macs_and_time_are_those_of_the_network(table):
    assert all(measured.macs == 61_184 for measured in table[0])
    assert all(0 < measured.ms_per_1000 < 60_000 for measured in table[0])


def test_time_is_the_median_of_the_runs_after_the_first(monkeypatch, digits):
    clock = iter([0, 100, 100, 101, 200, 203, 300, 302])
    monkeypatch.setattr("tinycompress.report.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("tinycompress.report.predict", lambda *_, **__: None)
    milliseconds = time_per_1000(tc.models.TinyCNN(), digits[1], runs=3, workers=1)
    assert milliseconds == 2 * 1000 * 1000 / 200


def test_the_models_are_as_they_were(models, digits):
    model = models["pruned"].copy().train()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    compare({"m": model}, digits[1], workers=1)
    assert model.training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ----------------------------------------------------------------------- models and files


def test_files_are_compared_beside_models(models, digits, tmp_path):
    tc.save(models["8-bit"], tmp_path / "kept.tcz")
    before = (tmp_path / "kept.tcz").stat().st_mtime_ns
    given = {"float": models["float"], "kept": tmp_path / "kept.tcz", "text": "kept.tcz"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = compare(given, digits[1], workers=1)
    assert [measured.name for measured in found] == ["float", "kept", "text"]
    assert found["kept"].bytes == found["text"].bytes == (tmp_path / "kept.tcz").stat().st_size
    assert (tmp_path / "kept.tcz").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tcz"]


@pytest.mark.parametrize("names", [("a b", "a-b"), ("a, b", "a b"), ("A", "a"), ("x", "x!")])
def test_two_models_never_share_a_file(names, digits, tmp_path):
    given = {name: tc.models.TinyCNN() for name in names}
    with pytest.raises(ValueError, match="would both be") as caught:
        compare(given, digits[1], folder=tmp_path, workers=1)
    assert all(repr(name) in str(caught.value) for name in names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_first", [True, False])
def test_a_model_is_not_written_over_a_file_that_is_compared(file_first, digits, tmp_path):
    tc.save(tc.models.TinyCNN(width=2), tmp_path / "a.tcz")
    before = (tmp_path / "a.tcz").read_bytes()
    given = {"before": tmp_path / "." / "a.tcz", "a": tc.models.TinyCNN()}
    order = list(given) if file_first else list(given)[::-1]
    with pytest.raises(ValueError, match=r"would both be a\.tcz"):
        compare({n: given[n] for n in order}, digits[1], folder=tmp_path, workers=1)
    assert (tmp_path / "a.tcz").read_bytes() == before


def test_one_file_may_be_measured_twice(digits, tmp_path):
    tc.save(tc.models.TinyCNN(), tmp_path / "a.tcz")
    path = tmp_path / "a.tcz"
    first, second = compare({"first": path, "second": path}, digits[1], workers=1)
    assert first.accuracy == second.accuracy


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("article CNN", "article-CNN"),
        ("pruned, 8-bit", "pruned-8-bit"),
        ("pruned 90%", "pruned-90"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
        ("-o file", "o-file"),
        ("a\x00b\n", "a-b"),
        ("größer", "größer"),
    ],
)
def test_names_become_file_names(name, stem):
    assert file_stem(name) == stem


@pytest.mark.parametrize("name", ["", "   ", "/", "...", "%"])
def test_a_name_that_leaves_nothing_is_refused(name):
    with pytest.raises(ValueError, match="cannot be made into a file name"):
        file_stem(name)


def test_what_cannot_be_compared_is_named(digits, tmp_path):
    model = tc.models.TinyCNN()
    with pytest.raises(ValueError, match="at least one model"):
        compare({}, digits[1])
    with pytest.raises(ValueError, match="at least one model"):
        compare([model], digits[1])
    with pytest.raises(TypeError, match=r"'a' must be a model or a \.tcz file, got dict"):
        compare({"a": model.state_dict()}, digits[1])
    with pytest.raises(TypeError, match="must be a string, got 8"):
        compare({8: model}, digits[1])
    with pytest.raises(FileNotFoundError, match=r"'a': there is no file .*gone"):
        compare({"a": tmp_path / "gone.tcz"}, digits[1])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        compare({"a": model}, digits[1], folder=tmp_path / "nowhere")
    with pytest.raises(TypeError, match="one of the pair, usually test"):
        compare({"a": model}, digits)
    with pytest.raises(TypeError, match=r"must be a tc\.data\.Dataset, got ndarray"):
        measure(tmp_path / "a.tcz", digits[1].images)


def test_a_measured_file_is_named_by_its_stem_unless_told(digits, tmp_path):
    tc.save(tc.models.TinyCNN(), tmp_path / "some.model.tcz")
    path = tmp_path / "some.model.tcz"
    assert measure(path, digits[1], workers=1).name == "some.model"
    assert measure(path, digits[1], name="mine", workers=1).name == "mine"


# ------------------------------------------------------------------------------ the table


def test_rows_are_found_by_name_and_by_order():
    table = Comparison((row(name="a"), row(name="b")))
    assert [r.name for r in table] == ["a", "b"]
    assert table["b"] is table.rows[1]
    with pytest.raises(KeyError, match=r"'c' is not in \['a', 'b'\]"):
        table["c"]
    assert table.to_list()[0] == row(name="a").to_dict()


def test_the_table_says_how_many_times_smaller_a_file_is():
    rows = (row(name="whole", bytes=719_749), row(bytes=95_230), row(bytes=90), row(bytes=800_000))
    lines = str(Comparison(rows)).splitlines()[1:]
    assert [line.split()[5] for line in lines] == ["1", "7.56", "7,997", "0.9"]


@pytest.mark.parametrize(
    ("macs", "text"),
    [
        (0, "0"),
        (999, "999"),
        (61_184, "61.2k"),
        (2_585_960, "2.59M"),
        (999_950, "1,000k"),
        (999_950_000, "1,000M"),
        (123_456_789, "123M"),
        (4 * 10**12, "4,000G"),
    ],
)
def test_operations_are_written_short(macs, text):
    assert str(Comparison((row(macs=macs),))).splitlines()[1].split()[6] == text


@pytest.mark.parametrize(("ms", "text"), [(0.0123, "0.0123"), (4.634, "4.63"), (1234.5, "1,234")])
def test_times_have_three_digits(ms, text):
    assert str(Comparison((row(ms_per_1000=ms),))).splitlines()[1].split()[7] == text


def on_screen(table, width):
    screen = io.StringIO()
    Console(file=screen, width=width).print(table.table())
    return screen.getvalue().splitlines()


def test_the_table_of_the_demo_fits_eighty_columns():
    largest = row(name="student pruned, 8-bit", nonzero=179_926, bytes=719_749, ms_per_1000=12345)
    lines = on_screen(Comparison((largest, row(bytes=2_000))), 80)
    assert len(lines) == 3
    assert max(len(line) for line in lines) <= 80


def test_where_the_table_is_too_wide_numbers_stay_whole():
    long = row(name="a very long name indeed " * 3, parameters=266_200_000, nonzero=266_200_000)
    lines = on_screen(Comparison((long, row())), 70)
    assert max(len(line) for line in lines) <= 70
    text = "\n".join(lines)
    assert text.count("266,200,000") == 2
    assert "…" not in text


def test_as_text_it_is_as_wide_as_it_needs_to_be():
    name = "long " * 60
    text = str(Comparison((row(name=name),)))
    assert name.strip() in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_names_are_not_read_as_markup(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "[bold]b[/] :smile:"
    text = str(Comparison((row(name=name),)))
    assert name in text
    assert "\x1b" not in text
