"""What tests of smaller models share: what such a model must be equal to, and a network."""

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy


def masked(model, masks):
    """The model with these masks' zeros: what a smaller one must be equal to."""
    copy = model.copy()
    parameters = dict(copy.named_parameters())
    for name, mask in masks.items():
        p = parameters[name]
        p.mask = to_device(mask, p.device)
        p.data = p.data * p.mask
    return copy


def images(*shape, dtype="f8", device="cpu"):
    x = np.random.default_rng(7).normal(size=(5, *shape)).astype(dtype)
    return to_device(x, device)


def outputs(model, x):
    return to_numpy(model.eval()(x).data)


def assert_same(slim, model, x, tolerance=1e-9):
    expected = outputs(model, x)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(outputs(slim, x), expected, rtol=0, atol=tolerance * scale)


def sizes(model):
    return {name: p.shape for name, p in model.named_parameters()}


class Residual(nn.Module):
    """A small residual network with batch norm, as users write them."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.add, self.relu = nn.Add(), nn.ReLU()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(width, 10)

    def config(self):
        return {"width": self.width}

    def forward(self, x):
        x = self.relu(self.norm0(self.stem(x)))
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.head(self.flatten(self.pool(self.relu(self.add(x, y)))))
