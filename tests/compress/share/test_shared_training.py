"""Fine-tuning the centroids: they move as the paper says, and nothing but them does."""

import numpy as np
import pytest
from share_cases import blobs, bytes_of, network, shared_network
from strict_cupy import counting

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.share import SharedLayer, codebooks, round_to_half, unshare
from tinycompress.train import Callback, CheckpointError, evaluate, fit

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.005, momentum=0.9, nesterov=True),
    "weight decay": lambda p: optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=1e-3),
    "adam": lambda p: optim.Adam(p, lr=0.005),
    "adamw": lambda p: optim.AdamW(p, lr=0.005, weight_decay=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.002),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


class Crash(Callback):
    """An error at the end of a step, after which nothing is saved."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            raise ZeroDivisionError


class Counter(Callback):
    """What every step on a GPU cost, from the end of the one before."""

    def __init__(self):
        self.steps = []

    def on_epoch_begin(self, run):
        self.open = counting()
        self.counts = self.open.__enter__()

    def on_step_end(self, run):
        self.steps.append((self.counts.launches, list(self.counts.syncs)))
        self.counts.launches = 0
        self.counts.syncs.clear()

    def on_epoch_end(self, run):
        self.open.__exit__(None, None, None)


# ------------------------------------------------------------------------------ how they move


@each_optimizer
def test_an_optimizer_moves_centroids_by_the_sums_of_their_weights_gradients(name):
    """Three steps beside a network with free weights, whose gradients are added up by hand."""
    rng = np.random.default_rng(0)
    shared = tc.share_weights(tc.prune(nn.Linear(6, 4), 0.4), 2, init="density").to("float64")
    own = OPTIMIZERS[name](shared.parameters())
    numbers = [nn.Parameter(p.data.copy()) for p in shared.parameters()]  # codebook and bias
    by_hand = OPTIMIZERS[name](numbers)
    for _ in range(3):
        x, y = rng.normal(size=(8, 6)), rng.normal(size=(8, 4))
        own.zero_grad()
        ((shared(x) - y) ** 2).mean().backward()
        own.step()
        table = np.concatenate([[0], numbers[0].data])
        weight = tc.tensor(table[shared.codes], requires_grad=True)
        bias = tc.tensor(numbers[1].data, requires_grad=True)
        loss = ((F.linear(x, weight, bias) - y) ** 2).mean()
        g, numbers[1].grad = tc.grad(loss, [weight, bias])
        numbers[0].grad = np.array([g[shared.codes == k + 1].sum() for k in range(4)])
        by_hand.step()
    for p, expected in zip(shared.parameters(), numbers, strict=True):
        np.testing.assert_allclose(p.data, expected.data, rtol=1e-10)


@each_optimizer
def test_fit_moves_the_centroids_and_neither_codes_nor_zeros(name):
    model = shared_network()
    before = model.copy()
    fit(model, blobs(), 3, OPTIMIZERS[name](model.parameters()), batch_size=24, workers=1)
    for layer, old in zip(model, before, strict=True):
        if isinstance(layer, SharedLayer):
            np.testing.assert_array_equal(layer.codes, old.codes)
            assert (layer.codebook.data != old.codebook.data).all()
            np.testing.assert_array_equal(layer.weight.data == 0, old.codes == 0)
            assert np.unique(layer.weight.data).size <= layer.codebook.size + 1


def test_fine_tuning_wins_back_what_sharing_cost():
    """Two centroids beside the zero in each layer."""
    model = network()
    fit(model, blobs(), 15, optim.Adam(model.parameters(), lr=0.01), workers=1)
    pruned = tc.prune(model, 0.5)
    fit(pruned, blobs(), 5, optim.Adam(pruned.parameters(), lr=0.003), workers=1)
    shared = tc.share_weights(pruned, 1)
    tuned = shared.copy()
    fit(tuned, blobs(), 20, optim.Adam(tuned.parameters(), lr=0.003), workers=1)
    test = blobs(400, seed=2)
    losses = [evaluate(m, test, workers=1).loss for m in (pruned, shared, tuned)]
    assert losses[1] > 1.1 * losses[0]
    assert losses[2] < losses[0] + 0.5 * (losses[1] - losses[0])
    assert all(layer.clusters <= 2 for layer in codebooks(tuned).layers)


def test_a_frozen_codebook_stays():
    model = shared_network()
    model.fc1.codebook.requires_grad = False
    before = model.fc1.codebook.data.copy()
    fit(model, blobs(), 1, workers=1)
    np.testing.assert_array_equal(model.fc1.codebook.data, before)


@each_optimizer
def test_a_layer_without_a_weight_left_trains_with_the_others(name):
    model = network()
    model.fc1.weight.data[...] = 0
    shared = tc.share_weights(model, 2)
    before = shared.fc2.bias.data.copy()
    fit(shared, blobs(40), 1, OPTIMIZERS[name](shared.parameters()), workers=1)
    assert shared.fc1.codebook.shape == (0,)
    assert (shared.fc2.bias.data != before).any()


def test_gradients_are_those_of_differences_through_a_network():
    """In float64, centroid by centroid."""
    tc.manual_seed(0)
    model = tc.share_weights(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), 2)
    model.to("float64")
    x, labels = np.random.default_rng(0).normal(size=(7, 5)), np.arange(7) % 3
    books = [model[0].codebook, model[2].codebook]

    def loss():
        return F.cross_entropy(model(x), labels)

    for book, g in zip(books, tc.grad(loss(), books), strict=True):
        for k in range(book.size):
            values = []
            for step in (1e-5, -2e-5):
                book.data[k] += step
                values.append(float(loss()))
            book.data[k] += 1e-5
            assert g[k] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6, abs=1e-10)


# ------------------------------------------------------------------------- in every way of running


def run(model=None, *, name="nesterov", epochs=3, **options):
    """A model after some epochs, and the history, without times."""
    model = shared_network() if model is None else model
    tc.manual_seed(5)
    shift = tc.data.RandomShift(1)
    options = {"batch_size": 40, "shard_size": 16, "augment": shift, **options}
    history = fit(model, blobs(), epochs, OPTIMIZERS[name](model.parameters()), **options)
    return bytes_of(model), [entry.loss for entry in history]


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_result_does_not_depend_on_who_computes_it(kind):
    with tc.train.Workers(2, kind=kind) as workers:
        assert run(workers=workers) == run(workers=1)


def test_a_run_that_crashed_goes_on_as_if_nothing_had_been(tmp_path):
    path = tmp_path / "run.ckpt"
    with pytest.raises(ZeroDivisionError):
        run(checkpoint=path, callbacks=[Crash(5)], workers=1)
    assert path.exists()
    assert run(checkpoint=path, resume=True, workers=1) == run(workers=1)


def test_a_checkpoint_of_another_codebook_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    run(checkpoint=path, epochs=1, workers=1)
    other = tc.share_weights(network(), 2)
    before = bytes_of(other)
    with pytest.raises(CheckpointError, match="codebook"):
        run(other, checkpoint=path, resume=True, workers=1)
    assert bytes_of(other) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_it_learns_from_a_teacher(workers):
    teacher = network()
    fit(teacher, blobs(), 10, optim.Adam(teacher.parameters(), lr=0.01), workers=1)
    student = tc.share_weights(tc.prune(teacher, 0.6), 1)
    before = bytes_of(student)
    learned = tc.distill(
        teacher,
        student,
        blobs(),
        epochs=20,
        alpha=1.0,
        optimizer=optim.Adam(student.parameters(), lr=0.01),
        workers=workers,
    )
    assert bytes_of(student) == before
    np.testing.assert_array_equal(learned.fc1.codes, student.fc1.codes)
    teacher.eval(), student.eval(), learned.eval()
    x = blobs(200, seed=3).images
    wanted = F.softmax(teacher(x)).data
    apart = [np.abs(F.softmax(m(x)).data - wanted).mean() for m in (student, learned)]
    assert apart[1] < 0.7 * apart[0]


def test_free_again_the_members_of_a_centroid_part():
    free = unshare(shared_network())
    fit(free, blobs(), 1, optim.SGD(free.parameters(), lr=0.05), workers=1)
    kept = free.fc1.weight.mask
    assert np.unique(free.fc1.weight.data).size > 9
    np.testing.assert_array_equal(free.fc1.weight.data != 0, kept)


def test_rounding_to_half_costs_next_to_nothing():
    model = shared_network()
    test = blobs(300, seed=4)
    whole, half = (evaluate(m, test, workers=1).loss for m in (model, round_to_half(model)))
    assert half == pytest.approx(whole, rel=2e-3)


# -------------------------------------------------------------------------------------- on a GPU


@each_optimizer
def test_training_on_a_device_is_that_on_a_cpu(device, name):
    results = []
    for place in ("cpu", device):
        model = shared_network().to(place)
        _, losses = run(model, name=name, shard_size=40, epochs=2)
        results.append([*losses, to_numpy(model.fc1.codebook.data), to_numpy(model.norm.bias.data)])
        assert model.fc1.codes.dtype == np.uint8
    for cpu, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, cpu, rtol=1e-3, atol=1e-4)


def test_no_step_waits_for_the_device(cupy):
    watch = Counter()
    run(shared_network().to("cuda"), epochs=1, callbacks=[watch], name="adam")
    assert [syncs for _, syncs in watch.steps] == [[]] * 3


def test_sharing_a_model_on_a_gpu_is_sharing_it_on_a_cpu(cupy):
    models = [
        tc.share_weights(tc.prune(network(), 0.5).to(place), 3) for place in ("cpu", "cuda:1")
    ]
    assert models[1].device == "cuda:1"
    assert bytes_of(models[0]) == bytes_of(models[1])
    assert codebooks(models[0]) == codebooks(models[1])
    halves = [round_to_half(m) for m in models]
    assert halves[1].fc1.codes.device.id == 1
    assert bytes_of(halves[0]) == bytes_of(halves[1])
