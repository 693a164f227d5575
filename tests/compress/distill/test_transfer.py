"""Learning without some classes, with few labels, without any; and the bias that is corrected."""

import numpy as np
import pytest
from distill_models import CLASSES, bits, blobs, plain_student, teacher_net
from hypothesis import given, strategies as st

from tinycompress import nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.distill import (
    compare,
    correct_bias,
    distill,
    few_labels,
    joined,
    mutual_learning,
    unlabelled,
    without_classes,
)
from tinycompress.compress.distill.bias import offset_for_labels, offset_for_share
from tinycompress.data import Dataset
from tinycompress.train import evaluate, fit, predict


@pytest.fixture(scope="module")
def teacher():
    model = teacher_net()
    fit(model, blobs(1000), 8, optim.Adam(model.parameters(), lr=3e-3), workers=1)
    return model


# ---------------------------------------------------------------------------- transfer sets


def test_without_a_class_all_others_are_there_in_their_order():
    data = blobs(100)
    for gone in (3, [3], [1, 3]):
        rest = without_classes(data, gone)
        kept = ~np.isin(data.labels, gone)
        np.testing.assert_array_equal(rest.images, data.images[kept])
        np.testing.assert_array_equal(rest.labels, data.labels[kept])
    with pytest.raises(ValueError, match="no example of class 9"):
        without_classes(data, [3, 9])
    with pytest.raises(ValueError, match="name one class or more"):
        without_classes(data, [])
    with pytest.raises(ValueError, match="no example would be left"):
        without_classes(data, range(CLASSES))


@given(seed=st.integers(0, 100), per_class=st.integers(0, 5))
def test_so_many_labels_of_each_class_are_known_and_they_are_right(seed, per_class):
    data = blobs(100)
    few = few_labels(data, per_class, seed)
    np.testing.assert_array_equal(few.images, data.images)
    assert few.labels.shape == (100, CLASSES)
    known = few.labels.sum(axis=1) > 0
    np.testing.assert_array_equal(few.labels.sum(axis=0), [per_class] * CLASSES)
    np.testing.assert_array_equal(few.labels.argmax(axis=1)[known], data.labels[known])
    again = few_labels(data, per_class, seed)
    np.testing.assert_array_equal(again.labels, few.labels)


def test_other_seeds_draw_other_labels():
    data = blobs(100)
    assert not np.array_equal(few_labels(data, 3, 0).labels, few_labels(data, 3, 1).labels)
    with pytest.raises(ValueError, match="fewer than 99"):
        few_labels(data, 99)
    with pytest.raises(ValueError, match="labels go up to 4, but there are 4 classes"):
        few_labels(data, 3, classes=4)
    with pytest.raises(ValueError, match="must be class numbers"):
        few_labels(few_labels(data, 1), 1)


def test_what_is_no_set_no_class_and_no_number_is_named():
    data = blobs(40)
    for call, kind, message in [
        (lambda: joined([data, data]), TypeError, r"joined: give data sets, .* got a list"),
        (lambda: few_labels(data, 1, classes=5.5), TypeError, "few_labels: classes must be an int"),
        (lambda: few_labels(data, 1, classes=-1), ValueError, "few_labels: classes must be an int"),
        (lambda: few_labels(data, 1, seed="a"), TypeError, "few_labels: seed must be an integer"),
        (lambda: few_labels(data, 1, seed=-1), ValueError, "few_labels: seed must be an integer"),
        (lambda: without_classes(data, 2.0), TypeError, "without_classes: a class must be an int"),
        (lambda: without_classes(data, None), TypeError, "without_classes: a class must be an int"),
        (lambda: without_classes(Dataset(data.images), 1), ValueError, "must be class numbers"),
        (lambda: few_labels(Dataset(data.images), 1), ValueError, "must be class numbers"),
        (lambda: joined(cubes(data), data), ValueError, r"joined: targets must be \(N, classes\)"),
        (lambda: joined(data, cubes(data)), ValueError, r"joined: targets must be \(N, classes\)"),
    ]:
        with pytest.raises(kind, match=message):
            call()


