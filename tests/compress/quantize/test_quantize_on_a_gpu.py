"""Models on a GPU are quantized there: every array of the result is where the model was."""

import numpy as np
import pytest
from qat_models import SIDE, Network, Residual, shaken

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.backend import device_of
from tinycompress.compress.quantize import QuantConfig

CONFIGS = {
    "default": QuantConfig(activations=8),
    "learned steps": QuantConfig(bits=2, activations=4, learn_step=True),
    "searched weights": QuantConfig(bits=3, activations=4, weight_observer="mse"),
    "one bit": QuantConfig(bits=1, activations=4, observer="moving_average"),
    "histograms": QuantConfig(bits=4, activations=4, observer="percentile"),
    "weights alone": QuantConfig(bits=4),
    "learned weights alone": QuantConfig(bits=3, scheme="affine", learn_step=True),
}


def network() -> nn.Module:
    """A sum, a concatenation, batch norm, a mean, dropout: whatever has a way of its own."""
    tc.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * (SIDE // 2) ** 2, 3)]
    return shaken(Network(stem, Residual(4, norm=True), nn.Sequential(*head)), 0)


def places(model: nn.Module) -> set[str]:
    """Where its parameters, masks and buffers are."""
    arrays = [p.data for p in model.parameters()]
    arrays += [p.mask for p in model.parameters() if p.mask is not None]
    return {device_of(a) for a in [*arrays, *(b for _, b in model.named_buffers())]}


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_prepared_and_converted_models_are_where_the_model_was(name, calibrated, cupy, rng):
    images = rng.normal(size=(4, 1, SIDE, SIDE)).astype("f")
    answers = []
    for device in ("cpu", "cuda:1"):
        x = tc.tensor(images, device=device)
        sample = images if calibrated else None  # calibration data may be on the host
        prepared = tc.prepare_qat(network().to(device), CONFIGS[name], sample)
        assert places(prepared) == {device}
        optimizer = optim.SGD(prepared.train().parameters(), lr=0.01)
        (prepared(x) ** 2).mean().backward()
        optimizer.step()
        integer = tc.convert(prepared)
        assert places(prepared) == places(integer) == {device}
        answers.append(integer(x).numpy())
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["default", "searched weights", "histograms", "weights alone"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_models_quantized_after_training_are_where_the_model_was(name, dynamic, cupy, rng):
    images = rng.normal(size=(4, 1, SIDE, SIDE)).astype("f")
    config = CONFIGS[name]
    config = config.replace(dynamic=True) if dynamic and config.activations else config
    answers = []
    for device in ("cpu", "cuda:1"):
        options = {"weights_only": True} if config.activations is None else {}
        model = tc.quantize(network().to(device).eval(), config, images, **options)
        assert places(model) == {device}
        answers.append(model(tc.tensor(images, device=device)).numpy())
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-3)
