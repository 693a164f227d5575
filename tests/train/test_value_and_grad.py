"""A step cut into shards is the gradient of the whole batch, whoever computes the shards."""

import threading

import numpy as np
import pytest
from hypothesis import given, strategies as st
from problems import alive, bits, blobs, cnn, perceptron
from strict_cupy import counting, no_sync

import tinycompress as tc
from tinycompress import functional as F, nn, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.graph import AnomalyError
from tinycompress.tensor import Tensor
from tinycompress.train import Supervised, Workers, value_and_grad
from tinycompress.train.step import shard_slices

DATA = blobs(100)


def batch_of(n):
    return DATA.images[:n], DATA.labels[:n]


def in_float64(model, batch):
    return model.to("float64"), (batch[0].astype(np.float64), batch[1])


def whole_batch(model, images, labels):
    """The gradient as ``backward`` gives it, without shards."""
    loss = F.cross_entropy(model(images), labels)
    return loss.item(), [to_numpy(g) for g in tc.grad(loss, list(model.parameters()))]


def same_bits(one, other):
    assert one.loss.tobytes() == other.loss.tobytes()
    assert one.outputs.tobytes() == other.outputs.tobytes()
    for g, h in zip(one.gradients, other.gradients, strict=True):
        assert g.tobytes() == h.tobytes()


# -------------------------------------------------------------------------------------- the shards