def cubes(data):
    return Dataset(data.images, np.zeros((len(data), CLASSES, 2), np.float32))


def test_sets_are_joined_and_labels_become_targets():
    labelled, rest = blobs(20), unlabelled(blobs(30, seed=2).images, CLASSES)
    both = joined(labelled, rest)
    np.testing.assert_array_equal(both.images, np.r_[labelled.images, rest.images])
    np.testing.assert_array_equal(both.labels[:20], np.eye(CLASSES)[labelled.labels])
    assert not both.labels[20:].any()
    numbers = joined(labelled, labelled)
    np.testing.assert_array_equal(numbers.labels, np.r_[labelled.labels, labelled.labels])
    with pytest.raises(ValueError, match="has no labels"):
        joined(labelled, Dataset(labelled.images))
    with pytest.raises(ValueError, match="one shape"):
        joined(unlabelled(labelled.images, 4), rest)
    with pytest.raises(ValueError, match=r"one shape and dtype, .* float32 .* float64"):
        joined(labelled, Dataset(labelled.images.astype(np.float64), labelled.labels))
    with pytest.raises(ValueError, match="labels go up to 4, but there are 3 classes"):
        joined(labelled, unlabelled(labelled.images, 3))


def test_targets_that_are_no_shares_are_refused(teacher):
    images = blobs(3).images
    for targets, message in [
        (np.ones((3, CLASSES)), "row 0 is"),
        (np.eye(CLASSES)[[0, 1, 2]] * [[1], [1], [-1]], "row 2 is"),
        (np.eye(CLASSES)[[0, 1, 2]] * 1.5 - 0.1, "row 0 is"),  # the sum is 1
        (np.zeros((3, 4)), r"targets \(N, 5\) of shares, got \(3, 4\) of float32"),
    ]:
        data = Dataset(images, targets.astype(np.float32))
        with pytest.raises(ValueError, match=f"distill: .*{message}"):
            distill(teacher, plain_student(), data, epochs=1)
        with pytest.raises(ValueError, match=f"mutual_learning: .*{message}"):
            mutual_learning([plain_student(), plain_student()], data, epochs=1)
    for targets, message in [
        (np.ones((3, CLASSES), bool), "row 0 is"),
        (np.eye(CLASSES, dtype=int)[:3], r"targets \(N, 5\) of shares, got \(3, 5\) of int64"),
    ]:
        with pytest.raises(ValueError, match=message):
            distill(teacher, plain_student(), Dataset(images, targets), epochs=1)


def test_transfer_sets_on_every_device(teacher, device):
    data = blobs(60).to(device)
    sets = [
        without_classes(data, 3),
        few_labels(data, 2),
        unlabelled(data.images, CLASSES),
        joined(data, unlabelled(data, CLASSES)),
    ]
    start = plain_student().to(device)
    for each in sets:
        assert each.device == data.device
        assert distill(teacher.copy().to(device), start, each, epochs=1).device == start.device


def test_unlabelled_images_make_a_student_better_than_few_labels_alone(teacher):
    few = few_labels(blobs(600), 1)
    known = few.labels.any(axis=1)
    labels = few.labels[known].argmax(axis=1)
    alone, start, test = plain_student(), plain_student(), blobs(1000, seed=2)
    fit(alone, Dataset(few.images[known], labels), 60, optim.Adam(alone.parameters(), lr=0.01),
        workers=1)  # fmt: skip
    adam = optim.Adam(start.parameters(), lr=0.01)
    small = distill(teacher, start, few, epochs=6, optimizer=adam, workers=1)
    assert evaluate(small, test).wrong < evaluate(alone, test).wrong


