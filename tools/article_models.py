"""The models that ``article_listings.py`` speaks of, and what is measured of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.quantize import article_dequantize, article_quantize


@cache
def digits() -> tuple[tc.data.Dataset, tc.data.Dataset]:
    return tc.data.mnist()


@cache
def trained() -> nn.Module:
    """The article's CNN after five epochs."""
    tc.manual_seed(0)
    return train(tc.models.ArticleCNN(), epochs=5, lr=0.1)


@cache
def pruned() -> nn.Module:
    """Without its 90% smallest weights, and retrained for an epoch."""
    return train(tc.prune(trained(), 0.9), epochs=1, lr=0.05)


@cache
def student(seed: int, distilled: bool) -> nn.Module:
    """A TinyCNN of 2,346 parameters, trained on the labels alone or by the teacher as well. Each
    way has the learning rate that is best for it in ``student_rates.py``, on other digits.
    """
    tc.manual_seed(seed)
    model = tc.models.TinyCNN()
    options = {**recipe(model, epochs=6, lr=0.03 if distilled else 0.2), "seed": seed}
    if distilled:
        return tc.distill(trained(), model, digits()[0], temperature=4, alpha=0.9, **options)
    tc.fit(model, digits()[0], **options)
    return model


def recipe(model: nn.Module, epochs: int, lr: float) -> dict[str, Any]:
    """Momentum, and a learning rate that rises to ``lr`` and falls again."""
    rule = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    steps = epochs * tc.data.batch_count(digits()[0], 64)
    schedule = optim.OneCycleLR(rule, max_lr=lr, total_steps=steps)
    return {"epochs": epochs, "optimizer": rule, "schedule": schedule, "batch_size": 64}


def train(model: nn.Module, epochs: int, lr: float) -> nn.Module:
    tc.fit(model, digits()[0], **recipe(model, epochs, lr))
    return model


def through(change: Callable[[np.ndarray], np.ndarray], model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose weights went through ``change``."""
    model = model.copy()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight = nn.Parameter(change(layer.weight.data))
    return model


@cache
def quantized(model: nn.Module, bits: int) -> nn.Module:
    return tc.quantize(model, tc.QuantConfig(bits))


def by_formula(model: nn.Module, bits: int) -> nn.Module:
    return through(lambda w: article_dequantize(article_quantize(w, bits)), model)


def affine(bits: int) -> tc.QuantConfig:
    """What is nearest to the formula and keeps zeros."""
    return tc.QuantConfig(bits, scheme="affine", granularity="per_tensor")


# ---------------------------------------------------------------------------- what is measured


@cache
def answers(model: nn.Module) -> np.ndarray:
    """The digit that it takes each of the 10,000 test images for."""
    return tc.train.predict(model, digits()[1].images, batch_size=100).argmax(axis=1)


def rate(model: nn.Module) -> float:
    return float((answers(model) == digits()[1].labels).mean())


def accuracy(model: nn.Module) -> str:
    return f"{rate(model):.2%}"


def file_bytes(model: nn.Module) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return f"{tc.save(model, Path(folder) / 'model.tcz'):,}"


def zeros(model: nn.Module, what: str = "weight") -> str:
    """The share of zeros among the weights (or biases) of linear and convolution layers."""
    arrays = [getattr(m, what).data for m in model.modules() if hasattr(m, what)]
    return f"{sum(int((a == 0).sum()) for a in arrays) / sum(a.size for a in arrays):.2%}"


def attempt(call: Callable[[], Any]) -> str:
    """What ``call`` gives, or the error that it ends in."""
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def table(head: list[str], *rows: list[str]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in (head, *rows)
    ]
