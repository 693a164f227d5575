"""On a GPU: the same training, no wait for the device in a step, a bounded number of launches."""

import numpy as np
import pytest
from problems import bits, blobs, cnn, perceptron
from strict_cupy import counting

import tinycompress as tc
from tinycompress import optim
from tinycompress.backend import to_numpy
from tinycompress.data import Dataset, RandomAffine
from tinycompress.models import ArticleCNN, TinyCNN
from tinycompress.train import Callback, NonFiniteLossError, ProgressBar, evaluate, fit
from tinycompress.train.diagnose import CHECK_EVERY

LAUNCHES = 235
"""Kernels that a step of the article's CNN with momentum may launch; 221 when this was written."""


def sgd(model, lr=0.1):
    return optim.SGD(model.parameters(), lr=lr, momentum=0.9)


class Losses(Callback):
    """The loss of every step, left where it is."""

    def __init__(self):
        self.losses = []

    def on_step_end(self, run):
        self.losses.append(run.loss)


class Costs(Callback):
    """What every step cost, from the end of the one before."""

    def __init__(self):
        self.steps = []

    def on_epoch_begin(self, run):
        self.open = counting()
        self.counts = self.open.__enter__()

    def on_step_end(self, run):
        self.steps.append((self.counts.launches, self.counts.uploads, list(self.counts.syncs)))
        self.counts.launches = self.counts.uploads = 0
        self.counts.syncs.clear()

    def on_epoch_end(self, run):
        self.open.__exit__(None, None, None)


def costs(model, data, **options):
    watch = Costs()
    fit(model, data, 1, options.pop("optimizer", sgd)(model), callbacks=[watch], **options)
    return watch.steps


# ------------------------------------------------------------------------------------- the same


def test_the_loss_curve_is_that_of_a_cpu(device):
    curves = []
    for place in ("cpu", device):
        tc.manual_seed(0)
        model, watch = TinyCNN().to(place), Losses()
        data = tc.data.mnist()[0].take(320)
        options = {"batch_size": 32, "callbacks": [watch], "validate": data.take(50)}
        history = fit(model, data, 4, sgd(model, lr=0.05), **options)
        curves.append([float(loss) for loss in watch.losses] + [history[-1].val_loss])
        assert model.device.startswith(place)
    np.testing.assert_allclose(*curves, rtol=2e-4)
    assert np.mean(curves[1][-5:]) < 0.6 * np.mean(curves[1][:5])


def test_dropout_and_batch_norm_are_those_of_one_shard_on_a_cpu(cupy):
    results = []
    for place in ("cpu", "cuda"):
        tc.manual_seed(0)
        model = cnn().to(place)
        augment = RandomAffine(translate=1.0)
        fit(model, blobs(), 2, sgd(model), batch_size=40, shard_size=40, augment=augment)
        results.append({name: to_numpy(array) for name, array in model.state_dict().items()})
    for name, array in results[0].items():
        np.testing.assert_allclose(array, results[1][name], rtol=0, atol=2e-4, err_msg=name)


def test_the_data_follow_the_model_and_everything_stays_on_its_gpu(cupy):
    model = cnn().to("cuda:1")
    optimizer = optim.Adam(model.parameters())
    history = fit(model, blobs(), 2, optimizer, validate=blobs(40), clip_grad_norm=1.0)
    assert {a.device.id for a in (*model.buffers(), *(p.data for p in model.parameters()))} == {1}
    assert {s["exp_avg"].device.id for s in optimizer.state.values()} == {1}
    assert history[-1].val_accuracy == evaluate(model, blobs(40)).accuracy


# ------------------------------------------------------------------------------------ what it costs


def test_a_step_of_the_articles_cnn_stays_within_its_budget(cupy):
    steps = costs(ArticleCNN().to("cuda"), tc.data.mnist()[0].take(64), batch_size=16)
    assert [syncs for *_, syncs in steps] == [[]] * 4
    assert [uploads for _, uploads, _ in steps] == [1, 0, 0, 0], "the order of the epoch"
    assert max(launches for launches, *_ in steps[1:]) <= LAUNCHES


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": lambda m: optim.Adam(m.parameters())},
        {"optimizer": lambda m: optim.AdamW(m.parameters(), weight_decay=0.1)},
        {"shard_size": 4, "workers": 2},
        {"validate": blobs(20)},
    ],
    ids=["adam", "adamw", "shards", "validate"],
)
def test_no_step_waits_for_the_device(options, cupy):
    assert [syncs for *_, syncs in costs(cnn().to("cuda"), blobs(), **options)] == [[]] * 2


def test_data_sets_go_to_the_device_once(cupy):
    def uploads(epochs):
        model = perceptron().to("cuda")
        with counting() as counts:
            fit(model, blobs(), epochs, sgd(model), validate=blobs(60))
        return counts.uploads

    assert uploads(3) - uploads(2) == 1, "the order of the epoch"


def test_clipping_waits_once_a_step(cupy):
    steps = costs(cnn().to("cuda"), blobs(), clip_grad_norm=1.0)
    assert [len(syncs) for *_, syncs in steps] == [1, 1]


