"""Activations as layers, Identity and Dropout."""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F
from tinycompress.nn.fusion import Nothing
from tinycompress.nn.module import Module
from tinycompress.ops import activations
from tinycompress.ops.steps import Step
from tinycompress.tensor import Tensor, as_tensor


class Identity(Module):
    """Gives back its input."""

    def forward(self, x: Any) -> Tensor:
        return as_tensor(x)

    def in_chain(self) -> Nothing:
        return Nothing()


class ReLU(Module):
    """``max(x, 0)``."""

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)

    def in_chain(self) -> Step:
        return Step("relu", activations.relu, monotone=True)


class LeakyReLU(Module):
    """``x`` above 0, ``negative_slope · x`` below."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def in_chain(self) -> Step | None:
        slope = self.negative_slope
        if not isinstance(slope, float | int):
            return None  # forward refuses it, or reads it
        params = {"slope": float(slope)}
        return Step("leaky_relu", activations.leaky_relu, params, monotone=slope >= 0)

    def config(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope}


class Sigmoid(Module):
    """``1 / (1 + e⁻ˣ)``."""

    def forward(self, x: Any) -> Tensor:
        return F.sigmoid(x)

    def in_chain(self) -> Step:
        return Step("sigmoid", activations.sigmoid, monotone=True)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x)

    def in_chain(self) -> Step:
        return Step("tanh", activations.tanh, monotone=True)


class GELU(Module):
    """``x Φ(x)``."""

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x)

    def in_chain(self) -> Step:
        return Step("gelu", activations.gelu)


class SiLU(Module):
    """``x σ(x)``."""

    def forward(self, x: Any) -> Tensor:
        return F.silu(x)

    def in_chain(self) -> Step:
        return Step("silu", activations.silu)


class Softmax(Module):
    """``eˣ / Σeˣ`` along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return F.softmax(x, self.axis)

    def config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class LogSoftmax(Softmax):
    """The logarithm of :class:`Softmax`."""

    def forward(self, x: Any) -> Tensor:
        return F.log_softmax(x, self.axis)


class Dropout(Module):
    """In training, zero each value with probability p and scale the others by 1/(1 − p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not (isinstance(p, float | int) and 0 <= p <= 1):
            raise ValueError(f"Dropout: p must be between 0 and 1, got {p!r}")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def in_chain(self) -> Nothing | None:
        return None if self.training else Nothing()

    def config(self) -> dict[str, Any]:
        return {"p": self.p}
