"""Activation functions of tensors; formulas and derivatives are in ``ops/activations.py``."""

from __future__ import annotations

from typing import Any

from tinycompress.ops import activations
from tinycompress.shapes import filled_axes
from tinycompress.tensor import Tensor, apply, as_float_tensor


def relu(x: Any) -> Tensor:
    """``max(x, 0)``."""
    return apply(activations.relu, as_float_tensor(x))


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """``x`` above 0, ``negative_slope · x`` below."""
    return apply(activations.leaky_relu, as_float_tensor(x), slope=float(negative_slope))


def sigmoid(x: Any) -> Tensor:
    """``1 / (1 + e⁻ˣ)``."""
    return apply(activations.sigmoid, as_float_tensor(x))


def tanh(x: Any) -> Tensor:
    """The hyperbolic tangent."""
    return apply(activations.tanh, as_float_tensor(x))


def gelu(x: Any) -> Tensor:
    """``x Φ(x)`` with the exact normal distribution function Φ."""
    return apply(activations.gelu, as_float_tensor(x))


def silu(x: Any) -> Tensor:
    """``x σ(x)``, also called swish."""
    return apply(activations.silu, as_float_tensor(x))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """``eˣ / Σeˣ`` along ``axis``."""
    x = as_float_tensor(x)
    filled_axes("softmax", x.shape, axis)
    return apply(activations.softmax, x, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of :func:`softmax`, without its underflow."""
    x = as_float_tensor(x)
    filled_axes("log_softmax", x.shape, axis)
    return apply(activations.log_softmax, x, axis=axis)
