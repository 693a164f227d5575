"""NaN and infinity stop a run at the step where they come up; the weights from before it stay."""

import numpy as np
import pytest
from problems import bits, blobs, cnn, perceptron

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.data import Dataset
from tinycompress.train import (
    Callback,
    NonFiniteLossError,
    Supervised,
    fit,
    read_checkpoint,
)


class Before(Callback):
    """The state of the model after the last step that went well."""

    def on_fit_begin(self, run):
        self.on_step_end(run)

    def on_step_end(self, run):
        self.step, self.state = run.step, bits(run.model)


def sgd(model, lr=0.1):
    return optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def broken(model, optimizer=None, data=None, epochs=3, **options):
    """(the error of a run, what was before it)."""
    before = Before()
    optimizer = optimizer or sgd(model)
    with pytest.raises(NonFiniteLossError) as caught:
        fit(
            model,
            data or blobs(96),
            epochs,
            optimizer,
            batch_size=32,
            callbacks=[before],
            **options,
        )
    return caught.value, before


# ------------------------------------------------------------------------------------ where it was


@pytest.mark.parametrize("workers", [1, 2])
def test_it_names_epoch_batch_operation_and_layer(workers):
    class Logarithm(nn.Module):
        def forward(self, x):
            return (x * 0 - 1).log() if self.training and self.broken else x

    model = nn.Sequential({"first": perceptron(), "second": Logarithm()})
    layer = model.get_submodule("second")
    layer.broken = False

    class Break(Before):
        def on_step_end(self, run):
            super().on_step_end(run)
            layer.broken = run.step == 4

    before = Break()
    with pytest.raises(NonFiniteLossError) as caught:
        fit(model, blobs(96), 3, sgd(model), batch_size=32, callbacks=[before], workers=workers)
    error = caught.value
    assert (error.epoch, error.batch) == (2, 2)
    assert "the loss became nan in epoch 2, batch 2: log: the forward pass produced NaN" in str(
        error
    )
    assert "in second: Logarithm" in error.cause
    assert "smaller learning rate" in str(error)
    assert before.step == 4
    assert bits(model) == before.state


def test_it_is_the_first_operation_that_is_named():
    def objective(model, images, labels):
        outputs = (model(images) * 1e38) * 1e38  # infinity here, and NaN only in what follows
        return F.cross_entropy(outputs, labels), outputs

    error, _ = broken(perceptron(), objective=objective)
    assert error.cause.startswith("multiply: the forward pass produced infinity")


def test_with_dropout_the_same_mask_is_used_to_find_it():
    """The division by zero happens where dropout leaves nothing, which few masks do."""

    class Inverse(nn.Module):
        def forward(self, x):
            return x / x.sum(axis=1, keepdim=True)

    for seed in range(3):
        tc.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.95), Inverse(), nn.Linear(36, 4))
        data = Dataset(np.ones((96, 1, 6, 6), np.float32), blobs(96).labels)
        error, _ = broken(model, data=data)
        assert error.cause.startswith("divide: the forward pass produced NaN")


# ------------------------------------------------------------------------------ nothing is poisoned


def test_a_learning_rate_that_is_far_too_large(tmp_path):
    """Whatever overflows first, what it leaves is finite, and so is the checkpoint."""
    file, model = tmp_path / "run.safetensors", perceptron()
    data = Dataset(blobs(96).images * 1e3, blobs(96).labels)
    error, before = broken(model, sgd(model, 1e25), data, checkpoint=file, checkpoint_every=1)
    assert before.step >= 1
    assert error.batch == before.step + 1
    assert bits(model) == before.state
    assert all(np.isfinite(array).all() for array in model.state_dict().values())
    assert all(np.isfinite(a).all() for a in read_checkpoint(file).arrays.values())
    assert read_checkpoint(file).state["step"] == before.step


def test_running_statistics_stay_as_they_were():
    model = cnn()

    def objective(model, images, labels):
        loss, outputs = Supervised()(model, images * float("inf"), labels)
        return loss, outputs

    error, before = broken(model, objective=objective)
    assert (error.epoch, error.batch, before.step) == (1, 1, 0)
    assert bits(model) == before.state


