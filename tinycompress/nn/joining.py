"""Layers of several inputs: a sum, as residual networks have, and tensors one behind the other.

``a + b`` and ``F.cat`` in a model's ``forward`` compute the same. As layers they have a name and a
place in the model, so that what works on layers (quantization to integers, where the operands of a
sum may be codes on different grids) finds them.
"""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F
from tinycompress.nn.module import Module
from tinycompress.ops import elementwise
from tinycompress.tensor import Tensor, binary


class Add(Module):
    """``a + b``, broadcast: ``self.add = nn.Add()``, then ``self.add(x, self.conv(x))``."""

    def forward(self, a: Any, b: Any) -> Tensor:
        return binary(elementwise.add, a, b)


class Concat(Module):
    """Tensors one behind the other along ``axis`` (1: channels): ``nn.Concat()(a, b, c)``.

    See :func:`F.cat`. The axis may be negative.
    """

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise ValueError(f"Concat: axis must be a whole number, got {axis!r}")
        self.axis = axis

    def forward(self, *tensors: Any) -> Tensor:
        return F.cat(tensors, self.axis)

    def config(self) -> dict[str, Any]:
        return {"axis": self.axis}
