"""Normalisation: batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167), layer norm (Ba et al. 2016).

Both are ``y = (x − μ)/√(σ² + ε) · w + b`` and differ in what μ and σ² are taken over: the batch and
its pixels for each channel, or the features of each sample. With x̂ = (x − μ)/√(σ² + ε) and mean
over the same set,

    dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(σ² + ε),    d = g · w

because μ and σ² depend on x too. Where they are given (evaluation) only ``d/√(σ² + ε)`` is left.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result


def channels_last(x: Array) -> Array:
    """(N, C, H, W), (N, C, L) or (N, C) → (M, C), a view where memory is (H, N, W, C)."""
    if x.ndim == 4:
        return x.transpose(2, 0, 3, 1).reshape(-1, x.shape[1])
    return x if x.ndim == 2 else x.transpose(0, 2, 1).reshape(-1, x.shape[1])


def channels_back(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`channels_last` for an x of ``shape``, as a view."""
    if len(shape) == 4:
        N, C, H, W = shape
        return rows.reshape(H, N, W, C).transpose(1, 3, 0, 2)
    if len(shape) == 3:
        return rows.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1)
    return rows.reshape(shape)


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel of x (N, C, ...), both (C)."""
    rows = channels_last(x)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return mean, (centred * centred).mean(axis=0)


def batch_norm(
    x: Array,
    w: Array | None,
    b: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    from_batch: bool,
) -> Result:
    """Normalise each channel of x (N, C) or (N, C, L) or (N, C, H, W); w, b, mean, var (C).

    ``from_batch`` says that mean and var are those of ``x`` itself, so that gradients flow
    through them.
    """
    xp = array_module(x)
    std = xp.sqrt(var + eps)
    normal = (channels_last(x) - mean) / std  # x̂
    y = normal if w is None else normal * w
    if b is not None:
        y = y + b

    def d_x(g: Array) -> Array:
        d = channels_last(g) if w is None else channels_last(g) * w
        if from_batch:
            d = d - d.mean(axis=0) - normal * (d * normal).mean(axis=0)
        return channels_back(d / std, x.shape)

    def d_w(g: Array) -> Array:
        return (channels_last(g) * normal).sum(axis=0)

    return channels_back(y, x.shape), (d_x, d_w, lambda g: channels_last(g).sum(axis=0))


def layer_norm(x: Array, w: Array | None, b: Array | None, axes: int, eps: float) -> Result:
    """Normalise over the last ``axes`` axes of x; w and b have the shape of those axes."""
    over = tuple(range(x.ndim - axes, x.ndim))

    def mean(a: Array) -> Array:
        return a.mean(axis=over, keepdims=True)

    centred = x - mean(x)
    std = array_module(x).sqrt(mean(centred * centred) + eps)
    normal = centred / std
    y: Any = normal if w is None else normal * w

    def d_x(g: Array) -> Array:
        d = g if w is None else g * w
        return (d - mean(d) - normal * mean(d * normal)) / std

    # The gradients of w and b have x's shape here; the engine sums the leading axes away.
    return y if b is None else y + b, (d_x, lambda g: g * normal, lambda g: g)
