"""What pruning gained: counted by hand, weighed in the file, and said without a gain in time."""

import dataclasses

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import models, nn
from tinycompress.data import Dataset


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.random((60, 1, 28, 28), dtype=np.float32)
    return Dataset(images, rng.integers(0, 10, 60))


@pytest.fixture(scope="module")
def model():
    tc.manual_seed(0)
    return models.TinyCNN()


@pytest.fixture(scope="module")
def masked(model, data):
    return tc.pruning_report(model, tc.prune(model, 0.75), data, workers=1)


@pytest.fixture(scope="module")
def shrunk(model, data):
    return tc.pruning_report(model, tc.remove_channels(model, 0.5), data, workers=1)


def test_zeros_save_bytes_and_no_multiplications(model, masked):
    old, new = masked.before, masked.after
    weights = 4 * 9 + 8 * 4 * 9 + 200 * 10
    assert (old.weights, old.zeros) == (weights, 0)
    assert (new.weights, new.zeros) == (weights, round(0.75 * weights))
    assert old.dense_bytes == new.dense_bytes == 4 * (weights + 4 + 8 + 10)
    assert new.bytes < 0.5 * old.bytes
    assert old.macs == new.macs == 26 * 26 * 4 * 9 + 11 * 11 * 8 * 4 * 9 + 2000
    assert masked.images == 60


def test_macs_by_a_nonzero_weight_count_how_often_each_is_used(model, data, masked):
    thin = tc.prune(model, 0.75)
    used = {"conv1": 26 * 26, "conv2": 11 * 11, "fc": 1}
    left = {n: int((thin.get_submodule(n).weight.data != 0).sum()) for n in used}
    assert masked.after.nonzero_macs == sum(times * left[n] for n, times in used.items())
    assert masked.before.nonzero_macs == masked.before.macs


def test_removed_channels_save_multiplications(shrunk):
    assert shrunk.after.zeros == 0
    assert shrunk.after.macs == 26 * 26 * 2 * 9 + 11 * 11 * 4 * 2 * 9 + 1000
    assert shrunk.after.dense_bytes == 4 * shrunk.after.parameters < shrunk.before.dense_bytes


def test_bytes_are_those_of_the_file_and_accuracy_that_of_what_was_loaded(
    model, data, masked, tmp_path
):
    thin = tc.prune(model, 0.75)
    assert masked.after.bytes == tc.save(thin, tmp_path / "thin.tcz")
    assert masked.after.accuracy == tc.evaluate(thin, data).accuracy
    of_files = tc.pruning_report(tmp_path / "thin.tcz", str(tmp_path / "thin.tcz"), data)
    assert of_files.before.bytes == of_files.after.bytes == masked.after.bytes


def with_times(report, before, after):
    return dataclasses.replace(
        report,
        before=dataclasses.replace(report.before, ms_per_1000=before),
        after=dataclasses.replace(report.after, ms_per_1000=after),
    )


def test_the_sentence_says_bytes_and_no_time_where_weights_are_zero(masked):
    slower = with_times(masked, 4.0, 5.0).says()
    assert "75.00% of the weights are zero" in slower
    assert "saves bytes in the file" in slower
    assert "no time" in slower
    assert "it takes 1.25 times the time of before" in slower
    assert "not owed" not in slower
    assert "That it is less is not owed to the zeros" in with_times(masked, 4.0, 3.0).says()


def test_the_sentence_says_no_bytes_where_the_file_is_no_smaller(masked):
    larger = dataclasses.replace(masked.after, bytes=masked.before.bytes)
    assert "saves no bytes in the file" in dataclasses.replace(masked, after=larger).says()


def test_the_sentence_says_that_channels_are_really_gone(shrunk):
    says = with_times(shrunk, 4.0, 2.0).says()
    assert "of the multiplications are really gone, and it takes 0.50 times the time" in says
    assert "are zero" not in says


def test_the_table_and_the_values_say_the_same(masked):
    text, values = str(masked), masked.to_dict()
    assert f"{values['after']['bytes']:,}" in text
    assert values["after"]["zeros"] == sum(layer["zeros"] for layer in values["layers"])
    assert values["says"] in text.replace("\n", " ")


@pytest.mark.parametrize(
    ("before", "of", "error", "text"),
    [
        (3, None, TypeError, "takes models or .tcz files, got int"),
        ("nowhere.tcz", None, FileNotFoundError, "nowhere.tcz"),
        (nn.Flatten(), None, ValueError, "no Linear or Conv2d layer"),
        (None, "data", TypeError, "must be a tc.data.Dataset, got str"),
    ],
    ids=["a number", "no file", "nothing to prune", "no data"],
)
def test_what_is_wrong_is_named(before, of, error, text, model, data):
    with pytest.raises(error, match=text):
        tc.pruning_report(model if before is None else before, model, of or data)
