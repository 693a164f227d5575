"""Prepared layers compute in codes, and learn as ordinary fake quantization does."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.compress.quantize import QuantConfig, fake_quantize
from tinycompress.compress.quantize.prepare import prepare_qat
from tinycompress.compress.quantize.qat.layers import PreparedLayer
from tinycompress.tensor import Tensor


class Plain:
    """The same network of ordinary operations: each weight and activation is fake-quantized.

    Scales and zero points are those of the prepared layers, and a bias is shifted by a constant to
    where the whole number of the integer engine puts it.
    """

    def __init__(self, prepared):
        self.layers = [m for m in prepared.modules() if isinstance(m, PreparedLayer)]
        self.parameters = [tc.tensor(p.data, requires_grad=True) for p in prepared.parameters()]

    def __call__(self, x):
        """conv (relu) pool conv (relu) flatten linear (relu) linear."""
        parameters = iter(self.parameters)
        first = self.layers[0].input_quantizer
        scale, zero_point = first.final()
        x = fake_quantize(x, scale, zero_point, first.target)
        for layer in self.layers:
            w, b = next(parameters), next(parameters)
            s_w = layer.weight_quantizer.final(layer.weight).scale.astype(np.float64)
            axis, bits = layer.quantization.axis, layer.quantization.bits
            if bits == 1:
                codes = np.where(w.data >= 0, 1.0, -1.0)
                column = s_w.reshape(-1, *(1,) * (w.ndim - 1)) if axis == 0 else s_w
                w_hat = w + Tensor(codes * column - w.data)
            else:
                zeros = np.zeros(s_w.shape, int)
                w_hat = fake_quantize(w, s_w, zeros, layer.quantization.target, axis)
            unit = scale * s_w
            b = b + Tensor(np.rint(b.data / unit) * unit - b.data)
            if isinstance(layer, nn.Conv2d):
                x = F.conv2d(x, w_hat, b, padding=layer.padding)
            else:
                x = F.linear(x.flatten(1), w_hat, b)
            if layer.output_quantizer is not None:
                scale, zero_point = layer.output_quantizer.final()
                x = fake_quantize(x, scale, zero_point, layer.output_quantizer.target)
            if isinstance(layer, nn.Conv2d) and layer is self.layers[0]:
                x = F.max_pool2d(x, 2)
        return x


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 5 * 5, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    )


@pytest.mark.parametrize(
    ("bits", "activations"), [(8, 8), (4, 4), (3, 5), (2, 2), (1, 4), (16, 8), (8, 16)]
)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_gradients_are_those_of_ordinary_fake_quantization(rng, bits, activations, granularity):
    """Codes are other numbers than floats, by orders of magnitude; the gradients are the same."""
    model = small_cnn().to("float64")
    config = QuantConfig(bits=bits, activations=activations, granularity=granularity)
    images = rng.normal(size=(16, 1, 12, 12))
    labels = rng.integers(0, 4, 16)
    prepared = prepare_qat(model, config, images)
    plain = Plain(prepared)
    prepared.eval()
    ours, theirs = prepared(images), plain(images)
    np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-9, atol=1e-12)
    found = tc.grad(F.cross_entropy(ours, labels), list(prepared.parameters()))
    expected = tc.grad(F.cross_entropy(theirs, labels), plain.parameters)
    assert len(found) == len(expected)
    for a, e in zip(found, expected, strict=True):
        assert np.abs(e).max() > 0
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-9 * np.abs(e).max())
