"""The verb ``distill``: the student learns from the teacher, and nobody else changes."""

import numpy as np
import pytest

from tinycompress import functional as F, nn, optim, random
from tinycompress.backend import device_of, to_numpy
from tinycompress.compress.distill import (
    Decoupled,
    DistillationObjective,
    Hint,
    Relations,
    compare,
    distill,
    distillation_loss,
    learning,
    with_teacher_logits,
)
from tinycompress.data import Dataset
from tinycompress.train import Callback, evaluate, fit, predict, value_and_grad

CLASSES = 5


def teacher_net():
    """Dropout and batch norm: what it answers depends on its mode."""
    return nn.Sequential(
        {
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(25, 64),
            "norm": nn.BatchNorm1d(64),
            "relu": nn.ReLU(),
            "drop": nn.Dropout(0.3),
            "fc2": nn.Linear(64, CLASSES),
        }
    )


def student_net():
    """Another architecture altogether."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),  # (N, 2, 3, 3) -> (N, 18)
            "fc": nn.Linear(18, CLASSES),
        }
    )


def blobs(n=256, seed=1, noise=0.4):
    """Images of one of five patterns, with noise."""
    patterns = np.random.default_rng(0).random((CLASSES, 1, 5, 5))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    images = patterns[labels] + rng.normal(0, noise, (n, 1, 5, 5))
    return Dataset(images.astype(np.float32), labels, name="blobs")


def sgd(model):
    return optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


@pytest.fixture(scope="module")
def trained():
    model = teacher_net()
    fit(model, blobs(1000), 8, optim.Adam(model.parameters(), lr=3e-3), batch_size=32)
    return model


@pytest.fixture
def teacher(trained):
    return trained.copy()


def snapshot(model):
    state = {name: to_numpy(a).tobytes() for name, a in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    grads = [(p.grad is None, p.requires_grad) for p in model.parameters()]
    return state, modes, grads


def shifted(images, generator):
    """An augmentation of the smallest kind."""
    return np.roll(images, int(generator.integers(-1, 2)), axis=3)


# ---------------------------------------------------------------------------- nobody else changes


@pytest.mark.parametrize("augment", [None, shifted])
def test_teacher_and_student_are_untouched_to_the_bit(teacher, augment):
    student = student_net().eval()
    teacher.train()
    teacher.get_submodule("norm").eval()  # modes of its own, module by module
    before = snapshot(teacher), snapshot(student)
    small = distill(teacher, student, blobs(64), epochs=1, augment=augment)
    assert (snapshot(teacher), snapshot(student)) == before
    assert type(small) is type(student)
    assert snapshot(small)[0] != before[1][0]


def test_the_teacher_answers_in_evaluation_mode(teacher):
    data, answer = blobs(40), predict(teacher, blobs(40).images)
    teacher.train()
    cached = with_teacher_logits(teacher, data).arrays[-1]
    np.testing.assert_array_equal(cached, answer)
    student = student_net()
    for objective, batch in (
        (DistillationObjective(3.0, 0.5, teacher), data.arrays),
        (DistillationObjective(3.0, 0.5), (*data.arrays, answer)),
    ):
        loss, outputs = objective(student, *batch)
        expected = distillation_loss(student(data.images), answer, data.labels, 3.0, 0.5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert outputs.shape == (40, CLASSES)


def test_the_teacher_gets_no_gradient_and_sees_no_random_numbers(teacher):
    student, data = student_net(), blobs(64)
    before = snapshot(teacher.train()), random.get_state()
    objective = DistillationObjective(teacher=teacher)
    value_and_grad(objective, student, data.arrays, key=1)
    loss, _ = objective(student, *data.arrays)
    loss.backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in objective.teachers[0].parameters())
    assert (snapshot(teacher), random.get_state()) == before


@pytest.mark.parametrize("augment", [None, shifted])
def test_nothing_is_recorded_of_the_teachers_answers(teacher, augment):
    recorded = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = teacher

        def forward(self, x):
            answer = self.inner(x)
            recorded.append(answer.requires_grad)
            return answer

    distill(Spy(), student_net(), blobs(30), epochs=1, augment=augment)
    assert set(recorded) == {False}


def test_cached_and_asked_teachers_train_the_same_student(teacher):
    data, results = blobs(200), []
    start = student_net()
    for cached in (True, False):
        student = start.copy()
        objective = DistillationObjective(4.0, 0.9, None if cached else teacher)
        learned = with_teacher_logits(teacher, data) if cached else data
        fit(student, learned, 2, sgd(student), batch_size=32, objective=objective)
        results.append(predict(student, data.images))
    small = distill(teacher, start, data, epochs=2, optimizer=sgd(start), batch_size=32)
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)
    np.testing.assert_array_equal(predict(small, data.images), results[0])


def test_under_augmentation_the_teacher_sees_what_the_student_sees(teacher, monkeypatch):
    seen = {"teacher": [], "student": []}

    class Spy(nn.Module):
        def __init__(self, name, inner):
            super().__init__()
            self.name, self.inner = name, inner

        def forward(self, x):
            seen[self.name].append(to_numpy(x).copy())
            return self.inner(x)

    data = blobs(30)
    distill(
        Spy("teacher", teacher),
        Spy("student", student_net()),
        data,
        epochs=1,
        augment=lambda images, generator: images + generator.random(),
        batch_size=10,
        workers=1,
    )
    for theirs, ours in zip(seen["teacher"][1:], seen["student"][1:], strict=True):
        np.testing.assert_array_equal(theirs, ours)
    assert len(seen["teacher"]) == 4, "once for the number of classes, then once a batch"


def test_without_augmentation_the_teacher_answers_once_for_each_image(teacher):
    asked = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = teacher

        def forward(self, x):
            asked.append(len(x))
            return self.inner(x)

    distill(Counting(), student_net(), blobs(700), epochs=3, workers=1)
    assert asked[0] == 1  # a look at the number of classes
    assert sum(asked[1:]) == 700


# ------------------------------------------------------------------------------------- it works


def errors(model):
    return evaluate(model, blobs(1000, seed=2)).wrong


def test_a_student_learns_from_the_teacher_alone(teacher):
    """α = 1 and wrong labels: whatever the student knows, it has from the teacher."""
    data = blobs(600)
    lies = Dataset(data.images, np.zeros_like(data.labels))
    start = student_net()
    options = {"epochs": 8, "optimizer": sgd(start), "batch_size": 32}
    small = distill(teacher, start, lies, alpha=1.0, **options)
    found = compare(teacher, small, blobs(1000, seed=2))
    assert found.student_accuracy > 0.8
    assert found.agreement > 0.8


def test_a_wrong_teacher_makes_the_student_worse(teacher):
    """So the teacher is really listened to."""

    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = teacher

        def forward(self, x):
            return -1.0 * self.inner(x)

    start, data = student_net(), blobs(600)
    options = {"epochs": 6, "optimizer": sgd(start), "batch_size": 32}
    right = errors(distill(teacher, start, data, **options))
    wrong = errors(distill(Wrong(), start, data, **options))
    alone = errors(distill(Wrong(), start, data, alpha=0.0, **options))
    assert right < alone < wrong / 2


def test_alpha_zero_is_training_without_a_teacher(teacher):
    start, data = student_net(), blobs(100)
    alone = start.copy()
    fit(alone, data, 2, sgd(alone), batch_size=32)
    small = distill(teacher, start, data, epochs=2, alpha=0.0, optimizer=sgd(start), batch_size=32)
    np.testing.assert_allclose(
        predict(small, data.images), predict(alone, data.images), rtol=1e-4, atol=1e-5
    )


def test_fits_own_arguments_are_handed_on(teacher, tmp_path):
    seen, student = [], student_net()
    optimizer = sgd(student)

    class Watch(Callback):
        def on_epoch_end(self, run):
            seen.append(run.history[-1])

    file = tmp_path / "student.safetensors"
    distill(
        teacher,
        student,
        blobs(64),
        epochs=2,
        optimizer=optimizer,
        schedule=optim.StepLR(optimizer, step_size=1, gamma=0.5),
        validate=blobs(50, seed=2),
        callbacks=[Watch()],
        checkpoint=file,
        seed=3,
    )
    assert [e.lr for e in seen] == [0.02, 0.01]
    assert all(0 <= e.val_accuracy <= 1 and 0 <= e.accuracy <= 1 for e in seen)
    assert file.exists()
    assert optimizer.param_groups[0]["lr"] == 0.02, "the optimizer that was given is left alone"
    assert not optimizer.state


def test_the_same_call_trains_the_same_student(teacher):
    start, data = student_net(), blobs(100)
    one, two = (distill(teacher, start, data, epochs=1, seed=4, workers=w) for w in (1, 2))
    assert snapshot(one)[0] == snapshot(two)[0]


@pytest.mark.parametrize("augment", [None, lambda images, generator: images * 0.9])
def test_it_runs_on_every_device(teacher, augment, device):
    there = teacher.copy().to(device)
    student = student_net().to(device)
    small = distill(there, student, blobs(64), epochs=1, augment=augment)
    assert small.device == student.device
    found = compare(there, small, blobs(50, seed=2))
    assert found.count == 50
    # A teacher on another device answers where it is.
    distill(teacher, student, blobs(64), epochs=1, augment=augment)


def test_cached_logits_lie_beside_the_data(teacher, device):
    data = with_teacher_logits(teacher, blobs(20).to(device))
    assert device_of(data.arrays[-1]) == data.device
    assert data.arrays[-1].shape == (20, CLASSES)


# ---------------------------------------------------------------------------------- comparing


class Always(nn.Module):
    """Answers the class that it finds in the first pixel, plus an offset."""

    def __init__(self, offset=0):
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return F.one_hot((x[:, 0, 0, 0].astype(np.int64) + self.offset) % CLASSES, CLASSES)


def test_comparison_counts_right_answers_and_equal_answers():
    images = np.zeros((10, 1, 2, 2), np.float32)
    images[:, 0, 0, 0] = np.arange(10) % CLASSES
    labels = np.arange(10) % CLASSES
    labels[:3] += 1
    found = compare(Always(), Always(), Dataset(images, labels))
    assert (found.teacher_accuracy, found.student_accuracy, found.agreement) == (0.7, 0.7, 1.0)
    found = compare(Always(), Always(1), Dataset(images, labels))
    assert (found.teacher_accuracy, found.student_accuracy, found.agreement) == (0.7, 0.3, 0.0)
    assert found.count == 10


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_comparison_refuses_answers_that_are_no_class(broken):
    images = np.zeros((10, 1, 2, 2), np.float32)
    data = Dataset(images, np.arange(10) % CLASSES)

    class Broken(nn.Module):
        def forward(self, x):
            return F.one_hot(np.zeros(len(x), np.int64), CLASSES) * broken

    with pytest.raises(ValueError, match=r"the teacher answers .* for image 0"):
        compare(Broken(), Always(), data)
    with pytest.raises(ValueError, match="the student answers"):
        compare(Always(), Broken(), data)


# ----------------------------------------------------------------------------------- bad input


def test_numbers_out_of_range_are_refused_before_anything_runs(teacher):
    for name, value in (("temperature", 0.0), ("alpha", 1.5)):
        with pytest.raises(ValueError, match=name):
            distill(teacher, student_net(), blobs(8), epochs=1, **{name: value})


def test_what_fit_would_refuse_is_refused_before_the_teacher_answers_for_all(teacher, monkeypatch):
    monkeypatch.setattr(learning, "with_teacher_logits", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(TypeError, match="neither distill nor fit has an option 'batchsize'"):
        distill(teacher, student_net(), blobs(8), epochs=1, batchsize=4)
    far = Dataset(blobs(8).images, np.arange(8))
    with pytest.raises(ValueError, match=r"labels go up to 7, but the model has 5 outputs"):
        distill(teacher, student_net(), far, epochs=1)


def test_an_optimizer_of_another_model_is_refused(teacher):
    with pytest.raises(ValueError, match="holds none of the model's parameters"):
        distill(teacher, student_net(), blobs(8), epochs=1, optimizer=sgd(student_net()))


def test_other_numbers_of_classes_are_refused(teacher):
    student = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    with pytest.raises(ValueError, match="teacher tells 5 classes apart, the student 3"):
        distill(teacher, student, blobs(8), epochs=1)


def test_an_objective_of_ones_own_belongs_to_fit(teacher):
    with pytest.raises(TypeError, match="distill brings its own objective"):
        distill(teacher, student_net(), blobs(8), epochs=1, objective=DistillationObjective())


def test_a_batch_without_teacher_logits_is_refused():
    objective = DistillationObjective()
    with pytest.raises(ValueError, match=r"holds no teacher logits; train on with_teacher_logits"):
        objective(student_net(), *blobs(4).arrays)


def test_who_does_not_take_the_images_is_named(teacher):
    flat, data = nn.Sequential(nn.Flatten(), nn.Linear(24, CLASSES)), blobs(8)
    with pytest.raises(ValueError, match=r"teacher does not take .* float32 \(1, 5, 5\): linear"):
        distill(flat, student_net(), data, epochs=1)
    student = "the student does not take these images, float32"
    with pytest.raises(ValueError, match=student) as found:
        distill(teacher, flat, data, epochs=1)
    assert "in 1: Linear" in found.value.__notes__
    with pytest.raises(ValueError, match=r"the teacher does not take .* do not mix"):
        distill(teacher.copy().to(np.float64), student_net(), data, epochs=1)


def test_in_float64_the_student_is_trained_in_float64(teacher):
    data = blobs(8)
    double = Dataset(data.images.astype(np.float64), data.labels)
    terms = [Hint("conv", "fc1", 0.01), Relations(), Decoupled(0.1)]
    student = student_net().to(np.float64)
    small = distill(teacher.to(np.float64), student, double, epochs=1, terms=terms)
    assert {p.dtype for p in small.parameters()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("answer", [np.nan, np.inf])
@pytest.mark.parametrize("augment", [None, shifted])
def test_a_teacher_that_answers_no_numbers_is_refused(teacher, answer, augment):
    teacher.fc2.bias.data[0] = answer
    with pytest.raises(ValueError, match=rf"the teacher answers \[ *{answer}"):
        distill(teacher, student_net(), blobs(8), epochs=1, augment=augment)


def test_the_image_for_which_a_teacher_answers_no_numbers_is_named():
    images = blobs(8).images
    images[5] = 1e30
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 3), nn.Linear(3, CLASSES))
    model[1].weight.data[:] = 1e10
    with pytest.raises(ValueError, match=r"for image 5, which nobody can learn from"):
        with_teacher_logits(model, Dataset(images))


def test_what_is_no_student_no_data_and_no_teacher_is_refused_by_name(teacher):
    for arguments, message in [
        ((teacher, student_net, blobs(8)), "student must be a model, got a function"),
        ((teacher, student_net(), blobs(8).images), "data must be a tc.data.Dataset, got ndarray"),
        ((None, student_net(), blobs(8)), "teacher must be a model or several, got a NoneType"),
    ]:
        with pytest.raises(TypeError, match=message):
            distill(*arguments, epochs=1)
    with pytest.raises(TypeError, match="teacher_weights must be a list of numbers"):
        distill(teacher, student_net(), blobs(8), epochs=1, teacher_weights=1.0)


@pytest.mark.parametrize("terms", [None, [Hint("conv", "fc1", 0.1)]], ids=["formula", "hint"])
def test_a_frozen_student_is_refused_and_a_frozen_layer_stays(teacher, terms):
    """The adapter of a hint must not be all that learns."""
    student = student_net()
    student.conv.weight.requires_grad = False
    small = distill(teacher, student, blobs(64), epochs=1, terms=terms)
    np.testing.assert_array_equal(small.conv.weight.data, student.conv.weight.data)
    assert not np.array_equal(small.fc.weight.data, student.fc.weight.data)
    for p in student.parameters():
        p.requires_grad = False
    with pytest.raises(ValueError, match="no parameter that can be trained"):
        distill(teacher, student, blobs(8), epochs=1, terms=terms)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_of_one_sample_are_learned_from(teacher, batch_size):
    student = student_net()
    terms = [Relations(), Decoupled(0.1), Hint("conv", "fc1", 0.01)]
    small = distill(teacher, student, blobs(4), epochs=1, batch_size=batch_size, terms=terms)
    assert all(np.isfinite(p.data).all() for p in small.parameters())
    assert snapshot(small)[0] != snapshot(student)[0]
