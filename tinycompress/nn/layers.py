"""The layers with weights: linear and convolution. Weights start as torch starts them.

That is ``kaiming_uniform_(a=√5)``, which is uniform within ±1/√fan_in, for weights and biases.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinycompress import functional as F
from tinycompress.nn import init
from tinycompress.nn.module import Module
from tinycompress.nn.parameter import Parameter
from tinycompress.shapes import pair
from tinycompress.tensor import Tensor

Size = int | tuple[int, int]


class Linear(Module):
    """``y = x wᵀ + b``: x (..., in) → (..., out); weight (out, in), bias (out) or None."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = _positive("Linear", "in_features", in_features)
        self.out_features = _positive("Linear", "out_features", out_features)
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        self.bias = Parameter(np.empty(out_features, np.float32)) if bias else None
        _default_init(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias is not None,
        }

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape[1:]) * self.in_features


class Conv2d(Module):
    """Two-dimensional convolution: x (N, C, H, W) → (N, O, oh, ow).

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, dilation: whole numbers, or (height, width).
        groups: independent groups of channels; ``groups = in_channels`` is a depthwise convolution.
        bias: whether to add one number per output channel.

    Attributes:
        weight: (O, C / groups, kh, kw).
        bias: (O), or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = _positive("Conv2d", "in_channels", in_channels)
        self.out_channels = _positive("Conv2d", "out_channels", out_channels)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        self.groups = _positive("Conv2d", "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(np.empty(shape, np.float32))
        self.bias = Parameter(np.empty(out_channels, np.float32)) if bias else None
        _default_init(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def config(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
            "groups": self.groups,
            "bias": self.bias is not None,
        }

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        kh, kw = self.kernel_size
        return math.prod(output_shape[1:]) * kh * kw * (self.in_channels // self.groups)


def _positive(layer: str, name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{layer}: {name} must be a whole number ≥ 1, got {value!r}")
    return value


def _default_init(weight: Parameter, bias: Parameter | None) -> None:
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(init.fans(weight)[0])
        init.uniform_(bias, -bound, bound)
