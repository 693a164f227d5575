"""Pooling layers and Flatten: shapes change, nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinycompress import functional as F
from tinycompress.nn.module import Module
from tinycompress.ops import pool
from tinycompress.ops.steps import Step
from tinycompress.shapes import pair
from tinycompress.tensor import Tensor, as_tensor

Size = int | tuple[int, int]


class _Pool(Module):
    def __init__(
        self, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = pair(f"{layer}: kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair(f"{layer}: stride", stride, 1)
        self.padding = pair(f"{layer}: padding", padding, 0)
        self.ceil_mode = bool(ceil_mode)

    def _window_step(self, op: Callable[..., Any], **params: Any) -> Step | None:
        """A step where the windows tile the image, each pixel being in one or in none."""
        if self.stride != self.kernel_size or self.padding != (0, 0) or self.ceil_mode:
            return None
        k = self.kernel_size
        params = {"kernel": k, "stride": k, "padding": (0, 0), "ceil_mode": False, **params}
        return Step(op.__name__, op, params, window=k)

    def config(self) -> dict[str, Any]:
        return {
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "ceil_mode": self.ceil_mode,
        }


class MaxPool2d(_Pool):
    """The largest value of each window of x (N, C, H, W); see :func:`F.max_pool2d`."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)

    def forward(self, x: Any) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)

    def in_chain(self) -> Step | None:
        return self._window_step(pool.max_pool2d)


class AvgPool2d(_Pool):
    """The mean of each window of x (N, C, H, W); see :func:`F.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Any) -> Tensor:
        sizes = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return F.avg_pool2d(x, *sizes, self.count_include_pad)

    def in_chain(self) -> Step | None:
        return self._window_step(pool.avg_pool2d, count_include_pad=True)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "count_include_pad": self.count_include_pad}


class AdaptiveAvgPool2d(Module):
    """The mean over a grid of ``output_size`` windows: x (N, C, H, W) → (N, C, oh, ow)."""

    def __init__(self, output_size: Size) -> None:
        super().__init__()
        self.output_size = pair("AdaptiveAvgPool2d: output_size", output_size, 1)

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def config(self) -> dict[str, Any]:
        return {"output_size": list(self.output_size)}


class Flatten(Module):
    """x (N, ...) → (N, everything), in N, C, H, W order; axes ``start_dim`` to ``end_dim``."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        return as_tensor(x).flatten(self.start_dim, self.end_dim)

    def config(self) -> dict[str, Any]:
        return {"start_dim": self.start_dim, "end_dim": self.end_dim}
