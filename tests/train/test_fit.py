"""``fit`` learns, and what it does follows from its arguments alone, to the bit."""

import gc
import io
import threading
import tracemalloc

import numpy as np
import pytest
from problems import alive, bits, blas_threads, blobs, cnn, figures, perceptron
from rich.console import Console

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.data import Dataset, RandomShift, batches
from tinycompress.train import Callback, ProgressBar, Supervised, evaluate, fit, value_and_grad


def sgd(model, lr=0.1):
    return optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def trained(make=cnn, epochs=2, data=None, optimizer=sgd, **options):
    """(model, history) of a run from seed 0."""
    tc.manual_seed(0)
    model = make()
    history = fit(model, data or blobs(), epochs, optimizer(model), batch_size=32, **options)
    return model, history


# ---------------------------------------------------------------------------------------- learning


def test_it_learns_patterns_under_noise():
    model, history = trained(perceptron, epochs=8, validate=blobs(500, seed=2))
    assert evaluate(model, blobs(500, seed=2)).accuracy > 0.97
    assert history[-1].val_accuracy == evaluate(model, blobs(500, seed=2)).accuracy
    assert history[-1].loss < 0.3 * history[0].loss


def test_it_learns_digits():
    train, test = tc.data.mnist()
    tc.manual_seed(0)
    model = tc.models.TinyCNN()
    fit(model, train.take(2000), 3, optim.Adam(model.parameters(), lr=0.01), batch_size=50)
    assert evaluate(model, test.take(1000)).accuracy > 0.85


def test_adam_is_the_optimizer_where_none_is_given():
    one = perceptron()
    other = one.copy()
    fit(one, blobs(), 1)
    fit(other, blobs(), 1, optim.Adam(other.parameters()))
    assert bits(one) == bits(other)


def test_it_is_the_loop_that_one_would_write():
    """Step by step: batches, value_and_grad, optimizer."""
    model, _ = trained(perceptron, epochs=2, seed=7)
    tc.manual_seed(0)
    by_hand = perceptron()
    optimizer = sgd(by_hand)
    for epoch in range(2):
        for batch in batches(blobs(), 32, seed=7, epoch=epoch):
            step = value_and_grad(Supervised(), by_hand, batch)
            for p, g in zip(by_hand.parameters(), step.gradients, strict=True):
                p.grad = g
            optimizer.step()
    assert bits(model) == bits(by_hand)


def test_a_regression():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    data = Dataset(x, x @ np.float32([[1, 0], [2, 1], [0, -1]]))
    model = nn.Sequential(nn.Linear(3, 2))
    history = fit(
        model, data, 20, sgd(model), validate=data, objective=Supervised(F.mse_loss), batch_size=20
    )
    assert history[-1].loss < 1e-6
    assert history[-1].accuracy is history[-1].val_accuracy is None
    assert history[-1].val_loss == pytest.approx(float(F.mse_loss(model(x), data.labels).item()))


# ------------------------------------------------------------------------------ the same to the bit


@pytest.mark.parametrize("make", [perceptron, cnn])
def test_workers_and_repetition_change_nothing(make):
    options = {"augment": RandomShift(1), "validate": blobs(50, seed=3)}
    first, history = trained(make, workers=1, **options)
    for workers in (1, 2, 3, None):
        model, again = trained(make, workers=workers, **options)
        assert bits(model) == bits(first)
        assert figures(again) == figures(history)


def test_progress_changes_nothing():
    first, history = trained()
    shown = io.StringIO()
    bar = ProgressBar(console=Console(file=shown, force_terminal=True, width=120))
    model, again = trained(callbacks=[bar])
    assert bits(model) == bits(first)
    assert figures(again) == figures(history)
    assert "epoch 2/2" in shown.getvalue()
    assert "14/14" in shown.getvalue()
    for word in ("loss", "accuracy", "images/s"):
        assert word in shown.getvalue()


