"""Layers that are prepared for quantization-aware training are pruned like any other."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import choose_masks, prune, sparsity_report
from tinycompress.compress.prune.importance import CRITERIA
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.quantize import QuantConfig, convert, prepare_qat
from tinycompress.compress.quantize.qat.layers import PreparedConv2d, PreparedLinear
from tinycompress.data import Dataset
from tinycompress.train import fit

CONFIGS = {
    "weights": QuantConfig(bits=4),
    "8 bits": QuantConfig(bits=8, activations=8),
    "learned": QuantConfig(bits=4, activations=8, learn_step=True),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
LAYERS = ["conv1", "conv2", "fc1", "fc2"]


def cnn():
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 3, padding=1),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(6, 8, 3),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),  # (N, 8, 2, 2) -> (N, 32)
            "fc1": nn.Linear(32, 12),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(12, 4),
        }
    )


def blobs(n=64):
    """Images of four patterns, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n)
    images = rng.random((4, 1, 8, 8))[labels] + rng.normal(0, 0.2, (n, 1, 8, 8))
    return Dataset(images.astype(np.float32), labels)


def masks_of(model):
    return {name: to_numpy(p.mask) for name, p in prunable_weights(model).items()}


@each_config
@pytest.mark.parametrize("structure", ["weight", "kernel", "row", "2:4"])
def test_latent_weights_are_ranked_under_the_names_of_the_float_model(config, structure):
    model, s = cnn(), None if structure == "2:4" else 0.6
    prepared = prepare_qat(model, config, calibration=blobs())
    assert list(prunable_weights(prepared)) == LAYERS
    kinds = {type(prepared.get_submodule(name)) for name in LAYERS}
    assert kinds == {PreparedConv2d, PreparedLinear}
    expected, found = (choose_masks(m, s, structure=structure) for m in (model, prepared))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@each_config
@pytest.mark.parametrize("importance", [*CRITERIA, "random"])
@pytest.mark.parametrize("calibration", [None, blobs(32)], ids=["unseen", "calibrated"])
def test_every_criterion_ranks_them(config, importance, calibration, device):
    prepared = prepare_qat(cnn(), config, calibration).to(device)
    before = {n: to_numpy(a).tobytes() for n, a in prepared.state_dict().items()}
    thin = prune(prepared, 0.7, importance, data=blobs(40))
    assert sparsity_report(thin).sparsity == pytest.approx(0.7, abs=1e-3)
    assert before == {n: to_numpy(a).tobytes() for n, a in prepared.state_dict().items()}


@each_config
def test_masks_hold_in_training_and_in_the_integers_that_come_of_it(config):
    thin = prune(prepare_qat(cnn(), config, blobs()), 0.8)
    masks = masks_of(thin)
    fit(thin, blobs(128), 2, optim.SGD(thin.parameters(), lr=0.05, momentum=0.9), batch_size=32)
    for name, p in prunable_weights(thin).items():
        assert not to_numpy(p.data)[~masks[name]].any()
    coded = convert(thin)
    for name, mask in masks.items():
        layer = coded.get_submodule(name)
        assert not to_numpy(layer.weight.data)[~mask].any()


def test_pruned_before_and_pruned_after_preparing_are_the_same():
    model, config = cnn(), CONFIGS["8 bits"]
    before = prepare_qat(prune(model, 0.5), config, blobs())
    after = prune(prepare_qat(model, config, blobs()), 0.5)
    for (name, one), other in zip(masks_of(before).items(), masks_of(after).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    again = choose_masks(before, 0.75)
    assert all((again[name] <= mask).all() for name, mask in masks_of(before).items())


def test_norms_that_were_folded_are_part_of_the_weight_that_is_ranked():
    model = nn.Sequential(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "norm": nn.BatchNorm2d(2),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(72, 4),
        }
    ).eval()
    model.get_submodule("norm").weight.data[...] = [100.0, 0.01]
    prepared = prepare_qat(model, CONFIGS["8 bits"], blobs())
    mask = choose_masks(prepared, {"conv": 0.5})["conv"]
    assert mask[0].all()
    assert not mask[1].any()


@pytest.mark.parametrize(
    "config",
    [
        tc.QuantConfig(bits=8),
        tc.QuantConfig(bits=3, scheme="affine"),
        tc.QuantConfig(bits=4, dynamic=True),
        tc.QuantConfig(bits=8, activations=8),
    ],
    ids=["weights", "affine", "dynamic", "integers"],
)
def test_zeros_are_counted_in_whatever_a_pruned_model_becomes(config):
    """Rounding leaves every zero, and may add some: they are counted in the weights as they are."""
    images = np.random.default_rng(0).normal(size=(8, 1, 28, 28)).astype("f")
    model = tc.prune(tc.models.TinyCNN(), 0.6)
    small = tc.quantize(model, config, images if config.activations else None)
    before, after = tc.sparsity_report(model), tc.sparsity_report(small)
    assert [layer.name for layer in after.layers] == [layer.name for layer in before.layers]
    for layer in after.layers:
        weight = small.get_submodule(layer.name).weight.data
        assert (layer.weights, layer.zeros) == (weight.size, int((weight == 0).sum()))
        assert layer.zeros >= before[layer.name].zeros > 0
