"""``observing`` and ``rounding`` for a whole prepared model, and calibration made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinycompress import nn
from tinycompress.compress.quantize.capture import batches
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer
from tinycompress.compress.quantize.qat.layers import Switched
from tinycompress.graph import no_grad
from tinycompress.nn import evaluation_mode
from tinycompress.tensor import Tensor


def switch(
    model: nn.Module, *, observing: bool | None = None, rounding: bool | None = None
) -> None:
    """Set the switches of every prepared layer; None leaves one as it is."""
    for layer in model.modules():
        if isinstance(layer, Switched):
            layer.observing = layer.observing if observing is None else observing
            layer.rounding = layer.rounding if rounding is None else rounding


@contextmanager
def switched(
    model: nn.Module, *, observing: bool | None = None, rounding: bool | None = None
) -> Iterator[None]:
    """The switches inside; each layer's own afterwards."""
    layers = [m for m in model.modules() if isinstance(m, Switched)]
    before = [(layer, layer.observing, layer.rounding) for layer in layers]
    switch(model, observing=observing, rounding=rounding)
    try:
        yield
    finally:
        for layer, observed, rounded in before:
            layer.observing, layer.rounding = observed, rounded


def observe(model: nn.Module, data: Any, batch_size: int = 100) -> None:
    """Run ``model`` in floats over ``data``, and let its layers see their activations.

    What they saw before counts on. Dropout and the like are in evaluation mode.

    Args:
        model: from ``prepare_qat``.
        data: images (N, ...), or a data set.
        batch_size: how many images at once.
    """
    with evaluation_mode(model), switched(model, observing=True, rounding=False), no_grad():
        for module in model.modules():
            if isinstance(module, ActivationQuantizer):
                module.__dict__["training"] = True
        for batch in batches(model, data, batch_size):
            model(Tensor(batch))