@given(count=st.integers(0, 500), size=st.integers(1, 70))
def test_shards_are_few_even_and_everything(count, size):
    slices = shard_slices(count, size)
    lengths = [s.stop - s.start for s in slices]
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(count))
    assert len(slices) == -(-count // size)
    assert all(0 < n <= size for n in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1


# ---------------------------------------------------------------------------------------- the value


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 65, 100])
def test_it_is_the_gradient_of_the_whole_batch(n):
    model, batch = in_float64(perceptron(), batch_of(n))
    loss, gradients = whole_batch(model, *batch)
    step = value_and_grad(Supervised(), model, batch, workers=1)
    assert float(step.loss) == pytest.approx(loss, rel=1e-13)
    for g, expected in zip(step.gradients, gradients, strict=True):
        np.testing.assert_allclose(g, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(step.outputs, model(batch[0]).numpy(), rtol=1e-12)


@given(n=st.integers(1, 50), shard_size=st.integers(1, 60))
def test_whatever_the_size_of_the_shards(n, shard_size):
    random.manual_seed(1)
    model, batch = in_float64(perceptron(), batch_of(n))
    loss, gradients = whole_batch(model, *batch)
    step = value_and_grad(Supervised(), model, batch, shard_size=shard_size, workers=1)
    assert float(step.loss) == pytest.approx(loss, rel=1e-12)
    for g, expected in zip(step.gradients, gradients, strict=True):
        np.testing.assert_allclose(g, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_in_float32_to_rounding(device):
    model = perceptron().to(device)
    batch = [to_device(array, device) for array in batch_of(100)]
    exact, exact_batch = in_float64(model.copy().to("cpu"), batch_of(100))
    _, gradients = whole_batch(exact, *exact_batch)
    step = value_and_grad(Supervised(), model, batch)
    for g, expected in zip(step.gradients, gradients, strict=True):
        assert g.dtype == np.float32
        np.testing.assert_allclose(
            to_numpy(g), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
        )


def test_two_parameters_with_one_gradient_do_not_share_its_memory():
    model = nn.Sequential(nn.Linear(36, 1))
    model.twin = nn.Parameter(np.zeros(1, np.float32))

    def objective(model, images):
        outputs = model.get_submodule("0")(images.reshape(len(images), -1)) + model.twin
        return outputs.mean(), outputs

    step = value_and_grad(objective, model, batch_of(90)[:1], workers=1)
    _, bias, twin = sorted(step.gradients, key=lambda g: -g.size)
    np.testing.assert_allclose([bias, twin], 1, rtol=1e-6)


# ------------------------------------------------------------------------- the number of workers


@pytest.mark.parametrize("make", [perceptron, cnn])
@pytest.mark.parametrize("n", [2, 32, 33, 97, 100])
def test_any_number_of_workers_gives_the_same_bits(make, n):
    results = []
    for workers in (1, 2, 3, None):
        random.manual_seed(3)
        model = make()
        step = value_and_grad(Supervised(), model, batch_of(n), shard_size=16, workers=workers)
        results.append((step, bits(model)))
    for step, state in results[1:]:
        same_bits(step, results[0][0])
        assert state == results[0][1]


def test_a_team_that_runs_already_is_used_again_and_again():
    model = perceptron()
    expected = value_and_grad(Supervised(), model, batch_of(100), workers=1)
    with Workers(2) as team:
        for _ in range(3):
            same_bits(value_and_grad(Supervised(), model, batch_of(100), workers=team), expected)


def test_work_really_is_shared():
    both = threading.Barrier(2, timeout=10)

    def objective(model, images, labels):
        both.wait()  # breaks unless two shards are on their way at once
        return Supervised()(model, images, labels)

    value_and_grad(objective, perceptron(), batch_of(64), shard_size=32, workers=2)


# --------------------------------------------------------------------------- dropout, batch norm


def test_a_key_is_a_dropout_mask_and_no_key_is_a_fresh_one():
    model = cnn()
    one, other = (value_and_grad(Supervised(), model, batch_of(96), key=5) for _ in range(2))
    same_bits(one, other)
    fresh = value_and_grad(Supervised(), model, batch_of(96))
    assert (fresh.outputs != one.outputs).any()


def test_shards_have_different_dropout_masks():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    model.scale = nn.Parameter(np.ones(1, np.float32))

    def objective(model, images):
        outputs = model(images) * model.scale
        return outputs.mean(), outputs

    ones = np.ones((64, 1, 6, 6), np.float32)
    outputs = value_and_grad(objective, model, (ones,), shard_size=32).outputs
    assert (outputs[:32] != outputs[32:]).mean() == pytest.approx(0.5, abs=0.1)


def test_running_statistics_are_the_weighted_mean_over_the_shards():
    model, batch = nn.Sequential({"norm": nn.BatchNorm2d(1, momentum=0.25)}), batch_of(50)
    model.get_submodule("norm").to("float64")
    images = batch[0].astype(np.float64)

    def objective(model, images):
        outputs = model(images)
        return (outputs * outputs).mean(), outputs

    value_and_grad(objective, model, (images,), shard_size=20, workers=2)
    shards = [images[s] for s in shard_slices(50, 20)]
    share = [len(shard) / 50 for shard in shards]
    mean = sum(w * shard.mean() for w, shard in zip(share, shards, strict=True))
    var = sum(w * shard.var(ddof=1) for w, shard in zip(share, shards, strict=True))
    norm = model.get_submodule("norm")
    np.testing.assert_allclose(norm.running_mean, 0.25 * mean, rtol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.75 + 0.25 * var, rtol=1e-12)


def test_a_loss_that_is_nan_leaves_running_statistics_alone():
    model = cnn()
    before = bits(model)
    images = batch_of(96)[0].copy()
    images[40] = np.nan
    step = value_and_grad(Supervised(), model, (images, batch_of(96)[1]))
    assert np.isnan(step.loss)
    assert bits(model) == before


# --------------------------------------------------------------------------- what stays as it was


def test_no_grad_is_written_and_the_model_is_left_alone():
    model = perceptron()
    before = bits(model)
    weight = next(model.parameters())
    weight.grad = np.full_like(weight.data, 7)
    value_and_grad(Supervised(), model, batch_of(70))
    assert bits(model) == before
    assert (weight.grad == 7).all()
    assert all(p.grad is None for p in list(model.parameters())[1:])


def test_the_batch_is_not_written_to():
    images, labels = batch_of(70)
    copies = images.copy(), labels.copy()
    for array in (images, labels):
        array.flags.writeable = False
    try:
        value_and_grad(Supervised(), cnn(), (images, labels))
    finally:
        images.flags.writeable = labels.flags.writeable = True
    assert (images == copies[0]).all()
    assert (labels == copies[1]).all()


def test_only_what_is_asked_for_is_differentiated():
    model = perceptron()
    weight = model.get_submodule("fc2").weight
    everything = value_and_grad(Supervised(), model, batch_of(70), workers=1)
    one = value_and_grad(Supervised(), model, batch_of(70), params=[weight], workers=1)
    assert len(one.gradients) == 1
    assert one.gradients[0].tobytes() == everything.gradients[2].tobytes()
    model.get_submodule("fc1").requires_grad_(False)
    assert len(value_and_grad(Supervised(), model, batch_of(70)).gradients) == 2


def test_a_parameter_that_the_loss_does_not_touch_has_the_gradient_zero():
    model = perceptron()
    model.spare = nn.Parameter(np.ones(3, np.float32))
    step = value_and_grad(Supervised(), model, batch_of(70))
    assert [g.tolist() for g in step.gradients if g.shape == (3,)] == [[0, 0, 0]]


# ------------------------------------------------------------------------------- objectives


def test_an_objective_gets_every_array_of_the_batch_cut_alike():
    seen = {}

    def objective(model, images, labels, weights, numbers):
        seen[int(numbers[0])] = [len(a) for a in (images, labels, weights, numbers)]
        outputs = model(images)
        each = F.cross_entropy(outputs, labels, reduction="none")
        return (each * weights).mean(), outputs

    extra = np.linspace(0, 1, 70, dtype=np.float32), np.arange(70)
    model, batch = perceptron(), (*batch_of(70), *extra)
    value_and_grad(objective, model, batch, shard_size=32, workers=2)
    assert seen == {0: [23] * 4, 23: [23] * 4, 46: [24] * 4}


def test_tensors_and_lists_may_be_in_a_batch():
    model, (images, labels) = perceptron(), batch_of(40)
    expected = value_and_grad(Supervised(), model, (images, labels))
    same_bits(value_and_grad(Supervised(), model, [tc.tensor(images), labels.tolist()]), expected)


def test_a_step_within_a_step():
    """The inner one changes nothing about how often statistics are merged, or about the outer."""

    def objective(model, images, labels):
        loss, outputs = Supervised()(model, images, labels)
        inner = value_and_grad(Supervised(), model, (images, labels), shard_size=8, workers=2)
        norm = sum(float((g * g).sum()) for g in inner.gradients)
        return loss * (1 + norm), outputs

    results, merged = [], []
    for workers in (1, 2):
        random.manual_seed(0)
        model = cnn()
        norm = model.get_submodule("norm")
        norm.merge = lambda notes, merge=norm.merge: (merged.append(len(notes)), merge(notes))
        merged.clear()
        with Workers(workers) as team:
            step = value_and_grad(objective, model, batch_of(64), shard_size=32, workers=team)
        assert merged == [2 + 2 * 4], "once: of both shards, and of the four in each of them"
        results.append((step, bits(model)))
    same_bits(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_the_same_team_inside_of_itself_does_not_wait_for_itself():
    with Workers(2) as team:

        def objective(model, images, labels):
            value_and_grad(Supervised(), model, (images, labels), shard_size=8, workers=team)
            return Supervised()(model, images, labels)

        value_and_grad(objective, perceptron(), batch_of(96), workers=team)


# --------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_is_with_its_notes(workers):
    class Broken(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError("this layer is broken")

    model = nn.Sequential({"fc": nn.Linear(36, 4), "broken": Broken()})
    with pytest.raises(ZeroDivisionError, match="this layer is broken") as caught:
        value_and_grad(
            Supervised(), model, (DATA.images.reshape(100, 36), DATA.labels), workers=workers
        )
    assert "in broken: Broken" in caught.value.__notes__
    assert not alive()


def test_the_first_shard_that_fails_in_order_is_the_one_that_is_reported():
    def objective(model, images, labels, numbers):
        if numbers[0] > 0:
            raise ValueError(f"shard from {numbers[0]}")
        return Supervised()(model, images, labels)

    for workers in (1, 2, 3):
        with pytest.raises(ValueError, match="shard from 25"):
            value_and_grad(
                objective,
                perceptron(),
                (*batch_of(100), np.arange(100)),
                shard_size=25,
                workers=workers,
            )


def test_detect_anomaly_names_the_layer_from_inside_a_worker():
    model = perceptron()
    model.get_submodule("fc2").weight.data[0, 0] = np.inf
    with tc.detect_anomaly(), pytest.raises(AnomalyError, match="linear") as caught:
        value_and_grad(Supervised(), model, batch_of(96), workers=2)
    assert "in fc2: Linear" in caught.value.__notes__


IMAGES, LABELS = batch_of(8)
BAD = {
    "no tuple": (lambda: IMAGES, "batch must be a tuple of arrays, .* got ndarray"),
    "a data set": (lambda: DATA, "batch must be a tuple of arrays, .* got Dataset"),
    "no arrays": (tuple, "the batch is empty"),
    "no samples": (lambda: (IMAGES[:0], LABELS[:0]), "the batch is empty"),
    "a number": (lambda: (IMAGES, 3), "the batch is empty"),
    "text": (lambda: (IMAGES, ["a"] * 8), "holds numbers"),
    "two lengths": (lambda: (IMAGES, LABELS[:7]), r"different lengths: \[8, 7\]"),
    "labels beyond the classes": (
        lambda: (IMAGES, LABELS + 4),
        r"labels must be in 0 … 3 .* found",
    ),
    "float64 for a float32 model": (lambda: (IMAGES.astype(np.float64), LABELS), "do not mix"),
    "a missing array": (lambda: (IMAGES,), "missing 1 required positional argument: 'labels'"),
    "a wrong shape": (lambda: (IMAGES[:, :, 1:], LABELS), "must end in in_features = 36"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_batches(name):
    batch, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        value_and_grad(Supervised(), perceptron(), batch())


def frozen():
    return perceptron().requires_grad_(False)


BAD_CALLS = {
    "nothing to train": (lambda: {"model": frozen()}, "no parameters that require gradients"),
    "no parameters": (lambda: {"model": nn.Flatten()}, "no parameters that require gradients"),
    "an empty list": (lambda: {"params": []}, "no parameters that require gradients"),
    "a frozen one": (lambda: {"params": list(frozen().parameters())}, "does not require gradients"),
    "no shards": (lambda: {"shard_size": 0}, "shard_size must be ≥ 1, got 0"),
    "no workers": (
        lambda: {"workers": 0},
        'workers must be a whole number ≥ 1, "auto" or None, got 0',
    ),
    "half a worker": (lambda: {"workers": 1.5}, "workers must be a whole number ≥ 1.* got 1.5"),
    "a loss alone": (
        lambda: {"objective": lambda m, x, y: F.cross_entropy(m(x), y)},
        r"an objective returns \(loss, outputs\), got Tensor from <function",
    ),
    "a loss for each sample": (
        lambda: {"objective": Supervised(lambda o, y: F.cross_entropy(o, y, reduction="none"))},
        r"a tensor of one number, the mean over the batch, got shape \(8,\)",
    ),
    "a loss that is a number": (
        lambda: {"objective": lambda m, x, y: (1.0, m(x))},
        "a tensor of one number, the mean over the batch, got float",
    ),
    "outputs of the wrong length": (
        lambda: {"objective": lambda m, x, y: (m(x).sum(), m(x)[:3])},
        r"one row for each of the 8 samples, got shape \(3, 4\)",
    ),
    "a loss of nothing": (
        lambda: {"objective": lambda m, x, y: (Tensor(np.float32(1)), m(x))},
        "not made from anything that requires gradients",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("workers", [1, 2])
def test_bad_calls(name, workers):
    make, message = BAD_CALLS[name]
    arguments = {"objective": Supervised(), "model": perceptron(), "batch": (IMAGES, LABELS)}
    arguments |= {"workers": workers} | make()
    positional = [arguments.pop(k) for k in ("objective", "model", "batch")]
    with pytest.raises((ValueError, RuntimeError), match=message):
        value_and_grad(*positional, **arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_inside_no_grad_it_says_so_whoever_works(workers):
    with tc.no_grad(), pytest.raises(ValueError, match="no gradients inside no_grad"):
        value_and_grad(Supervised(), perceptron(), batch_of(96), workers=workers)


def test_arrays_of_another_device_than_the_models(cupy):
    model = perceptron().to("cuda")
    with pytest.raises(tc.DeviceError, match="cpu and cuda:0"):
        value_and_grad(Supervised(), model, batch_of(8))


# --------------------------------------------------------------------------------------- on a GPU


def test_on_a_gpu_it_is_one_piece_that_waits_for_nothing(cupy):
    pieces = []

    def objective(model, images, labels):
        pieces.append(len(images))
        return Supervised()(model, images, labels)

    model = cnn().to("cuda")
    batch = [to_device(a, "cuda") for a in batch_of(100)]
    with counting() as counts, no_sync("a step"):
        step = value_and_grad(objective, model, batch, shard_size=16, workers=2)
    assert (pieces, counts.uploads) == ([100], 0)
    assert {type(step.loss), type(step.outputs), *map(type, step.gradients)} == {cupy.ndarray}
    assert step.loss.shape == ()


def test_on_the_second_gpu_everything_stays_there(cupy):
    model = cnn().to("cuda:1")
    step = value_and_grad(Supervised(), model, [to_device(a, "cuda:1") for a in batch_of(40)])
    assert {a.device.id for a in (step.loss, step.outputs, *step.gradients, *model.buffers())} == {
        1
    }


def test_on_a_gpu_the_numbers_are_those_of_one_shard_on_a_cpu(cupy):
    random.manual_seed(0)
    model = cnn()
    there = model.copy().to("cuda")
    one = value_and_grad(Supervised(), model, batch_of(100), shard_size=100, key=1)
    other = value_and_grad(
        Supervised(), there, [to_device(a, "cuda") for a in batch_of(100)], key=1
    )
    for g, h in zip(one.gradients, other.gradients, strict=True):
        np.testing.assert_allclose(g, to_numpy(h), rtol=0, atol=1e-5 * np.abs(g).max())


def test_gradients_can_be_written_where_somebody_wants_them():
    model = perceptron()
    params = list(model.parameters())
    loss = F.cross_entropy(model(DATA.images), DATA.labels)
    expected = tc.grad(loss, params)
    room = [np.full_like(p.data, 9) for p in params]
    given = tc.grad(loss, params, out=room)
    for g, h, place in zip(given, expected, room, strict=True):
        assert g is place
        assert g.tobytes() == h.tobytes()
    unused = nn.Parameter(np.ones(3, np.float32))
    assert (tc.grad(loss, [unused], out=[np.full(3, 9, np.float32)])[0] == 0).all()
