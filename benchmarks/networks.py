"""The networks that are timed, each written once for both sides.

tinycompress has torch's names, so the same text builds the same network from either library: ``nn``
is ``tinycompress.nn`` or ``torch.nn``. It is also how a user would write them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


def article_cnn(nn: Any) -> Any:
    """W: the article's CNN (``tc.models.ArticleCNN``)."""
    layers = {
        "conv1": nn.Conv2d(1, 32, 3),  # (N, 1, 28, 28) -> (N, 32, 26, 26)
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),  # -> (N, 32, 13, 13)
        "conv2": nn.Conv2d(32, 64, 3),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),  # -> (N, 64, 5, 5)
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(1600, 100),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(100, 10),
    }
    return nn.Sequential(OrderedDict(layers))


def lenet5(nn: Any) -> Any:
    """LeNet-5 as Caffe defines it (``tc.models.LeNet5``)."""
    layers = {
        "conv1": nn.Conv2d(1, 20, 5),  # (N, 1, 28, 28) -> (N, 20, 24, 24)
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(20, 50, 5),  # (N, 20, 12, 12) -> (N, 50, 8, 8)
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(800, 500),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(500, 10),
    }
    return nn.Sequential(OrderedDict(layers))


def residual_cnn(nn: Any) -> Any:
    """A small residual network with batch norm: three stages of 16, 32 and 64 channels.

    He et al. 2016, https://arxiv.org/abs/1512.03385, with one basic block a stage. 77,754
    parameters.
    """

    def convolution(channels_in: int, channels: int, kernel: int, stride: int) -> Any:
        padding = kernel // 2
        return nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=padding, bias=False)

    class BasicBlock(nn.Module):
        """``relu(body(x) + shortcut(x))``."""

        def __init__(self, channels_in: int, channels: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                convolution(channels_in, channels, 3, stride),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                convolution(channels, channels, 3, 1),
                nn.BatchNorm2d(channels),
            )
            self.shortcut = nn.Identity()
            if stride != 1 or channels_in != channels:
                shrink = convolution(channels_in, channels, 1, stride)
                self.shortcut = nn.Sequential(shrink, nn.BatchNorm2d(channels))
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.body(x) + self.shortcut(x))

    return nn.Sequential(
        convolution(1, 16, 3, 1),  # (N, 1, 28, 28) -> (N, 16, 28, 28)
        nn.BatchNorm2d(16),
        nn.ReLU(),
        BasicBlock(16, 16, 1),
        BasicBlock(16, 32, 2),  # -> (N, 32, 14, 14)
        BasicBlock(32, 64, 2),  # -> (N, 64, 7, 7)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "W": article_cnn,
    "lenet-5": lenet5,
    "residual": residual_cnn,
}