def test_with_alpha_zero_unlabelled_images_are_still_learned_from_the_teacher(teacher):
    """α is the share where a label is known; elsewhere the teacher has the whole weight."""
    data, start = unlabelled(blobs(100), CLASSES), plain_student()
    small, twin = (
        distill(teacher, start, data, epochs=1, alpha=alpha, workers=1) for alpha in (0.0, 1.0)
    )
    for name, array in small.state_dict().items():
        np.testing.assert_allclose(array, twin.state_dict()[name], atol=1e-5)


# -------------------------------------------------------------------------- bias correction


def brute_force(thresholds, is_c, right_else):
    """The most that can be right, over all b that matter."""
    candidates = np.r_[thresholds - 1e-9, thresholds + 1e-9, -1e9, 1e9]
    return max(rights(b, thresholds, is_c, right_else) for b in candidates)


def rights(b, thresholds, is_c, right_else):
    return int(np.where(b > thresholds, is_c, right_else).sum())


@given(st.integers(0, 10_000), st.integers(1, 12), st.booleans())
def test_the_best_offset_is_found_exactly(seed, n, ties):
    rng = np.random.default_rng(seed)
    thresholds = rng.integers(-3, 4, n).astype(float) if ties else rng.normal(0, 2, n)
    is_c, right_else = rng.random(n) < 0.4, rng.random(n) < 0.5
    right_else &= ~is_c
    b = offset_for_labels(thresholds, is_c, right_else)
    assert rights(b, thresholds, is_c, right_else) == brute_force(thresholds, is_c, right_else)


@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0, 1))
def test_the_offset_names_the_class_as_often_as_asked(seed, n, share):
    thresholds = np.random.default_rng(seed).normal(0, 2, n)
    b = offset_for_share(thresholds, share)
    assert (b > thresholds).sum() == round(share * n)


def test_an_offset_that_is_not_needed_is_none():
    thresholds = np.array([-1.0, 1.0])
    assert offset_for_share(thresholds, 0.5) == 0
    assert offset_for_labels(thresholds, np.array([True, False]), np.array([False, True])) == 0


def test_of_equally_good_offsets_the_one_nearest_to_zero_is_taken():
    """Two images, of which one is right without class c and the other with it."""
    is_c, right_else = np.array([False, True]), np.array([True, False])
    assert 3 < offset_for_labels(np.array([-4.0, 3.0]), is_c, right_else) < 5
    assert -5 < offset_for_labels(np.array([-3.0, 4.0]), is_c, right_else) < -3


def test_a_student_that_never_met_a_class_is_corrected_by_one_number(teacher):
    train, test = blobs(600), blobs(1000, seed=2)
    start = plain_student()
    adam = optim.Adam(start.parameters(), lr=0.01)
    blind = distill(
        teacher, start, without_classes(train, 3), epochs=8, optimizer=adam, workers=1, alpha=0.9
    )
    before = bits(blind)
    by_labels = correct_bias(blind, train, 3)
    by_share = correct_bias(blind, Dataset(train.images), shares={3: 1 / CLASSES})
    assert bits(blind) == before
    threes = test.labels == 3
    recall = {}
    for name, mended in {"blind": blind, "labels": by_labels, "share": by_share}.items():
        recall[name] = (predict(mended, test.images).argmax(1)[threes] == 3).mean()
        moved = mended.fc.bias.data - blind.fc.bias.data
        assert (moved[3] > 0) == (name != "blind")
        assert not np.delete(moved, 3).any()
        np.testing.assert_array_equal(mended.fc.weight.data, blind.fc.weight.data)
    assert recall["blind"] < min(recall["labels"], recall["share"])
    assert evaluate(by_labels, train).wrong < evaluate(blind, train).wrong
    named = predict(by_share, train.images).argmax(1) == 3
    assert named.sum() == round(len(train) / CLASSES)
    most = evaluate(by_labels, train).wrong
    for b in np.linspace(-3, 9, 50):
        other = blind.copy()
        other.fc.bias.data[3] += b
        assert evaluate(other, train).wrong >= most


