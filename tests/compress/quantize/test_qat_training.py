"""Quantization, pruning masks and distillation in one run of ``fit``, whoever computes it."""

import sys

import numpy as np
import pytest
from qat_models import blobs, cnn

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.compress.distill import DistillationObjective
from tinycompress.compress.quantize import QuantConfig, switch
from tinycompress.data import RandomShift
from tinycompress.train import Callback, EarlyStopping, Workers, evaluate, fit, value_and_grad

EVERYTHING = {
    "observed": QuantConfig(bits=3, activations=4, observer="moving_average"),
    "learned": QuantConfig(bits=2, activations=3, learn_step=True),
    "histogram": QuantConfig(bits=4, activations=4, observer="mse", weight_observer="mse"),
    "weights only": QuantConfig(bits=2, learn_step=True),
}


def with_norm():
    """A network that draws random numbers and has everything else, too."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 3, padding=1, bias=False),
            "norm1": nn.BatchNorm2d(6),
            "relu1": nn.ReLU(),
            "pool1": nn.AvgPool2d(2),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.2),
            "fc1": nn.Linear(96, 12),
            "relu2": nn.ReLU(),
            "fc2": nn.Linear(12, 4),
        }
    )


def bits(model):
    """Every parameter and buffer as bytes, by name; of parameters also the masks."""
    state = {name: array.tobytes() for name, array in model.state_dict().items()}
    for name, p in model.named_parameters():
        state[f"mask of {name}"] = None if p.mask is None else p.mask.tobytes()
    return state


class Freeze(Callback):
    """No more observing from epoch 2 on: a switch that forked workers must see."""

    def on_epoch_begin(self, run):
        if run.epoch == 2:
            switch(run.model, observing=False)


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            run.stop()


def start(config, *, epochs=3, callbacks=(), calibrated=False, **options):
    """(model, history): pruned, distilled, augmented, with a schedule and callbacks, quantized."""
    tc.manual_seed(0)
    teacher = with_norm()
    fit(teacher, blobs(), 1, optim.Adam(teacher.parameters(), lr=0.01), workers=1)
    student = tc.prune(with_norm(), sparsity=0.5)
    prepared = tc.prepare_qat(student, config, blobs() if calibrated else None)
    optimizer = optim.SGD(prepared.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    history = fit(
        prepared,
        blobs(100),
        epochs,
        optimizer,
        batch_size=32,
        shard_size=8,
        objective=DistillationObjective(temperature=2.0, alpha=0.5, teacher=teacher),
        schedule=optim.CosineAnnealingLR(optimizer, 3),
        augment=RandomShift(1),
        clip_grad_norm=5.0,
        validate=blobs(50, seed=3),
        callbacks=[EarlyStopping(5), Freeze(), *callbacks],
        resume="checkpoint" in options,
        **options,
    )
    return prepared, history


def figures(history):
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in e.items() if k not in timed} for e in history.to_list()]


# ----------------------------------------------------------------------------- all in one training


@pytest.mark.parametrize("name", EVERYTHING)
def test_pruning_distillation_and_quantization_in_one_run(name):
    prepared, history = start(EVERYTHING[name], workers=1)
    assert history[-1].loss < history[0].loss
    quantized = tc.convert(prepared)
    for layer in ("conv1", "fc1", "fc2"):
        mask = getattr(prepared, layer).weight.mask
        assert not getattr(prepared, layer).weight.data[~mask].any(), "zero stays zero"
        assert not getattr(quantized, layer).weight_codes[~mask].any()
    images = blobs(50, seed=4).images
    with nn.fusion(False):
        expected = prepared.eval()(images).data
        np.testing.assert_array_equal(quantized(images).data, expected)


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_the_number_of_workers_does_not_matter(name, kind):
    """The first step too, in which nothing is known: each shard has its own range."""
    if kind == "process" and sys.platform != "linux":
        pytest.skip("processes are forked on Linux")
    alone, history = start(EVERYTHING[name], workers=1)
    with Workers(2, kind=kind) as team:
        together, same = start(EVERYTHING[name], workers=team)
    assert bits(alone) == bits(together)
    assert figures(history) == figures(same)


@pytest.mark.parametrize("name", ["observed", "learned"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_run_that_was_stopped_goes_on_to_the_bit(name, calibrated, tmp_path):
    whole, history = start(EVERYTHING[name], calibrated=calibrated, workers=1)
    file = tmp_path / "run.safetensors"
    options = {"calibrated": calibrated, "checkpoint": file, "checkpoint_every": 1}
    for step in (1, 6):
        start(EVERYTHING[name], callbacks=[StopAt(step)], workers=2, **options)
    resumed, same = start(EVERYTHING[name], workers=2, **options)
    assert bits(resumed) == bits(whole)
    assert figures(same) == figures(history)


def test_callbacks_see_and_change_the_run():
    model, _ = start(EVERYTHING["observed"], workers=1)
    assert not any(m.observing for m in model.modules() if hasattr(m, "observing"))


def test_evaluation_changes_nothing():
    prepared, _ = start(EVERYTHING["observed"], epochs=1, workers=1)
    before = bits(prepared)
    prepared.train()
    switch(prepared, observing=True)
    evaluate(prepared, blobs(64, seed=9), workers=2)
    assert bits(prepared) == before


def test_a_step_that_diverges_leaves_the_ranges_alone(rng):
    """Notes of a step whose loss is not finite are dropped, as for batch norm."""
    prepared = tc.prepare_qat(cnn(), QuantConfig(activations=8), blobs())
    before = bits(prepared)
    data = blobs(16)

    def objective(model, images, labels):
        outputs = model(images)
        return (outputs * np.inf).sum() * 0, outputs

    value_and_grad(objective, prepared, (5 * data.images, data.labels), workers=1)
    assert bits(prepared) == before


# ---------------------------------------------------------------------------------- does it learn?


def digits():
    train, test = tc.data.mnist()
    return train.take(1500), test.take(500)


@pytest.fixture(scope="module")
def float_model():
    """TinyCNN, trained for two epochs."""
    tc.manual_seed(0)
    model = tc.models.TinyCNN()
    fit(model, digits()[0], 3, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model


def test_two_bits_with_training_are_far_better_than_without(float_model):
    train, test = digits()
    config = QuantConfig(bits=2, activations=2, learn_step=True)
    prepared = tc.prepare_qat(float_model, config, train.take(200))
    after_training = evaluate(tc.convert(prepared), test).loss
    fit(prepared, train, 2, optim.Adam(prepared.parameters(), lr=0.005), workers=1)
    in_training = evaluate(tc.convert(prepared), test).loss
    as_floats = evaluate(float_model, test).loss
    assert as_floats < in_training < 0.8 * after_training


@pytest.mark.parametrize("bits", [1, 2])
def test_a_few_steps_lower_the_loss(float_model, bits):
    train, _ = digits()
    config = QuantConfig(bits=bits, activations=4, weight_observer="mse")
    prepared = tc.prepare_qat(float_model, config, train.take(200))
    history = fit(prepared, train, 3, optim.Adam(prepared.parameters(), lr=0.003), workers=1)
    assert history[-1].loss < 0.85 * history[0].loss


def test_steps_are_learned_where_they_are_parameters(float_model):
    train, _ = digits()
    config = QuantConfig(bits=3, activations=3, learn_step=True)
    prepared = tc.prepare_qat(float_model, config, train.take(100))
    steps = {n: p.data.copy() for n, p in prepared.named_parameters() if n.endswith("step")}
    assert set(steps) == {
        "conv1.weight_quantizer.step",
        "conv1.input_quantizer.step",
        "conv1.output_quantizer.step",
        "conv2.weight_quantizer.step",
        "conv2.output_quantizer.step",
        "fc.weight_quantizer.step",
    }
    fit(prepared, train, 1, optim.Adam(prepared.parameters(), lr=0.001), workers=1)
    for name, p in prepared.named_parameters():
        if name in steps:
            assert not np.array_equal(p.data, steps[name]), name
            np.testing.assert_allclose(p.data, steps[name], rtol=0.5)


def test_without_calibration_the_first_step_initialises_what_is_learned():
    data = blobs(32)
    prepared = tc.prepare_qat(cnn(), QuantConfig(bits=8, activations=8, learn_step=True))
    value_and_grad(_cross_entropy, prepared, (data.images, data.labels), shard_size=8, workers=1)
    step = prepared.conv1.input_quantizer.step.data
    mean, above = np.abs(data.images).astype(float).mean(), 255 - _zero_of(data.images)
    np.testing.assert_allclose(step, 2 * mean / np.sqrt(max(above, 255 - above)), rtol=1e-6)
    before = bits(prepared)
    value_and_grad(_cross_entropy, prepared, (9 * data.images, data.labels), workers=1)
    assert bits(prepared) == before, "only an optimizer changes them now"


def _zero_of(x):
    lo, hi = float(x.min()), float(x.max())
    return np.rint(-lo / ((hi - lo) / 255))


def _cross_entropy(model, images, labels):
    outputs = model(images)
    return F.cross_entropy(outputs, labels), outputs
