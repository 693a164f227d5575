"""Layers without weights, on codes: they hand them on, on the grid on which they came.

ReLU, a maximum and flattening choose among codes or move them; a mean is rounded to a whole code
(``means.py``). Floats pass as through the float layer. A layer that is not known gets floats, by
:class:`OnFloats`.

A class with a ``forward`` of its own is fused only where it says itself what it is in a chain
(``nn/fusion.py``); those that are there what their float layer is say so again.
"""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F, nn
from tinycompress.compress.quantize.means import rounded_adaptive_avg_pool2d, rounded_avg_pool2d
from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.functional.pooling import check_window
from tinycompress.nn.fusion import Nothing
from tinycompress.ops.steps import Step
from tinycompress.tensor import apply


class IntegerIdentity(nn.Identity):
    """``nn.Identity``, and dropout in evaluation: codes as they are."""

    def forward(self, x: Any) -> Any:
        return x if isinstance(x, QTensor) else super().forward(x)

    def in_chain(self) -> Nothing:
        return super().in_chain()


class IntegerReLU(nn.ReLU):
    """``nn.ReLU`` on codes: none below the code of 0."""

    def forward(self, x: Any) -> Any:
        return x.with_steps(F.relu(x.steps())) if isinstance(x, QTensor) else super().forward(x)

    def in_chain(self) -> Step:
        return super().in_chain()


class IntegerMaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d`` on codes: the largest code of each window."""

    def forward(self, x: Any) -> Any:
        if not isinstance(x, QTensor):
            return super().forward(x)
        return x.with_steps(super().forward(x.steps()))

    def in_chain(self) -> Step | None:
        return super().in_chain()


class IntegerAvgPool2d(nn.AvgPool2d):
    """``nn.AvgPool2d`` on codes: the mean of each window, halves to even."""

    def forward(self, x: Any) -> Any:
        if not isinstance(x, QTensor):
            return super().forward(x)
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        check_image("avg_pool2d", x)
        check_window("avg_pool2d", x.shape, kernel, stride, padding, self.ceil_mode)
        y = apply(
            rounded_avg_pool2d,
            x.steps(),
            kernel=kernel,
            stride=stride,
            padding=padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )
        return x.with_steps(y)

    def in_chain(self) -> None:
        return None  # a chain takes the mean of floats


class IntegerAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """``nn.AdaptiveAvgPool2d`` on codes: the mean of each window, halves to even."""

    def forward(self, x: Any) -> Any:
        if not isinstance(x, QTensor):
            return super().forward(x)
        check_image("adaptive_avg_pool2d", x)
        return x.with_steps(apply(rounded_adaptive_avg_pool2d, x.steps(), output=self.output_size))


class IntegerFlatten(nn.Flatten):
    """``nn.Flatten`` on codes."""

    def forward(self, x: Any) -> Any:
        if not isinstance(x, QTensor):
            return super().forward(x)
        return x.flatten(self.start_dim, self.end_dim)


class OnFloats(nn.Module):
    """Any module, on the floats that codes stand for.

    Args:
        module: it gets each code as a float tensor, and everything else as it is. (None: to be
            assigned later, when a file is read.)
    """

    module: nn.Module

    def __init__(self, module: nn.Module | None = None) -> None:
        super().__init__()
        if module is not None:
            self.module = module

    def forward(self, *inputs: Any, **options: Any) -> Any:
        floats = (x.dequantize() if isinstance(x, QTensor) else x for x in inputs)
        return self.module(*floats, **options)


def check_image(name: str, x: QTensor) -> None:
    """Refuse what is no batch of images."""
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"{name}: input must be (N, C, H, W) with pixels, got shape {x.shape}")
