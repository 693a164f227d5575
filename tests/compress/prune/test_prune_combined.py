"""Pruning while codes are trained, while a teacher teaches, and all three in one run."""

import numpy as np
import pytest
from test_gradual import Interrupt, assert_same_bits
from test_prune_masks import accuracy, blobs, net

import tinycompress as tc
from tinycompress import optim
from tinycompress.backend import to_numpy
from tinycompress.compress.distill import DistillationObjective, with_teacher_logits
from tinycompress.compress.prune import (
    DynamicSurgery,
    GradualPruning,
    MovementPruning,
    lottery_ticket,
    prune_iteratively,
)
from tinycompress.train import Workers, fit

TARGET = round(0.7 * 216)
RAMPS = {
    "gradual": lambda: GradualPruning(0.7, every=2),
    "taylor": lambda: GradualPruning(0.7, importance="taylor", data=blobs(64), every=4),
    "surgery": lambda: DynamicSurgery(0.7, every=2, margin=0.2),
    "movement": lambda: MovementPruning(0.7, every=2),
}
QUANTIZATION = {
    "weights": tc.QuantConfig(bits=4, activations=None),
    "integers": tc.QuantConfig(bits=8, activations=8),
    "learned": tc.QuantConfig(bits=4, activations=8, learn_step=True),
}
each_ramp = pytest.mark.parametrize("ramp", RAMPS.values(), ids=RAMPS)
each_config = pytest.mark.parametrize("config", QUANTIZATION.values(), ids=QUANTIZATION)


@pytest.fixture(scope="module")
def teacher():
    tc.manual_seed(0)
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    fit(model, blobs(512), 6, optimizer, batch_size=32)
    return model


def train(model, data, callbacks, epochs=4, **options):
    optimizer = optim.Adam(model.parameters(), lr=0.005)
    options = {"batch_size": 32, "workers": 1} | options
    fit(model, data, epochs, optimizer, callbacks=callbacks, **options)
    return model


def masks(model):
    return {n: to_numpy(p.mask) for n, p in model.named_parameters() if p.mask is not None}


def assert_pruned(model):
    kept = masks(model)
    assert sum(int((~m).sum()) for m in kept.values()) == TARGET
    for name, p in model.named_parameters():
        if name in kept:
            assert not to_numpy(p.data)[~kept[name]].any()


def assert_zeros_survive(prepared, converted):
    """What is masked has the code of 0, so that the float that it stands for is 0 exactly."""
    for name, mask in masks(prepared).items():
        floats = converted.get_submodule(name.removesuffix(".weight")).weight.data
        assert not floats[~mask].any(), name
        assert floats[mask].any(), name


# ---------------------------------------------------------------------------------------- pairs


@each_config
@each_ramp
def test_pruned_while_codes_are_trained(teacher, ramp, config):
    prepared = tc.prepare_qat(teacher, config, blobs(64))
    train(prepared, blobs(256), [ramp()])
    assert_pruned(prepared)
    converted = tc.convert(prepared)
    assert_zeros_survive(prepared, converted)
    assert accuracy(converted) > 0.6, "chance is 0.2"


@each_config
def test_pruned_first_and_codes_trained_after(teacher, config):
    thin = train(tc.prune(teacher, 0.7), blobs(256), [])
    prepared = train(tc.prepare_qat(thin, config, blobs(64)), blobs(256), [])
    assert_pruned(prepared)
    assert_zeros_survive(prepared, tc.convert(prepared))


@each_ramp
def test_pruned_while_a_teacher_teaches(teacher, ramp):
    student = train(
        teacher.copy(),
        with_teacher_logits(teacher, blobs(256)),
        [ramp()],
        objective=DistillationObjective(temperature=3, alpha=0.7),
    )
    assert_pruned(student)
    assert accuracy(student) > 0.6, "chance is 0.2"


def test_the_criterion_may_look_at_the_teachers_loss(teacher):
    objective = DistillationObjective(temperature=3, alpha=1.0)
    data = with_teacher_logits(teacher, blobs(256))
    ramp = GradualPruning(0.7, importance="taylor", data=data, objective=objective, every=6)
    assert_pruned(train(teacher.copy(), data, [ramp], objective=objective))


@pytest.mark.parametrize("prepare", [False, True])
def test_rounds_with_a_teacher_and_with_codes(teacher, prepare):
    start = tc.prepare_qat(teacher, QUANTIZATION["integers"], blobs(64)) if prepare else teacher
    objective = DistillationObjective(3, 0.7, teacher)
    options = {"objective": objective, "batch_size": 32, "workers": 1}
    thin = prune_iteratively(start, 0.7, 3, blobs(128), 1, **options)
    assert_pruned(thin)
    ticket = lottery_ticket(start, 0.7, 3, blobs(128), 1, rewind_step=2, **options)
    assert_pruned(ticket.model)
    if prepare:
        assert_zeros_survive(thin, tc.convert(thin))


# --------------------------------------------------------------------------------------- all three


def all_three(teacher, ramp, config, device="cpu", **options):
    prepared = tc.prepare_qat(teacher, config, blobs(64)).to(device)
    objective = DistillationObjective(3, 0.7, teacher.copy().to(device))
    extra = options.pop("callbacks", ())
    return train(prepared, blobs(256), [ramp(), *extra], objective=objective, **options)


@each_config
@each_ramp
def test_all_three_in_one_run(teacher, ramp, config):
    prepared = all_three(teacher, ramp, config)
    assert_pruned(prepared)
    converted = tc.convert(prepared)
    assert_zeros_survive(prepared, converted)
    assert accuracy(converted) > 0.6, "chance is 0.2"


@each_ramp
def test_all_three_on_the_gpu(teacher, ramp, cupy):
    prepared = all_three(teacher, ramp, QUANTIZATION["integers"], "cuda", epochs=2)
    assert_pruned(prepared)


@each_ramp
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_all_three_on_two_workers(teacher, ramp, kind):
    def run(workers):
        options = {"epochs": 2, "shard_size": 8, "workers": workers}
        with workers:
            return all_three(teacher, ramp, QUANTIZATION["integers"], **options)

    assert_same_bits(run(Workers(1)), run(Workers(2, kind)))


@each_ramp
@pytest.mark.parametrize("stop", [5, 13])
def test_all_three_cut_off_and_resumed(teacher, ramp, stop, tmp_path):
    file, config = tmp_path / "run.safetensors", QUANTIZATION["integers"]
    whole = all_three(teacher, ramp, config, epochs=2)
    options = {"epochs": 2, "checkpoint": file}
    with pytest.raises(KeyboardInterrupt):
        all_three(teacher, ramp, config, callbacks=[Interrupt(stop)], **options)
    again = all_three(teacher, ramp, config, resume=True, **options)
    assert_same_bits(whole, again)
    one, other = (tc.convert(m)(tc.tensor(blobs(32).images)).numpy() for m in (whole, again))
    np.testing.assert_array_equal(one, other)
