"""What a layer does whose weight is made anew at each pass: from codes, or from a codebook.

Classes with these in front of them have a ``weight`` and a ``bias`` like the float layer, and run
the same operations, fused with what follows them (``nn/fusion.py``).
"""

from __future__ import annotations

from typing import Any

from tinycompress import nn
from tinycompress.functional.layers import conv2d_chain, linear_chain
from tinycompress.nn.fusion import Head
from tinycompress.ops import conv, linear
from tinycompress.tensor import Tensor


class MadeLinear(nn.Module):
    """x (..., in) → (..., out)."""

    weight: Any
    bias: Any

    def forward(self, x: Any) -> Tensor:
        return linear_chain(x, self.weight, self.bias, steps=())

    def in_chain(self) -> Head:
        return Head(linear_chain, linear.linear, self.weight, self.bias, {}, axes=2, windows=False)


class MadeConv2d(nn.Module):
    """x (N, C, H, W) → (N, O, oh, ow)."""

    weight: Any
    bias: Any

    def like(self, layer: nn.Conv2d) -> None:
        """Take over the sizes of a float layer."""
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.groups = layer.kernel_size, layer.groups
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    def forward(self, x: Any) -> Tensor:
        return conv2d_chain(x, self.weight, self.bias, steps=(), **self._geometry())

    def in_chain(self) -> Head:
        options = self._geometry()
        return Head(
            conv2d_chain, conv.conv2d, self.weight, self.bias, options, axes=4, windows=True
        )

    def _geometry(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}
