"""Layers without weights, in training for codes: they hand codes on, on the same grid.

Most do it as in the integer engine (``integer/passing.py``), whose modules have derivatives, too.
Here is what is different in training: dropout, the derivative of a ReLU, and means where rounding
is switched off.
"""

from __future__ import annotations

from typing import Any

from tinycompress import nn
from tinycompress.backend import array_module, on_device
from tinycompress.compress.quantize.integer import (
    IntegerAdaptiveAvgPool2d,
    IntegerAvgPool2d,
    IntegerFlatten,
    IntegerIdentity,
    IntegerMaxPool2d,
    IntegerReLU,
)
from tinycompress.compress.quantize.qat.activations import Unrounded
from tinycompress.compress.quantize.qat.layers import as_scale
from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.tensor import Tensor


class PreparedReLU(IntegerReLU):
    """The code of 0, and what is above it. At 0 the gradient passes, as at every end of a clip."""

    def forward(self, x: Any) -> Any:
        return (
            x.with_steps(x.steps().clamp(min=0)) if isinstance(x, QTensor) else super().forward(x)
        )


class PreparedAvgPool2d(IntegerAvgPool2d):
    """The mean of each window, as a whole code unless rounding is off."""

    def forward(self, x: Any) -> Any:
        if isinstance(x, Unrounded):
            return x.with_steps(nn.AvgPool2d.forward(self, x.steps()))
        return super().forward(x)


class PreparedAdaptiveAvgPool2d(IntegerAdaptiveAvgPool2d):
    """The mean of each window, as a whole code unless rounding is off."""

    def forward(self, x: Any) -> Any:
        if isinstance(x, Unrounded):
            return x.with_steps(nn.AdaptiveAvgPool2d.forward(self, x.steps()))
        return super().forward(x)


class PreparedDropout(nn.Dropout):
    """Zeroes codes, and multiplies the scale where dropout multiplies the values."""

    def forward(self, x: Any) -> Any:
        if not isinstance(x, QTensor):
            return super().forward(x)
        if not self.training or self.p == 0:
            return x
        steps = x.steps()
        with on_device(steps.data):
            ones = Tensor(array_module(steps.data).ones_like(steps.data))
            kept = Tensor((super().forward(ones).data != 0).astype(steps.dtype))
        grid = x.grid if self.p == 1 else x.grid._replace(scale=as_scale(x) / (1 - self.p))
        return type(x).from_steps(steps * kept, grid)


PASSING: dict[type[nn.Module], type[nn.Module]] = {
    nn.Identity: IntegerIdentity,
    nn.ReLU: PreparedReLU,
    nn.MaxPool2d: IntegerMaxPool2d,
    nn.AvgPool2d: PreparedAvgPool2d,
    nn.AdaptiveAvgPool2d: PreparedAdaptiveAvgPool2d,
    nn.Flatten: IntegerFlatten,
    nn.Dropout: PreparedDropout,
}
"""Float layer → what takes its place in training."""

CONVERTED: dict[type[nn.Module], type[nn.Module]] = {
    PreparedReLU: IntegerReLU,
    PreparedAvgPool2d: IntegerAvgPool2d,
    PreparedAdaptiveAvgPool2d: IntegerAdaptiveAvgPool2d,
    PreparedDropout: IntegerIdentity,
}
"""What takes the place of that in the integer engine; the others stay."""


def exchanged(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A ``kind`` with the config of ``module``."""
    config = {} if kind is IntegerIdentity else module.config()
    return kind(**config).train(module.training)
