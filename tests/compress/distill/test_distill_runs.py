"""Distillation on any number and kind of workers, interrupted, quantized and pruned in one run."""

import numpy as np
import pytest
from distill_models import CLASSES, bits, blobs, plain_student, student_net, teacher_net

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.distill import (
    Attention,
    Decoupled,
    Ensemble,
    Hint,
    LogitMatching,
    Relations,
    compare,
    distill,
)
from tinycompress.compress.prune.gradual import GradualPruning
from tinycompress.data import Dataset, RandomShift
from tinycompress.train import Callback, CheckpointError, Workers, evaluate, fit

EVERYTHING = [
    Hint("conv", "conv", 1e-3),
    Hint("relu", "fc1", 1e-3),
    Attention("relu", "pool", 0.5),
    Relations("flatten", "fc1", 0.5),
    LogitMatching(0.01),
    Decoupled(0.05),
]


@pytest.fixture(scope="module")
def teacher():
    model = teacher_net()
    fit(model, blobs(1000), 8, optim.Adam(model.parameters(), lr=3e-3), workers=1)
    return model


def learn(teacher, start, terms, **options):
    tc.manual_seed(7)
    optimizer = optim.SGD(start.parameters(), lr=0.02, momentum=0.9)
    options = {"epochs": 2, "batch_size": 29, "shard_size": 8, "seed": 3, **options}
    return distill(teacher, start, blobs(120), terms=terms, optimizer=optimizer, **options)


# ----------------------------------------------------------------------------------- workers


@pytest.mark.parametrize("augment", [None, RandomShift(1)], ids=["fixed", "augmented"])
@pytest.mark.parametrize("terms", [None, EVERYTHING], ids=["formula", "everything"])
def test_the_same_bits_for_any_number_and_kind_of_workers(terms, augment, teacher):
    start = student_net()
    alone = bits(learn(teacher, start, terms, augment=augment, workers=1))
    for count, kind in ((2, "thread"), (3, "thread"), (2, "process"), (3, "process")):
        with Workers(count, kind=kind) as workers:
            found = learn(teacher, start, terms, augment=augment, workers=workers)
        assert bits(found) == alone, (count, kind)


def test_the_teacher_is_untouched_to_the_bit_and_has_no_gradient_and_no_hooks(teacher):
    before, modes = bits(teacher), [m.training for m in teacher.modules()]
    with Workers(2, kind="process") as workers:
        learn(teacher, student_net(), EVERYTHING, workers=workers)
    assert bits(teacher) == before
    assert [m.training for m in teacher.modules()] == modes
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(m._hooks for m in teacher.modules())


def test_two_teachers_and_all_terms_have_the_same_bits_too(teacher):
    start, both = student_net(), [teacher, teacher_net()]
    terms = [Hint("conv", "conv", 1e-3, teacher=1), Relations(teacher=1)]
    results = [
        bits(learn(both, start, terms, teacher_weights=[2, 1], workers=count)) for count in (1, 2)
    ]
    assert results[0] == results[1]


# -------------------------------------------------------------------------- interrupted and resumed


