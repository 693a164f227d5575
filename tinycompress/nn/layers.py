"""The layers with weights: linear and convolution. Weights start as torch starts them.

That is ``kaiming_uniform_(a=√5)``, which is uniform within ±1/√fan_in, for weights and biases.
"""

from __future__ import annotations

import math
from typing import Any

from tinycompress.functional.layers import conv2d_chain, linear_chain
from tinycompress.nn import init
from tinycompress.nn.fusion import Head
from tinycompress.nn.module import Module
from tinycompress.nn.parameter import Parameter
from tinycompress.nn.skeleton import making_skeletons, new_array
from tinycompress.ops import conv, linear
from tinycompress.shapes import pair, whole
from tinycompress.tensor import Tensor

Size = int | tuple[int, int]


class Linear(Module):
    """``y = x wᵀ + b``: x (..., in) → (..., out); weight (out, in), bias (out) or None."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = whole("Linear: in_features", in_features, 1)
        self.out_features = whole("Linear: out_features", out_features, 1)
        self.weight = Parameter(new_array((self.out_features, self.in_features)))
        self.bias = Parameter(new_array((self.out_features,))) if bias else None
        _default_init(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return linear_chain(x, self.weight, self.bias, steps=())

    def in_chain(self) -> Head:
        return Head(linear_chain, linear.linear, self.weight, self.bias, {}, axes=2, windows=False)

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
        self.in_channels = whole("Conv2d: in_channels", in_channels, 1)
        self.out_channels = whole("Conv2d: out_channels", out_channels, 1)
        self.kernel_size = pair("Conv2d: kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d: stride", stride, 1)
        self.padding = pair("Conv2d: padding", padding, 0)
        self.dilation = pair("Conv2d: dilation", dilation, 1)
        self.groups = whole("Conv2d: groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Conv2d: groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = Parameter(new_array(shape))
        self.bias = Parameter(new_array((self.out_channels,))) if bias else None
        _default_init(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return conv2d_chain(x, self.weight, self.bias, steps=(), **self._options())

    def in_chain(self) -> Head:
        options = self._options()
        return Head(
            conv2d_chain, conv.conv2d, self.weight, self.bias, options, axes=4, windows=True
        )

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

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


def _default_init(weight: Parameter, bias: Parameter | None) -> None:
    if making_skeletons():
        return
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(init.fans(weight)[0])
        init.uniform_(bias, -bound, bound)
