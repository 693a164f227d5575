"""Small networks to prepare, train and convert."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tinycompress import nn
from tinycompress.compress.quantize import QuantConfig
from tinycompress.data import Dataset

SIDE = 8


class Residual(nn.Module):
    """``relu(x + conv(x))``, then both and x side by side: a sum and a concatenation."""

    def __init__(self, channels: int, norm: bool = False, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.add, self.relu = nn.Add(), nn.ReLU() if relu else nn.Identity()
        self.join = nn.Concat()

    def forward(self, x):
        y = self.relu(self.add(x, self.norm(self.conv(x))))
        return self.join(y, x)


class Network(nn.Module):
    """A stem, a residual block, and a head, run by a forward of its own."""

    def __init__(self, stem: nn.Module, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = stem, block, head

    def forward(self, x):
        return self.head(self.block(self.stem(x)))


def blobs(count: int = 64, seed: int = 0, side: int = SIDE) -> Dataset:
    """Images of four kinds: one quarter of each is bright."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.3, (count, 1, side, side)).astype("f")
    labels = rng.integers(0, 4, count)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        half = side // 2
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1
    return Dataset(images, labels)


def cnn(classes: int = 4) -> nn.Module:
    """conv, relu, pool, conv, relu, flatten, linear, relu, linear."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 3, padding=1),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(6, 8, 3),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(32, 12),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(12, classes),
        }
    )


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """Every batch norm with statistics and factors of a trained one; some factors negative."""
    rng = np.random.default_rng(seed)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
            n = m.num_features
            m.running_mean = rng.normal(size=n).astype("f")
            m.running_var = rng.uniform(0.3, 2, n).astype("f")
            if m.weight is not None:
                m.weight.data[...] = rng.normal(size=n)
                m.bias.data[...] = rng.normal(size=n)
    return model


@st.composite
def networks(draw) -> nn.Module:
    """Convolutions of every kind, norms, ReLUs, pools, residual sums, concatenations, linears."""
    layers: list[nn.Module] = []
    channels, side = 1, SIDE

    def add_convolution() -> None:
        nonlocal channels, side
        out = draw(st.sampled_from([2, 4]))
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if not (channels % g or out % g)]))
        kernel, stride, padding = (
            draw(st.integers(low, high)) for low, high in [(1, 3), (1, 2), (0, 1)]
        )
        if side + 2 * padding < kernel:
            return
        layers.append(
            nn.Conv2d(
                channels, out, kernel, stride, padding, groups=groups, bias=draw(st.booleans())
            )
        )
        channels, side = out, (side + 2 * padding - kernel) // stride + 1
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(channels, affine=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.ReLU())

    def add_pool() -> None:
        nonlocal side
        if side < 2:
            return
        kind = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d]))
        if kind is nn.AdaptiveAvgPool2d:
            side = draw(st.integers(1, side))
            layers.append(kind(side))
        else:
            padding = draw(st.integers(0, 1))
            layers.append(kind(2, draw(st.integers(1, 2)), padding))
            side = (side + 2 * padding - 2) // layers[-1].stride[0] + 1
        if draw(st.booleans()):
            layers.append(nn.ReLU())

    add_convolution()
    for _ in range(draw(st.integers(0, 2))):
        draw(st.sampled_from([add_convolution, add_pool]))()
    if draw(st.booleans()):
        layers.append(nn.Dropout(0.25))
    stem, layers = nn.Sequential(*layers), []
    block = (
        Residual(channels, draw(st.booleans()), draw(st.booleans()))
        if draw(st.booleans())
        else None
    )
    channels *= 1 if block is None else 2
    add_pool()
    features = channels * side * side
    layers.append(nn.Flatten())
    if draw(st.booleans()):
        layers += [nn.Linear(features, 5), nn.ReLU()]
        features = 5
    layers.append(nn.Linear(features, 3, bias=draw(st.booleans())))
    if block is None:
        return nn.Sequential(*stem.children(), *layers)
    return Network(stem, block, nn.Sequential(*layers))


@st.composite
def configs(draw) -> QuantConfig:
    """1 to 8 bits for weights, 2 to 8 for activations, and all the rest."""
    return QuantConfig(
        bits=draw(st.integers(1, 8)),
        activations=draw(st.integers(2, 8)),
        granularity=draw(st.sampled_from(["per_channel", "per_tensor"])),
        activation_scheme=draw(st.sampled_from(["affine", "symmetric"])),
        observer=draw(st.sampled_from(["minmax", "moving_average", "percentile", "mse"])),
        weight_observer=draw(st.sampled_from(["minmax", "mse"])),
        learn_step=draw(st.booleans()),
    )