class Interrupt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("terms", [None, EVERYTHING], ids=["formula", "everything"])
def test_a_resumed_run_ends_with_the_same_bits(terms, teacher, tmp_path):
    start, file = student_net(), tmp_path / "student.safetensors"
    whole = bits(learn(teacher, start, terms, workers=1))
    options = {"checkpoint": file, "checkpoint_every": 2, "resume": True, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        learn(teacher, start, terms, callbacks=[Interrupt(7)], **options)
    assert bits(learn(teacher, start, terms, **options)) == whole


@pytest.mark.parametrize("other", [{"temperature": 2.0}, {"alpha": 0.5}, {"terms": EVERYTHING[1:]}])
def test_a_run_with_another_loss_is_not_gone_on_with(other, teacher, tmp_path):
    start, file = student_net(), tmp_path / "student.safetensors"
    given = {"terms": EVERYTHING, "checkpoint": file, "resume": True, "workers": 1}
    learn(teacher, start, epochs=1, **given)
    with pytest.raises(CheckpointError):
        learn(teacher, start, **{**given, **other})


@pytest.mark.parametrize("terms", [None, EVERYTHING], ids=["formula", "everything"])
@pytest.mark.parametrize("several", [False, True])
def test_a_run_with_another_teacher_is_not_gone_on_with(terms, several, teacher, tmp_path):
    start, file = student_net(), tmp_path / "student.safetensors"
    given = {"terms": terms, "checkpoint": file, "resume": True, "workers": 1}
    other = teacher.copy()
    other.fc1.bias.data[0] += 0.5
    learn([teacher, teacher] if several else teacher, start, epochs=1, **given)
    with pytest.raises(CheckpointError, match="teachers="):
        learn([teacher, other] if several else other, start, **given)
    learn([teacher, teacher.copy()] if several else teacher.copy(), start, **given)


@pytest.mark.parametrize("terms", [None, EVERYTHING[4:]], ids=["formula", "terms"])
@pytest.mark.parametrize("other", [{"weights": [1, 0]}, {"mean": "probabilities"}])
def test_an_ensemble_of_the_same_models_may_be_another_teacher(other, terms, teacher, tmp_path):
    start, models = student_net(), [teacher, teacher_net()]
    given = {"terms": terms, "checkpoint": tmp_path / "c", "resume": True, "workers": 1}
    learn(Ensemble(models), start, epochs=1, **given)
    with pytest.raises(CheckpointError, match="teachers="):
        learn(Ensemble(models, **other), start, **given)
    learn(Ensemble(models).copy(), start, **given)


# ------------------------------------------------------------------------ quantized and pruned


def options_of(name):
    return {
        "quantized": (True, None),
        "pruned": (False, 0.7),
        "quantized and pruned": (True, 0.7),
    }[name]


@pytest.mark.parametrize("name", ["quantized", "pruned", "quantized and pruned"])
@pytest.mark.parametrize("terms", [None, EVERYTHING], ids=["formula", "everything"])
def test_a_student_is_quantized_and_pruned_while_it_learns(name, terms, teacher):
    quantized, sparsity = options_of(name)
    start = plain_student()
    if quantized:
        config = tc.QuantConfig(bits=4, activations=8)
        start = tc.prepare_qat(start, config, blobs(64))
    results = []
    for count in (1, 2):
        callbacks = [GradualPruning(sparsity, every=2)] if sparsity else []
        results.append(learn(teacher, start, terms, callbacks=callbacks, workers=count))
    small = results[0]
    assert bits(small) == bits(results[1])
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in start.named_parameters()]
    if sparsity:
        weights = [small.conv.weight, small.fc.weight]
        zeros = sum(int((w.data == 0).sum()) for w in weights)
        assert zeros == round(sparsity * sum(w.size for w in weights))
        assert start.conv.weight.mask is None, "the one that was given is not pruned"
    if quantized:
        integer = tc.convert(small.eval())
        found = compare(teacher, integer, blobs(200, seed=2))
        before = compare(teacher, tc.convert(start.copy().eval()), blobs(200, seed=2))
        assert found.agreement > before.agreement


def test_pruned_quantized_and_distilled_is_resumed_with_the_same_bits(teacher, tmp_path):
    start = tc.prepare_qat(plain_student(), tc.QuantConfig(bits=4, activations=8), blobs(64))
    file = tmp_path / "student.safetensors"

    def run(*callbacks, **options):
        callbacks = [GradualPruning(0.7, every=2), *callbacks]
        return learn(teacher, start, EVERYTHING, callbacks=callbacks, workers=1, **options)

    whole = bits(run())
    options = {"checkpoint": file, "checkpoint_every": 2, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        run(Interrupt(6), **options)
    assert bits(run(**options)) == whole


# ------------------------------------------------------------------------------- is it really on


def adam(model):
    return optim.Adam(model.parameters(), lr=0.01)


class Wrong(nn.Module):
    """Answers the opposite."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return -1.0 * self.inner(x)


@pytest.mark.parametrize(
    "loss",
    [
        {"alpha": 0.9},
        {"alpha": 0.5, "terms": [LogitMatching(1.0)]},
        {"alpha": None, "terms": [Decoupled(1.0, alpha=1.0, beta=1.0)]},
    ],
    ids=["softened", "matching", "decoupled"],
)
def test_a_wrong_teacher_makes_the_student_worse(loss, teacher):
    start, data = student_net(), blobs(400)
    options = {"epochs": 4, "optimizer": adam(start), "workers": 1}
    right, wrong = (
        evaluate(distill(t, start, data, **loss, **options), blobs(500, seed=2)).wrong
        for t in (teacher, Wrong(teacher))
    )
    assert right < wrong / 2


def test_a_teacher_of_features_alone_is_listened_to(teacher):
    """No labels and no answers: with a hint alone, the student's layer gives what the teacher's
    does."""
    start, images = student_net(), Dataset(blobs(400).images)
    hint = Hint("fc", "fc2", 1.0, adapter=None)
    small = distill(
        teacher, start, images, epochs=4, alpha=None, terms=[hint], optimizer=adam(start), workers=1
    )
    test = blobs(500, seed=2)
    assert compare(teacher, small, test).agreement > compare(teacher, start, test).agreement + 0.3


def test_images_alone_are_enough(teacher):
    images, start = blobs(400).images, plain_student()
    options = {"epochs": 4, "optimizer": adam(start), "workers": 1}
    small = distill(teacher, start, Dataset(images), alpha=0.2, **options)
    nobody = np.zeros((400, CLASSES), np.float32)
    twin = distill(teacher, start, Dataset(images, nobody), alpha=0.9, **options)
    test = blobs(500, seed=2)
    for name, array in small.state_dict().items():  # without labels, alpha has no part
        np.testing.assert_allclose(array, twin.state_dict()[name], atol=1e-4)
    found, before = (compare(teacher, model, test).student_accuracy for model in (small, start))
    assert found > before + 0.3