def test_the_progress_bar_reads_now_and_then(cupy):
    model, syncs = perceptron().to("cuda"), []

    class Count(Callback):
        def on_step_end(self, run):
            syncs.append(len(counts.syncs))

    with counting() as counts:
        bar = ProgressBar(every=10)
        fit(model, blobs(200), 1, sgd(model), batch_size=10, callbacks=[bar, Count()])
    assert [k + 1 for k in range(20) if syncs[k] > (syncs[k - 1] if k else 0)] == [10, 20]


# -------------------------------------------------------------------------------------------- NaN


def nan_at(step, run_of):
    """An objective whose loss is NaN from this step on."""

    def objective(model, images, labels):
        loss, outputs = tc.train.Supervised()(model, images, labels)
        return (loss * float("nan") if run_of() >= step else loss), outputs

    return objective


class Where(Callback):
    step = 0

    def on_step_end(self, run):
        self.step = run.step


def test_a_loss_that_is_nan_is_found_at_the_end_of_the_epoch(cupy, tmp_path):
    where, file = Where(), tmp_path / "run.safetensors"
    model = perceptron().to("cuda")
    options = {
        "objective": nan_at(15, lambda: where.step),
        "callbacks": [where],
        "checkpoint": file,
    }
    with pytest.raises(
        NonFiniteLossError, match="the loss became nan in epoch 2, batch 6"
    ) as caught:
        fit(model, blobs(100), 3, sgd(model), batch_size=10, **options)
    assert "go back to a checkpoint" in str(caught.value)
    assert (caught.value.epoch, caught.value.batch, where.step) == (2, 6, 20)
    model, options["objective"] = perceptron().to("cuda"), nan_at(99, lambda: 0)
    history = fit(model, blobs(100), 1, sgd(model), batch_size=10, resume=True, **options)
    assert len(history) == 1, "the checkpoint is that of the first epoch"
    assert all(np.isfinite(to_numpy(p.data)).all() for p in model.parameters())


def test_or_within_so_many_steps(cupy):
    where, model = Where(), perceptron().to("cuda")
    options = {"objective": nan_at(7, lambda: where.step), "callbacks": [where]}
    with pytest.raises(NonFiniteLossError, match="in epoch 1, batch 8"):
        fit(model, blobs(CHECK_EVERY * 8), 1, sgd(model), batch_size=4, **options)
    assert where.step == CHECK_EVERY - 1


def test_a_checkpoint_is_never_poisoned(cupy, tmp_path):
    where, model = Where(), perceptron().to("cuda")
    file = tmp_path / "run.safetensors"
    options = {"objective": nan_at(5, lambda: where.step), "callbacks": [where], "batch_size": 4}
    with pytest.raises(NonFiniteLossError, match="in epoch 1, batch 6"):
        fit(model, blobs(), 1, sgd(model), checkpoint=file, checkpoint_every=4, **options)
    assert where.step == 8
    saved = tc.train.read_checkpoint(file)
    assert saved.state["step"] == 4
    assert all(np.isfinite(array).all() for array in saved.arrays.values())


def test_weights_that_overflowed_in_the_last_step_are_found(cupy):
    model = perceptron().to("cuda")
    data = Dataset(blobs(32).images * 1000, blobs(32).labels)
    with pytest.raises(NonFiniteLossError, match=r"fc1\.weight became .* epoch 1, batch 1"):
        fit(model, data, 1, sgd(model, lr=1e38))


def test_labels_beyond_the_classes_are_named_though_the_gpu_says_nothing(cupy):
    model = perceptron().to("cuda")
    with pytest.raises(NonFiniteLossError, match="labels go up to 6, but the model has 4 outputs"):
        fit(model, blobs(classes=7), 1, sgd(model))


# ------------------------------------------------------------------------------------- checkpoints


def test_a_run_goes_on_from_one_device_to_the_other(cupy, tmp_path):
    def run(epochs, device, **options):
        tc.manual_seed(0)
        model = perceptron().to(device)
        fit(model, blobs(), epochs, sgd(model), batch_size=32, shard_size=32, **options)
        return model

    whole = run(2, "cpu")
    for here, there in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda:1")):
        file = tmp_path / f"{here}-{there[-1]}.safetensors"
        run(1, here, checkpoint=file)
        model = run(2, there, checkpoint=file, resume=True)
        assert model.device == {"cuda": "cuda:0"}.get(there, there)
        for p, q in zip(whole.parameters(), model.to("cpu").parameters(), strict=True):
            np.testing.assert_allclose(p.data, q.data, rtol=0, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_bits(cupy, tmp_path):
    def run(epochs, **options):
        tc.manual_seed(0)
        model = cnn().to("cuda")
        fit(model, blobs(), epochs, optim.Adam(model.parameters()), batch_size=32, **options)
        return bits(model)

    run(1, checkpoint=tmp_path / "run.safetensors")
    assert run(2, checkpoint=tmp_path / "run.safetensors", resume=True) == run(2)
