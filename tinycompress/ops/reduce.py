"""Reductions: sum, mean, variance, maximum, minimum over some axes.

``axis`` is None (all), a number or a tuple. The derivative of a reduction spreads ``g`` back over
what was reduced, so each vjp first puts the reduced axes back with length one (:func:`spread`).
"""

from __future__ import annotations

import math

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.shapes import Axes, axes_of


def spread(g: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """``g``, whose ``axes`` were reduced, as a read-only view of ``shape``."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return array_module(g).broadcast_to(g.reshape(kept), shape)


def sum(x: Array, axis: Axes = None, keepdim: bool = False) -> Result:
    """``d Σx = Σ dx``: every summand gets ``g``."""
    axes = axes_of(x.shape, axis)
    return x.sum(axis=axes, keepdims=keepdim), (lambda g: spread(g, x.shape, axes),)


def mean(x: Array, axis: Axes = None, keepdim: bool = False) -> Result:
    """``Σx / n``: every value gets ``g/n``."""
    axes = axes_of(x.shape, axis)
    n = math.prod(x.shape[a] for a in axes)
    return x.mean(axis=axes, keepdims=keepdim), (lambda g: spread(g / n, x.shape, axes),)


def var(x: Array, axis: Axes = None, keepdim: bool = False, correction: int = 1) -> Result:
    """``Σ(x − mean)² / (n − correction)``; ``d = 2(x − mean)/(n − correction) dx``."""
    axes = axes_of(x.shape, axis)
    n = math.prod(x.shape[a] for a in axes)
    centred = x - x.mean(axis=axes, keepdims=True)
    y = (centred * centred).sum(axis=axes, keepdims=keepdim) / (n - correction)
    return y, (lambda g: spread(g, x.shape, axes) * centred * (2 / (n - correction)),)


def max(x: Array, axis: Axes = None, keepdim: bool = False) -> Result:
    """The largest value. Equal maxima share the gradient evenly, as ``torch.amax`` does."""
    axes = axes_of(x.shape, axis)
    y = x.max(axis=axes, keepdims=True)
    return _squeeze(y, axes, keepdim), (lambda g: _share(g, x, y, axes),)


def min(x: Array, axis: Axes = None, keepdim: bool = False) -> Result:
    """The smallest value. Equal minima share the gradient evenly, as ``torch.amin`` does."""
    axes = axes_of(x.shape, axis)
    y = x.min(axis=axes, keepdims=True)
    return _squeeze(y, axes, keepdim), (lambda g: _share(g, x, y, axes),)


def _squeeze(y: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    return y if keepdim else y.reshape([n for i, n in enumerate(y.shape) if i not in axes])


def _share(g: Array, x: Array, y: Array, axes: tuple[int, ...]) -> Array:
    winners = (x == y).astype(g.dtype)
    return spread(g, x.shape, axes) * (winners / winners.sum(axis=axes, keepdims=True))
