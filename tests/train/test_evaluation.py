"""Accuracy, loss and confusion are counts over the data set, whatever the batches and workers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import alive, bits, blobs, cnn, perceptron

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_numpy
from tinycompress.data import Dataset
from tinycompress.train import Evaluation, Workers, evaluate, mean_loss, predict

DATA = blobs(203)


@pytest.fixture
def model():
    tc.manual_seed(0)
    net = cnn()
    tc.fit(net, blobs(100, seed=5, noise=1.0), 1)
    return net


def by_hand(model, data):
    """One image at a time, in plain Python and float64."""
    exact = model.copy().to("cpu").to("float64").eval()
    confusion, total = np.zeros((4, 4), int), 0.0
    for image, label in zip(data.images, data.labels, strict=True):
        scores = exact(image[None].astype(np.float64)).numpy()[0]
        confusion[label, scores.argmax()] += 1
        total += np.log(np.exp(scores - scores.max()).sum()) - (scores[label] - scores.max())
    return confusion, total / len(data)


def test_it_counts_what_a_loop_over_the_images_counts(model, device):
    confusion, loss = by_hand(model, DATA)
    result = evaluate(model.to(device), DATA)
    np.testing.assert_array_equal(result.confusion, confusion)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.accuracy == np.trace(confusion) / 203
    assert 0.25 < result.accuracy < 1, "a model that is sometimes wrong"


def test_what_it_says_of_itself(model):
    result = evaluate(model, DATA)
    assert isinstance(result, Evaluation)
    assert result.count == result.confusion.sum() == 203
    assert result.wrong == 203 - np.trace(result.confusion)
    assert result.error == pytest.approx(100 * result.wrong / 203)
    assert result.confusion.sum(axis=1).tolist() == np.bincount(DATA.labels).tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 100, 203, 500])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_and_workers_change_no_count(model, batch_size, workers):
    expected = evaluate(model, DATA)
    result = evaluate(model, DATA, batch_size=batch_size, workers=workers)
    np.testing.assert_array_equal(result.confusion, expected.confusion)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert not alive()


def test_workers_change_nothing_at_all(model):
    with Workers(2) as team:
        results = [evaluate(model, DATA, batch_size=50, workers=w) for w in (1, 2, team)]
    assert len({r.loss for r in results}) == 1


def test_classes_that_never_come_have_rows_of_zeros(model):
    ones = Dataset(DATA.images[DATA.labels == 1], DATA.labels[DATA.labels == 1])
    result = evaluate(model, ones)
    assert result.confusion.shape == (4, 4)
    assert result.confusion[[0, 2, 3]].sum() == 0


def test_predict_gives_the_outputs_in_order(model, device):
    outputs = predict(model.to(device), DATA.images, batch_size=64)
    assert outputs.shape == (203, 4)
    assert tc.Tensor(outputs).device == model.device
    expected = model.copy().to("cpu").eval()(DATA.images).numpy()
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=0, atol=1e-5)


def test_a_loss_of_ones_own(model):
    smooth = lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=0.1)  # noqa: E731
    expected = smooth(model.copy().eval()(DATA.images), DATA.labels).item()
    assert evaluate(model, DATA, criterion=smooth).loss == pytest.approx(expected, rel=1e-5)
    assert mean_loss(model, DATA, smooth, batch_size=50) == pytest.approx(expected, rel=1e-5)


def test_data_may_lie_on_another_device_than_the_model(cupy, model):
    expected = evaluate(model, DATA).confusion
    for here, there in (("cuda", "cpu"), ("cpu", "cuda"), ("cuda:1", "cuda:0"), ("cuda:1", "cpu")):
        result = evaluate(model.to(here), DATA.to(there), workers=2)
        np.testing.assert_array_equal(result.confusion, expected)
        outputs = predict(model, DATA.to(there).images)
        assert tc.Tensor(outputs).device == model.device


def test_a_gpu_is_driven_by_one_thread(cupy, model):
    seen = set()
    model.register_forward_hook(lambda *args: seen.add(threading.current_thread()))
    with Workers(2) as team:
        evaluate(model.to("cuda"), DATA, batch_size=20, workers=team)
    assert seen == {threading.current_thread()}


# -------------------------------------------------------------------------- what stays as it was


def test_each_layer_has_its_mode_again_and_its_state(model):
    model.get_submodule("dropout").eval()
    before, modes = bits(model), [m.training for m in model.modules()]
    assert len(set(modes)) == 2
    evaluate(model, DATA)
    predict(model, DATA.images)
    assert [m.training for m in model.modules()] == modes
    assert bits(model) == before
    assert all(p.grad is None for p in model.parameters())


class Broken(nn.Module):
    def forward(self, x):
        raise ZeroDivisionError("broken")


CALLS = {
    "evaluate": lambda model, workers: evaluate(model, DATA, workers=workers),
    "predict": lambda model, workers: predict(model, DATA.images, workers=workers),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_also_after_an_error(call, workers):
    model = nn.Sequential({"inner": nn.Dropout(0.5), "broken": Broken()})
    model.get_submodule("inner").eval()
    modes = [m.training for m in model.modules()]
    with pytest.raises(ZeroDivisionError) as caught:
        call(model, workers)
    assert "in broken: Broken" in caught.value.__notes__
    assert [m.training for m in model.modules()] == modes
    assert not alive()
    assert tc.is_grad_enabled()


# ------------------------------------------------------------------------------------ bad arguments


def shaped(fn):
    class Shaped(nn.Module):
        def forward(self, x):
            return fn(tc.Tensor(x))

    return Shaped()


BAD = {
    "no data set": (lambda: (perceptron(), DATA.images), "expected a tc.data.Dataset, got ndarray"),
    "no labels": (lambda: (perceptron(), Dataset(DATA.images)), "has no labels"),
    "labels that are no classes": (
        lambda: (perceptron(), Dataset(DATA.images, DATA.images[:, 0, 0])),
        r"labels must be class numbers \(N,\), and those of Dataset\(.* are not",
    ),
    "labels in a column": (
        lambda: (perceptron(), Dataset(DATA.images, DATA.labels[:, None])),
        r"labels must be class numbers \(N,\)",
    ),
    "labels beyond the classes": (
        lambda: (perceptron(), Dataset(DATA.images, DATA.labels + 3)),
        "the labels go up to 6, but the model has 4 outputs, for the classes 0 … 3",
    ),
    "outputs that are images": (
        lambda: (shaped(lambda x: x), DATA, {"batch_size": 203}),
        r"outputs must be \(N, classes\), got shape \(203, 1, 6, 6\) for 203 images",
    ),
    "one number for all": (
        lambda: (shaped(lambda x: x.sum()), DATA),
        r"outputs must be \(N, classes\), got shape \(\)",
    ),
    "batch and classes mixed up": (
        lambda: (shaped(lambda x: x.reshape(-1, 18)), DATA, {"batch_size": 203}),
        r"got shape \(406, 18\) for 203 images",
    ),
    "images of another size": (
        lambda: (perceptron(), Dataset(DATA.images[:, :, 1:], DATA.labels)),
        "must end in in_features = 36",
    ),
    "float64 images": (
        lambda: (perceptron(), Dataset(DATA.images.astype(np.float64), DATA.labels)),
        "float64",
    ),
    "no batches": (
        lambda: (perceptron(), DATA, {"batch_size": 0}),
        "batch_size must be ≥ 1, got 0",
    ),
    "no workers": (
        lambda: (perceptron(), DATA, {"workers": 0}),
        "workers must be a whole number ≥ 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    make, message = BAD[name]
    model, data, *options = make()
    with pytest.raises((TypeError, ValueError, AttributeError), match=message):
        evaluate(model, data, **(options[0] if options else {}))


def test_labels_beyond_the_classes_are_named_on_a_gpu_too(cupy):
    data = Dataset(DATA.images, DATA.labels + 3).to("cuda")
    with pytest.raises(ValueError, match="the labels go up to 6, but the model has 4 outputs"):
        evaluate(perceptron().to("cuda"), data)


def test_images_that_are_not_finite_are_refused():
    images = DATA.images.copy()
    images[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"images holds nan at index \(3, 0, 0, 0\)"):
        predict(perceptron(), images)


def test_two_threads_evaluate_a_model_that_is_in_training():
    """The first to be done must not put it into training while the other one computes."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    with ThreadPoolExecutor(1) as other:
        with nn.evaluation_mode(model):
            entered, leave = threading.Event(), threading.Event()

            def stay():
                with nn.evaluation_mode(model):
                    entered.set()
                    return leave.wait(20)

            second = other.submit(stay)
            assert entered.wait(20)
        assert not any(m.training for m in model.modules())
        with nn.evaluation_mode(model), nn.evaluation_mode(model):  # and once more, meanwhile
            pass
        assert not model.training
        leave.set()
        assert second.result()
    assert all(m.training for m in model.modules())


def test_evaluation_inside_of_evaluation():
    model = nn.Sequential(nn.Dropout(0.5))
    with nn.evaluation_mode(model):
        model.train()
        with nn.evaluation_mode(model):
            assert not model.training
        assert model.training, "what was found"
    assert model.training