def test_progress_goes_to_standard_error(capfd):
    trained(progress=True)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"shard_size": 8},
        {"augment": RandomShift(1)},
        {"clip_grad_norm": 0.1},
        {"optimizer": lambda m: sgd(m, lr=0.05)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_ought_to_make_a_difference_does(other):
    assert bits(trained(**other)[0]) != bits(trained()[0])


def test_a_model_in_evaluation_mode_is_trained_in_training_mode():
    tc.manual_seed(0)
    model = cnn().eval()
    fit(model, blobs(), 2, sgd(model), batch_size=32)
    assert bits(model) == bits(trained()[0])


def test_dropout_follows_manual_seed():
    tc.manual_seed(0)
    initial = cnn()

    def run(seed):
        model = initial.copy()
        tc.manual_seed(seed)
        fit(model, blobs(), 1, sgd(model), batch_size=32)
        return bits(model)

    assert run(1) == run(1) != run(2)


def test_two_runs_at_once_on_other_threads_do_not_disturb_each_other():
    alone = perceptron()
    models = [alone.copy() for _ in range(2)]
    fit(alone, blobs(), 2, sgd(alone), workers=2)
    before = blas_threads()
    threads = [
        threading.Thread(target=fit, args=(m, blobs(), 2, sgd(m)), kwargs={"workers": 2})
        for m in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bits(model) for model in models] == [bits(alone)] * 2
    assert blas_threads() == before
    assert not alive()


# ------------------------------------------------------------------------------------------ history


def test_the_history_says_what_happened():
    data, held_out = blobs(100), blobs(60, seed=2)
    seen = []

    class Watch(Callback):
        def on_step_end(self, run):
            seen.append((float(run.loss), run.batch, run.step, run.epoch, run.seen.count))

    model, history = trained(perceptron, data=data, validate=held_out, callbacks=[Watch()])
    assert [(e.epoch, e.lr) for e in history] == [(0, 0.1), (1, 0.1)]
    assert [(batch, step, epoch, count) for _, batch, step, epoch, count in seen] == [
        (1, 1, 0, 32), (2, 2, 0, 64), (3, 3, 0, 96), (4, 4, 0, 100),
        (1, 5, 1, 32), (2, 6, 1, 64), (3, 7, 1, 96), (4, 8, 1, 100),
    ]  # fmt: skip
    losses = [loss for loss, *_ in seen[4:]]
    assert history[1].loss == pytest.approx(np.average(losses, weights=[32, 32, 32, 4]))
    measured = evaluate(model, held_out)
    assert (history[1].val_loss, history[1].val_accuracy) == (measured.loss, measured.accuracy)
    assert 0 < history[0].accuracy < history[1].accuracy <= 1
    assert history[0].seconds > 0
    assert history[0].images_per_second == pytest.approx(100 / history[0].seconds)


def test_a_history_is_a_list_of_epochs_and_json():
    _, history = trained(perceptron)
    assert len(history) == len(list(history)) == 2
    assert history[-1] is history.epochs[1]
    assert type(history).from_list(history.to_list()) == history
    assert history[0].val_loss is history[0].val_accuracy is None


def test_the_validation_loss_is_that_of_the_criterion():
    def doubled(outputs, labels):
        return 2 * F.cross_entropy(outputs, labels)

    model, history = trained(perceptron, validate=blobs(60), objective=Supervised(doubled))
    assert history[-1].val_loss == pytest.approx(2 * evaluate(model, blobs(60)).loss)


# --------------------------------------------------------------------------- clipping, augmentation


def test_clipping_bounds_the_length_of_a_step():
    tc.manual_seed(0)
    model = perceptron()
    lengths = []

    class Watch(Callback):
        def on_fit_begin(self, run):
            self.before = [p.data.copy() for p in run.model.parameters()]

        def on_step_end(self, run):
            now = [p.data.copy() for p in run.model.parameters()]
            moved = sum(((a - b) ** 2).sum() for a, b in zip(now, self.before, strict=True))
            lengths.append(float(np.sqrt(moved)))
            self.before = now

    optimizer = optim.SGD(model.parameters(), lr=1.0)
    fit(model, blobs(), 1, optimizer, batch_size=32, clip_grad_norm=0.01, callbacks=[Watch()])
    assert lengths == pytest.approx([0.01] * 7, rel=1e-3)


def test_augmentation_is_of_the_training_images_only():
    def erase(images, generator):
        assert isinstance(generator, np.random.Generator)
        return np.zeros_like(images)

    model, history = trained(perceptron, augment=erase, validate=blobs(60))
    weight = model.get_submodule("fc1").weight.data
    tc.manual_seed(0)
    assert (weight == perceptron().get_submodule("fc1").weight.data).all(), "zeros teach nothing"
    assert history[-1].val_loss == evaluate(model, blobs(60)).loss


# -------------------------------------------------------------------------------- frozen, masked


def test_frozen_parameters_do_not_move_even_with_an_old_gradient():
    tc.manual_seed(0)
    model = perceptron()
    F.cross_entropy(model(blobs().images), blobs().labels).backward()
    model.get_submodule("fc1").requires_grad_(False)
    before = bits(model)
    fit(model, blobs(), 1, optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    after = bits(model)
    assert {name for name in after if after[name] != before[name]} == {"fc2.weight", "fc2.bias"}
    assert all(p.grad is None for p in model.parameters())


def test_only_what_the_optimizer_holds_is_trained():
    model = perceptron()
    before = bits(model)
    fit(model, blobs(), 1, sgd(model.get_submodule("fc2")), clip_grad_norm=1.0)
    after = bits(model)
    assert {name for name in after if after[name] != before[name]} == {"fc2.weight", "fc2.bias"}


def test_and_only_that_counts_for_clipping():
    """As if all else was frozen: what is not trained has no part in the norm."""
    one = perceptron()
    other = one.copy()
    other.get_submodule("fc1").requires_grad_(False)
    for model in (one, other):
        fit(model, blobs(), 1, sgd(model.get_submodule("fc2")), clip_grad_norm=0.01)
    assert bits(one) == bits(other)


def test_layers_may_be_freed_at_the_start_of_an_epoch():
    moved = []

    class FreeLater(Callback):
        def on_epoch_begin(self, run):
            self.before = bits(run.model)
            run.model.get_submodule("fc1").requires_grad_(run.epoch == 1)

        def on_epoch_end(self, run):
            after = bits(run.model)
            moved.append([name for name in after if after[name] != self.before[name]])

    trained(perceptron, callbacks=[FreeLater()])
    assert moved == [
        ["fc2.weight", "fc2.bias"],
        ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"],
    ]


@pytest.mark.parametrize("optimizer", [sgd, lambda m: optim.AdamW(m.parameters(), lr=0.01)])
def test_masked_weights_stay_zero(optimizer):
    tc.manual_seed(0)
    model = cnn()
    weight = model.get_submodule("fc").weight
    weight.mask = np.random.default_rng(0).random(weight.shape) < 0.3
    weight.data *= weight.mask
    fit(model, blobs(), 2, optimizer(model), batch_size=32)
    assert not weight.data[~weight.mask].any()
    assert weight.data[weight.mask].all()


def test_the_model_is_left_ready_and_the_optimizer_without_gradients():
    model, _ = trained()
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert not alive()


# ------------------------------------------------------------------------------------------ memory


def test_memory_does_not_grow_over_200_steps():
    sizes = []

    class Measure(Callback):
        def on_step_end(self, run):
            if run.step in (20, 220):
                gc.collect()
                sizes.append((tracemalloc.get_traced_memory()[0], len(gc.get_objects())))

    tracemalloc.start()
    try:
        trained(epochs=2, data=blobs(110 * 32), callbacks=[Measure()], workers=2)
    finally:
        tracemalloc.stop()
    (bytes_before, objects_before), (bytes_after, objects_after) = sizes
    assert bytes_after - bytes_before < 200 * 100
    assert objects_after - objects_before < 200


@pytest.mark.parametrize(
    ("validate", "words"),
    [
        (lambda: Dataset(blobs(8).images, np.full(8, 77)), "the labels of validate go up to 77"),
        (lambda: Dataset(np.ones((8, 1, 5, 5), np.float32), np.zeros(8, int)), "linear|conv2d"),
    ],
)
def test_validation_data_that_do_not_fit_are_refused_before_training(validate, words):
    model = perceptron()
    before = bits(model)
    with pytest.raises(ValueError, match=words):
        fit(model, blobs(32), 1, optim.SGD(model.parameters(), lr=0.1), validate=validate())
    assert bits(model) == before
