"""What distillation was worth: the gap, agreement and calibration, on the same seeds."""

import functools
import json

import numpy as np
import pytest
from distill_models import CLASSES, bits, blobs, plain_student, teacher_net
from hypothesis import given, strategies as st
from scipy.special import softmax

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.distill import (
    Ensemble,
    LogitMatching,
    compare,
    distill,
    distillation_report,
    distillation_trial,
    expected_calibration_error,
    few_labels,
    reliability,
    unlabelled,
)
from tinycompress.data import Dataset
from tinycompress.train import Callback, EarlyStopping, evaluate, fit


@pytest.fixture(scope="module")
def teacher():
    model = teacher_net()
    fit(model, blobs(1000), 8, optim.Adam(model.parameters(), lr=3e-3), workers=1)
    return model


# -------------------------------------------------------------------------------- calibration


def slow_ece(logits, labels, bins):
    p = softmax(logits, axis=1)
    total = 0.0
    for m in range(bins):
        inside = [
            (p[i].max(), p[i].argmax() == labels[i])
            for i in range(len(labels))
            if m / bins < p[i].max() <= (m + 1) / bins
        ]
        if inside:
            confidence, right = map(np.mean, zip(*inside, strict=True))
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.integers(1, 20))
def test_the_calibration_error_is_its_definition(seed, n, classes, bins):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 3, (n, classes)), rng.integers(0, classes, n)
    found = expected_calibration_error(logits, labels, bins)
    assert found == pytest.approx(slow_ece(logits, labels, bins), abs=1e-12)
    assert 0 <= found <= 1
    assert sum(b.count for b in reliability(logits, labels, bins)) == n


def test_who_is_as_often_right_as_sure_is_calibrated():
    """80% sure, and right 8 times in 10; then always wrong."""
    logits = np.log(np.tile([0.8, 0.2], (10, 1)))
    assert expected_calibration_error(logits, np.repeat([0, 1], [8, 2])) == pytest.approx(0)
    assert expected_calibration_error(logits, np.ones(10, int)) == pytest.approx(0.8)
    certain = np.array([[1e4, 0.0]])
    assert expected_calibration_error(certain, np.array([0])) == 0


def test_a_confidence_at_an_edge_belongs_to_the_bin_below():
    """As the bins are (low, high]; and there are 15, where nobody says otherwise."""
    half, certain = np.array([[0.0, 0.0]]), np.array([[1e4, 0.0]])
    assert [b.count for b in reliability(half, np.array([0]), 2)] == [1, 0]
    assert [b.count for b in reliability(certain, np.array([0]), 2)] == [0, 1]
    edges = [b.high for b in reliability(half, np.array([0]))]
    np.testing.assert_allclose(edges, np.arange(1, 16) / 15)


def test_calibration_of_what_are_no_answers_is_refused():
    logits, labels = np.zeros((2, 3)), np.zeros(2, int)
    for z, y, bins, message in [
        (logits + np.nan, labels, 15, "NaN or infinity"),
        (logits, labels + 3, 15, "labels must be integers 0 … 2"),
        (logits, labels - 1, 15, "labels must be integers 0 … 2"),
        (logits, labels + 0.5, 15, "labels must be integers 0 … 2"),
        (logits, labels, 0, "bins must be an integer ≥ 1"),
        (logits[:, :0], labels, 15, "needs logits"),
    ]:
        with pytest.raises(ValueError, match=message):
            expected_calibration_error(z, y, bins)


def test_calibration_of_nothing_is_refused():
    for logits, labels in ((np.zeros((0, 2)), np.zeros(0, int)), (np.zeros(3), np.zeros(3, int))):
        with pytest.raises(ValueError, match="needs logits"):
            expected_calibration_error(logits, labels)


# ------------------------------------------------------------------------------------ the report


class Says(nn.Module):
    """Answers the class in the first pixel, as a logit of so much."""

    def __init__(self, pixel, logit=5.0):
        super().__init__()
        self.pixel, self.logit = pixel, logit

    def forward(self, x):
        said = np.eye(CLASSES, dtype=np.float32)[x[:, 0, 0, self.pixel].astype(int)]
        return tc.tensor(self.logit * said)