def test_of_two_layers_of_that_size_the_last_ones_bias_is_moved():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Linear(5, 5))
    mended = correct_bias(model, blobs(20), shares={3: 0.9})
    np.testing.assert_array_equal(mended[1].bias.data, model[1].bias.data)
    assert mended[2].bias.data[3] != model[2].bias.data[3]


def test_several_classes_are_corrected_together(teacher):
    train, start = blobs(600), plain_student()
    blind = distill(teacher, start, without_classes(train, [1, 3]), epochs=6, workers=1)
    shares = {1: 0.2, 3: 0.2}
    mended = correct_bias(blind, train, shares=shares)
    said = predict(mended, train.images).argmax(1)
    for c in shares:
        assert abs((said == c).mean() - 0.2) < 0.01
    better = correct_bias(blind, train, [1, 3])
    assert evaluate(better, train).wrong < evaluate(blind, train).wrong


def test_bias_correction_on_every_device(device):
    model, data = plain_student().to(device), blobs(50).to(device)
    mended = correct_bias(model, data, shares={0: 0.5})
    named = to_numpy(predict(mended, data.images)).argmax(1) == 0
    assert named.sum() == 25
    found = compare(mended, mended, data)
    assert found.agreement == 1


@pytest.mark.parametrize("share", [0.1, 0.0])
def test_shares_of_all_classes_must_be_all_there_is(share):
    """Every image is named something."""
    shares = dict.fromkeys(range(CLASSES), share)
    with pytest.raises(ValueError, match=r"of all 5 classes add up to .*, which is below 1"):
        correct_bias(plain_student(), blobs(20), shares=shares)
    correct_bias(plain_student(), blobs(20), shares=dict.fromkeys(range(CLASSES), 0.2))


def test_what_cannot_be_corrected_is_refused():
    model, data = plain_student(), blobs(20)
    for arguments, message in [
        ({"shares": [0.1]}, r"shares must be \{class: how often\}, got \[0.1\]"),
        ({"classes": 1.5}, "a class must be an integer"),
        ({"classes": None}, "a class must be an integer"),
        ({"classes": 3, "data": data.images}, "data must be a tc.data.Dataset, got ndarray"),
        ({"shares": {3: 0.1}, "data": data.images}, "data must be a tc.data.Dataset, got ndarray"),
    ]:
        with pytest.raises(TypeError, match=message):
            correct_bias(model, **{"data": data, **arguments})
    for wrong, message in [
        (Dataset(data.images), "without labels that are class numbers"),
        (Dataset(data.images, data.labels + 5), "labels go up to 9, but the model has 5 outputs"),
    ]:
        with pytest.raises(ValueError, match=message):
            correct_bias(model, wrong, 3)
    for arguments, message in [
        ({}, "give classes=.*, or shares"),
        ({"classes": 3, "shares": {3: 0.1}}, "give classes=.*, or shares"),
        ({"classes": 7}, "class 7 is none of the model's 0 … 4"),
        ({"shares": {3: 1.5}}, "share"),
        ({"shares": {3: 0.7, 1: 0.5}}, "add up to 1.2, which is above 1"),
        ({"classes": 3, "layer": "conv"}, "no layer with a bias of 5"),
        (
            {"classes": 3, "layer": "nowhere"},
            "correct_bias: there is no layer 'nowhere'; there are",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            correct_bias(model, data, **arguments)
    with pytest.raises(ValueError, match="without labels"):
        correct_bias(model, few_labels(data, 1), 3)
    with pytest.raises(TypeError, match="a class must be an integer"):
        correct_bias(model, data, [1.5])
    one = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with pytest.raises(ValueError, match="no other to choose"):
        correct_bias(one, data, shares={0: 0.5})
    broken = plain_student()
    broken.fc.bias.data[0] = np.nan
    with pytest.raises(ValueError, match="the model answers NaN"):
        correct_bias(broken, data, 3)
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 5, bias=False))
    with pytest.raises(ValueError, match="do not follow the bias"):
        correct_bias(hidden, data, shares={3: 0.9})
