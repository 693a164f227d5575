"""The networks by name: structure, counts, configuration, and that they compute and learn."""

import json

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, models, nn, optim
from tinycompress.backend import device_of, to_device

COUNTS = {  # parameters (article, Deep Compression table 1, by hand) and MACs by hand
    "article-cnn": (179_926, 26 * 26 * 32 * 9 + 11 * 11 * 64 * 288 + 1600 * 100 + 1000),
    "lenet-300-100": (266_610, 784 * 300 + 300 * 100 + 100 * 10),
    "lenet-5": (431_080, 24 * 24 * 20 * 25 + 8 * 8 * 50 * 500 + 800 * 500 + 500 * 10),
    "tiny-cnn": (2_346, 26 * 26 * 4 * 9 + 11 * 11 * 8 * 36 + 200 * 10),
}
each_model = pytest.mark.parametrize("name", COUNTS)


def images(n=2):
    return np.random.default_rng(0).random((n, 1, 28, 28)).astype(np.float32)


def test_names():
    assert models.names() == list(COUNTS)


@each_model
def test_parameters_and_macs(name):
    summary = tc.summary(models.create(name))
    assert (summary.parameters, summary.macs) == COUNTS[name]
    assert summary.layers[-1].output_shape == (10,)


@each_model
def test_ten_logits_for_each_image_on_every_device(name, device):
    model = models.create(name).to(device)
    logits = model(to_device(images(3), device))
    assert logits.shape == (3, 10)
    assert logits.dtype == np.float32
    assert device_of(logits.data) == model.device


@each_model
def test_the_name_and_the_configuration_build_it_again(name):
    model = models.create(name)
    assert models.name_of(model) == name
    config = json.loads(json.dumps(model.config()))
    twin = type(model)(**config)
    twin.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(twin(images()).data, model(images()).data)
    assert models.create(name, **config).config() == config


@pytest.mark.parametrize(
    ("name", "config"), [("article-cnn", {"classes": 7}), ("tiny-cnn", {"width": 3})]
)
def test_configurations_change_the_shapes(name, config):
    model = models.create(name, **config)
    assert model.config() == config
    assert type(model)(**model.config())(images()).shape == model(images()).shape
    assert model.state_dict().keys() == models.create(name).state_dict().keys()
    assert models.create("article-cnn", classes=7)(images()).shape == (2, 7)
    assert models.create("tiny-cnn", width=3).get_submodule("conv2").out_channels == 6


def test_the_articles_layers_have_the_articles_names():
    names = [name for name, _ in models.ArticleCNN().named_children()]
    convolutions = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    assert names == [*convolutions, "flatten", "fc1", "relu3", "fc2"]


@pytest.mark.torch
def test_the_articles_network_equals_torchs():
    torch = pytest.importorskip("torch")
    lib = torch.nn
    theirs = lib.Sequential(
        *(lib.Conv2d(1, 32, 3), lib.ReLU(), lib.MaxPool2d(2)),
        *(lib.Conv2d(32, 64, 3), lib.ReLU(), lib.MaxPool2d(2)),
        *(lib.Flatten(), lib.Linear(1600, 100), lib.ReLU(), lib.Linear(100, 10)),
    )
    ours = models.ArticleCNN()
    values = (torch.from_numpy(a) for a in ours.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    expected = theirs(torch.from_numpy(images(4))).detach().numpy()
    np.testing.assert_allclose(ours(images(4)).data, expected, rtol=1e-4, atol=1e-5)


def test_a_seed_gives_a_model():
    def weights(seed):
        tc.manual_seed(seed)
        return models.create("tiny-cnn").get_submodule("fc").weight.data

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).all()


@each_model
def test_a_few_steps_lower_the_loss(name):
    model = models.create(name)
    x, labels = images(20), np.arange(20) % 10
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_is_not_a_model_is_named():
    with pytest.raises(ValueError, match="no model 'vgg'; choose from article-cnn, lenet-300-100"):
        models.create("vgg")
    with pytest.raises(TypeError, match="depth"):
        models.create("tiny-cnn", depth=3)
    for width in (0, -1, 2.5, "4"):
        with pytest.raises(ValueError, match="TinyCNN: width must be a whole number ≥ 1"):
            models.create("tiny-cnn", width=width)
    with pytest.raises(ValueError, match="ArticleCNN: classes must be a whole number ≥ 1, got 0"):
        models.create("article-cnn", classes=0)
    assert models.name_of(nn.Sequential()) is None


def test_a_subclass_has_no_name_because_create_would_build_another():
    class Mine(models.TinyCNN):
        pass

    assert models.name_of(Mine()) is None


@pytest.mark.parametrize(
    ("name", "shape", "layer"),
    [
        ("article-cnn", (2, 1, 32, 32), "in fc1: Linear"),
        ("article-cnn", (2, 3, 28, 28), "in conv1: Conv2d"),
        ("article-cnn", (28, 28), "in conv1: Conv2d"),
        ("lenet-300-100", (2, 784, 2), "in fc1: Linear"),
        ("lenet-5", (2, 1, 8, 8), "in conv2: Conv2d"),
    ],
)
def test_images_of_another_size_are_refused_by_the_layer_that_cannot_take_them(name, shape, layer):
    with pytest.raises(ValueError, match=r"input") as caught:
        models.create(name)(np.zeros(shape, np.float32))
    assert caught.value.__notes__[0] == layer