def scripted(errors, n=100):
    """A data set, and models that make so many errors on it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, n)
    images = np.zeros((n, 1, 1, len(errors)), np.float32)
    for k, wrong in enumerate(errors):
        said = labels.copy()
        said[:wrong] = (said[:wrong] + 1) % CLASSES
        images[:, 0, 0, k] = said
    return Dataset(images, labels), [Says(k) for k in range(len(errors))]


def test_the_share_of_the_gap_is_that_of_the_errors():
    data, (teacher, *students) = scripted([10, 30, 34, 15, 18])
    report = distillation_report(teacher, students[:2], students[2:], data)
    assert report.count == 100
    assert report.teacher.errors == 10
    assert [g.errors for g in report.alone] == [30, 34]
    assert [g.errors for g in report.distilled] == [15, 18]
    assert report.gap_closed == pytest.approx((32 - 16.5) / (32 - 10))
    assert report.gap_closed_by_seed == pytest.approx([15 / 20, 16 / 24])
    assert [g.agreement for g in report.distilled] == [0.95, 0.92]
    assert report.teacher.agreement == 1
    confidence = np.exp(5) / (np.exp(5) + CLASSES - 1)
    assert report.alone[0].calibration_error == pytest.approx(abs(0.7 - confidence), rel=1e-5)
    assert json.loads(json.dumps(report.to_dict()))["gap_closed"] == report.gap_closed


def test_its_table_has_the_means_over_the_seeds():
    data, (teacher, *students) = scripted([10, 30, 34, 15, 18])
    text = str(distillation_report(teacher, students[:2], students[2:], data))
    assert "32.0 ± 2.8" in text
    assert "83.50%" in text
    assert text.endswith("70% of the gap closed; 100 images, 2 seeds")


def test_without_a_gap_there_is_no_share():
    for errors in ([20, 20, 10], [20, 15, 10]):  # nor where the student alone is the better one
        data, (teacher, alone, distilled) = scripted(errors)
        report = distillation_report(teacher, alone, distilled, data)
        assert report.gap_closed is None
        assert report.gap_closed_by_seed == [None]
        assert "there is no gap" in str(report)


def test_several_teachers_are_graded_as_one(teacher):
    other, student, data = teacher_net(), plain_student(), blobs(50)
    report = distillation_report([teacher, other], student, student, data)
    assert report.teacher.errors == evaluate(Ensemble([teacher, other]), data).wrong


def test_reports_of_what_cannot_be_compared_are_refused(teacher):
    student, data = plain_student(), blobs(20)
    with pytest.raises(ValueError, match="2 students alone and 1 distilled"):
        distillation_report(teacher, [student, student], student, data)
    with pytest.raises(ValueError, match="labels must be class numbers"):
        distillation_report(teacher, student, student, few_labels(data, 1))
    one = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with pytest.raises(ValueError, match="teacher tells 5 classes apart, the student 1"):
        distillation_report(teacher, student, one, data)
    with pytest.raises(ValueError, match="teacher tells 5 classes apart, the student 1"):
        compare(teacher, one, data)
    bare = Dataset(data.images)
    for few in (few_labels(data, 1), few_labels(data.take(CLASSES), 0), bare):  # also N = K
        with pytest.raises(ValueError, match="labels must be class numbers"):
            compare(teacher, student, few)
        with pytest.raises(ValueError, match="labels must be class numbers"):
            distillation_report(teacher, student, student, few)
    with pytest.raises(ValueError, match="labels go up to 5, but the model has 5 outputs"):
        compare(teacher, student, Dataset(data.images, data.labels * 0 + 5))
    with pytest.raises(ValueError, match="one seed or more"):
        distillation_trial(teacher, plain_student, data, data, epochs=1, seeds=())
    with pytest.raises(ValueError, match=r"each seed once, got \[1, 2, 1\]"):
        distillation_trial(teacher, plain_student, data, data, epochs=1, seeds=(1, 2, 1))


# ------------------------------------------------------------------------------------- the trial


def test_both_students_of_a_seed_start_from_the_same_weights_and_see_the_same_order(teacher):
    train, test = blobs(100), blobs(200, seed=2)
    report = distillation_trial(
        teacher, plain_student, train, test, epochs=2, seeds=(3, 5), temperature=3.0, alpha=0.8,
        make_optimizer=sgd, batch_size=20, workers=1, terms=[LogitMatching(0.01)],
        make_schedule=lambda o: optim.StepLR(o, 1, 0.5), alone={"make_optimizer": faster},
    )  # fmt: skip
    expected = []
    for seed in (3, 5):
        tc.manual_seed(seed)
        start = plain_student()
        tc.manual_seed(seed)
        student, rule = start.copy(), None
        rule = faster(student)
        fit(student, train, 2, rule, schedule=optim.StepLR(rule, 1, 0.5), seed=seed, batch_size=20)
        tc.manual_seed(seed)
        rule = sgd(start)
        pupil = distill(
            teacher, start, train, epochs=2, temperature=3.0, alpha=0.8, optimizer=rule,
            schedule=optim.StepLR(rule, 1, 0.5), seed=seed, batch_size=20, workers=1,
            terms=[LogitMatching(0.01)],
        )  # fmt: skip
        expected.append((evaluate(student, test).wrong, evaluate(pupil, test).wrong))
    assert [(a.errors, d.errors) for a, d in zip(report.alone, report.distilled, strict=True)] == (
        expected
    )


def sgd(model):
    return optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def faster(model):
    return optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_with_alpha_zero_the_two_are_the_same_student(teacher):
    """With the same dropout, too. So whatever differs comes from the teacher."""
    report = distillation_trial(
        teacher, dropping_student, blobs(100), blobs(200, seed=2), epochs=2, seeds=(1,), alpha=0.0,
        workers=1,
    )  # fmt: skip
    alone, distilled = report.alone[0], report.distilled[0]
    assert alone.errors == distilled.errors
    assert alone.calibration_error == pytest.approx(distilled.calibration_error, rel=1e-3)


def dropping_student():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, CLASSES))


def test_what_is_for_one_training_is_refused_in_a_trial(teacher, tmp_path):
    """One checkpoint for all would be that of another run."""
    run = functools.partial(
        distillation_trial, teacher, plain_student, blobs(8), blobs(8), epochs=1
    )
    for options in (
        {"checkpoint": tmp_path / "c"}, {"resume": True}, {"seed": 1}, {"alone": {"schedule": None}}
    ):  # fmt: skip
        with pytest.raises(TypeError, match="is for one training, and these are 6"):
            run(**options)
    with pytest.raises(TypeError, match="seeds must be a list, got 3"):
        run(seeds=3)
    with pytest.raises(ValueError, match="without labels there is no student alone"):
        distillation_trial(teacher, plain_student, Dataset(blobs(8).images), blobs(8), epochs=1)
    assert len(run(seeds=np.arange(2), workers=1).alone) == 2


def test_the_teacher_of_a_trial_is_graded_with_the_weights_that_taught(teacher):
    test, run = blobs(100, seed=2), functools.partial(distillation_trial, epochs=1, seeds=(1,))
    both = [teacher_net(), teacher]
    report = run(both, plain_student, blobs(20), test, teacher_weights=[0, 1])
    assert report.teacher.errors == evaluate(teacher, test).wrong
    report = run(both, plain_student, blobs(20), test)
    assert report.teacher.errors == evaluate(Ensemble(both), test).wrong


def test_what_a_trial_cannot_do_is_refused_before_anything_is_trained(teacher):
    def never():
        pytest.fail("a student was made")

    data = blobs(20)
    bare, few = Dataset(data.images), few_labels(data, 1)
    for train, test, kind, message in [
        (data, bare, ValueError, "labels must be class numbers"),
        (data, few, ValueError, "labels must be class numbers"),
        (data, data.images, TypeError, "data must be a tc.data.Dataset"),
        (data, Dataset(data.images, data.labels + 5), ValueError, "labels go up to 9, but the"),
        (data.images, data, TypeError, "train must be a tc.data.Dataset, got ndarray"),
        (unlabelled(data, CLASSES), data, ValueError, "without labels there is no student alone"),
    ]:
        with pytest.raises(kind, match=f"distillation_trial: .*{message}"):
            distillation_trial(teacher, never, train, test, epochs=1)
    with pytest.raises(TypeError, match="make_student is a function that makes a new model"):
        distillation_trial(teacher, plain_student(), data, data, epochs=1)
    with pytest.raises(ValueError, match="2 weights for 1 teacher"):
        distillation_trial(teacher, never, data, data, epochs=1, teacher_weights=[1, 1])


def test_a_trial_with_few_labels_trains_both_on_these(teacher):
    few = few_labels(blobs(60), 2)
    report = distillation_trial(
        teacher, plain_student, few, blobs(100, seed=2), epochs=1, seeds=(1,), alpha=0.5, workers=1
    )
    assert report.count == 100


def test_a_training_that_is_stopped_stops_no_other(teacher):
    """One callback for all: each training starts as if it were the first."""
    epochs = []

    class Watch(Callback):
        def on_fit_end(self, run):
            epochs.append(len(run.history))

    tired = EarlyStopping(patience=0, min_delta=10.0)  # only the first epoch is an improvement
    distillation_trial(
        teacher, plain_student, blobs(20), blobs(20), epochs=4, seeds=(1, 2), workers=1,
        validate=blobs(20), callbacks=[tired, Watch()],
    )  # fmt: skip
    assert epochs == [2, 2, 2, 2]


def test_a_trial_leaves_the_teacher_alone(teacher):
    before = bits(teacher)
    distillation_trial(teacher, plain_student, blobs(40), blobs(40), epochs=1, seeds=(1,))
    assert bits(teacher) == before