def test_a_gradient_that_is_not_finite_though_the_loss_is():
    def objective(model, images, labels):
        outputs = model(images)
        return F.cross_entropy(outputs, labels) + (outputs * 0).sum().sqrt(), outputs  # √0: slope ∞

    model = perceptron()
    error, before = broken(model, objective=objective)
    assert "the gradient by fc1.weight became NaN or infinite in epoch 1, batch 1" in str(error)
    assert error.cause.startswith("sqrt: the backward pass produced infinity")
    assert bits(model) == before.state


def test_an_update_that_overflows_is_not_returned_as_a_trained_model():
    model = perceptron()
    data = Dataset(blobs(32).images * 1e3, blobs(32).labels)
    error, _ = broken(model, sgd(model, lr=1e38), data, epochs=1)
    assert "fc1.weight became NaN or infinite in epoch 1, batch 1: an update overflowed" in str(
        error
    )


def test_running_statistics_that_overflow_do_not_reach_a_checkpoint(tmp_path):
    """Batch norm divides by the root of the infinite variance, and the loss is a number."""
    file, model = tmp_path / "run.safetensors", cnn()
    data = Dataset(blobs(32).images * 1e22, blobs(32).labels)
    error, _ = broken(model, data=data, checkpoint=file)
    assert "norm.running_var became NaN or infinite in epoch 1, batch 1" in str(error)
    assert not file.exists()


def test_a_buffer_that_begins_with_infinity_may_keep_it(tmp_path):
    model = perceptron()
    model.register_buffer("lowest", np.float32([np.inf]))
    fit(model, blobs(96), 1, sgd(model), checkpoint=tmp_path / "run.safetensors")


def test_weights_that_were_not_finite_to_begin_with():
    model = perceptron()
    model.get_submodule("fc2").bias.data[1] = np.nan
    error, _ = broken(model)
    assert error.cause == "the weights fc2.bias were no longer finite before this step"


def test_an_augmentation_that_makes_nan():
    error, _ = broken(perceptron(), augment=lambda images, generator: images * np.float32("nan"))
    assert "the batch itself holds NaN or infinity, which the augmentation must have made" in str(
        error
    )


def test_a_loss_that_no_operation_made():
    def objective(model, images, labels):
        loss, outputs = Supervised()(model, images, labels)
        loss.data = np.asarray(np.float32("nan"))
        return loss, outputs

    error, _ = broken(perceptron(), objective=objective)
    assert error.cause.startswith("no single operation produced it")


# --------------------------------------------------------------------------------------- elsewhere


def test_the_run_can_go_on_from_the_checkpoint_with_other_settings_named(tmp_path):
    file = tmp_path / "run.safetensors"
    whole = perceptron()
    model = whole.copy()
    fit(whole, blobs(96), 2, sgd(whole), batch_size=32)

    class Poison(Callback):
        def on_epoch_begin(self, run):
            if run.epoch == 1:
                run.model.get_submodule("fc1").weight.data[0, 0] = np.nan

    with pytest.raises(NonFiniteLossError, match="epoch 2, batch 1"):
        fit(model, blobs(96), 2, sgd(model), batch_size=32, checkpoint=file, callbacks=[Poison()])
    fit(model, blobs(96), 2, sgd(model), batch_size=32, checkpoint=file, resume=True)
    assert bits(model) == bits(whole)


def test_a_validation_loss_that_is_nan_does_not_keep_a_run_from_its_checkpoint(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return x if self.training else x * float("nan")

    model, file = nn.Sequential({"net": perceptron(), "odd": Odd()}), tmp_path / "run.safetensors"
    options = {"validate": blobs(32), "checkpoint": file}
    history = fit(model, blobs(96), 1, sgd(model), **options)
    assert np.isnan(history[0].val_loss)
    resumed = fit(model, blobs(96), 2, sgd(model), resume=True, **options)
    assert np.isnan(resumed[0].val_loss)
