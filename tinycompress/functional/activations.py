"""Activation functions of tensors; formulas and derivatives are in ``ops/activations.py``."""

from __future__ import annotations

from typing import Any

from tinycompress.ops import activations
from tinycompress.shapes import number
from tinycompress.tensor import Tensor, apply, as_float_tensor, as_tensor


def relu(x: Any) -> Tensor:
    """``max(x, 0)``."""
    return as_tensor(x).relu()


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """``x`` above 0, ``negative_slope · x`` below."""
    slope = float(number("leaky_relu: negative_slope", negative_slope))
    return apply(activations.leaky_relu, as_float_tensor(x), slope=slope)


def sigmoid(x: Any) -> Tensor:
    """``1 / (1 + e⁻ˣ)``."""
    return as_tensor(x).sigmoid()


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return as_tensor(x).tanh()


def gelu(x: Any) -> Tensor:
    """``x Φ(x)`` with the exact normal distribution function Φ."""
    return apply(activations.gelu, as_float_tensor(x))


def silu(x: Any) -> Tensor:
    """``x σ(x)``, also called swish."""
    return apply(activations.silu, as_float_tensor(x))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """``eˣ / Σeˣ`` along ``axis``."""
    return as_tensor(x).softmax(axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`, without its underflow."""
    return as_tensor(x).log_softmax(axis)
