"""The networks that the project speaks of. All are ``Sequential``, with named layers.

``create("article-cnn")`` builds one by name; :func:`names` lists them. Inputs are (N, 1, 28, 28)
images in [0, 1]; outputs are (N, classes) logits.
"""

from __future__ import annotations

from typing import Any

from tinycompress import nn
from tinycompress.shapes import whole


class ArticleCNN(nn.Sequential):
    """The article's CNN: 32 and 64 3×3 filters, each with ReLU and 2×2 pooling, then 100 units.

    The article writes ``64 * 16 * 16`` inputs for ``fc1``; for 28×28 digits they are 64·5·5 = 1600.
    179,926 parameters for 10 classes.
    """

    def __init__(self, classes: int = 10) -> None:
        classes = whole("ArticleCNN: classes", classes, 1)
        super().__init__(
            {
                "conv1": nn.Conv2d(1, 32, 3),  # (N, 1, 28, 28) -> (N, 32, 26, 26)
                "relu1": nn.ReLU(),
                "pool1": nn.MaxPool2d(2),  # -> (N, 32, 13, 13)
                "conv2": nn.Conv2d(32, 64, 3),  # -> (N, 64, 11, 11)
                "relu2": nn.ReLU(),
                "pool2": nn.MaxPool2d(2),  # -> (N, 64, 5, 5)
                "flatten": nn.Flatten(),  # -> (N, 1600)
                "fc1": nn.Linear(1600, 100),
                "relu3": nn.ReLU(),
                "fc2": nn.Linear(100, classes),
            }
        )
        self.classes = classes

    def config(self) -> dict[str, Any]:
        return {"classes": self.classes}


class LeNet300100(nn.Sequential):
    """LeNet-300-100 (LeCun et al. 1998): 784-300-100-10, 266,610 parameters."""

    def __init__(self) -> None:
        super().__init__(
            {
                "flatten": nn.Flatten(),
                "fc1": nn.Linear(784, 300),
                "relu1": nn.ReLU(),
                "fc2": nn.Linear(300, 100),
                "relu2": nn.ReLU(),
                "fc3": nn.Linear(100, 10),
            }
        )


class LeNet5(nn.Sequential):
    """LeNet-5 as Caffe defines it and Deep Compression uses it: 431,080 parameters."""

    def __init__(self) -> None:
        super().__init__(
            {
                "conv1": nn.Conv2d(1, 20, 5),  # (N, 1, 28, 28) -> (N, 20, 24, 24)
                "pool1": nn.MaxPool2d(2),
                "conv2": nn.Conv2d(20, 50, 5),  # (N, 20, 12, 12) -> (N, 50, 8, 8)
                "pool2": nn.MaxPool2d(2),
                "flatten": nn.Flatten(),  # -> (N, 800)
                "fc1": nn.Linear(800, 500),
                "relu1": nn.ReLU(),
                "fc2": nn.Linear(500, 10),
            }
        )


class TinyCNN(nn.Sequential):
    """A student: the article's plan with ``width`` and ``2·width`` filters and no hidden layer.

    With width 4: 2,346 parameters, about a seventy-seventh of the article's CNN.
    """

    def __init__(self, width: int = 4) -> None:
        width = whole("TinyCNN: width", width, 1)
        super().__init__(
            {
                "conv1": nn.Conv2d(1, width, 3),  # (N, 1, 28, 28) -> (N, width, 26, 26)
                "relu1": nn.ReLU(),
                "pool1": nn.MaxPool2d(2),
                "conv2": nn.Conv2d(width, 2 * width, 3),  # -> (N, 2·width, 11, 11)
                "relu2": nn.ReLU(),
                "pool2": nn.MaxPool2d(2),
                "flatten": nn.Flatten(),  # -> (N, 50·width)
                "fc": nn.Linear(50 * width, 10),
            }
        )
        self.width = width

    def config(self) -> dict[str, Any]:
        return {"width": self.width}


_MODELS: dict[str, type[nn.Module]] = {
    "article-cnn": ArticleCNN,
    "lenet-300-100": LeNet300100,
    "lenet-5": LeNet5,
    "tiny-cnn": TinyCNN,
}


def names() -> list[str]:
    """The names that :func:`create` knows."""
    return list(_MODELS)


def create(name: str, **config: Any) -> nn.Module:
    """A new model by name, with fresh weights; ``config`` goes to its constructor."""
    if name not in _MODELS:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join(_MODELS)}")
    return _MODELS[name](**config)


def name_of(model: nn.Module) -> str | None:
    """The name under which :func:`create` builds this class, or None."""
    return next((name for name, kind in _MODELS.items() if type(model) is kind), None)
