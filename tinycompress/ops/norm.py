"""Normalisation: batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167), layer norm (Ba et al. 2016).

Both are ``y = (x − μ)/√(σ² + ε) · w + b`` and differ in what μ and σ² are taken over: the batch and
its pixels for each channel, or the features of each sample. With x̂ = (x − μ)/√(σ² + ε) and mean
over the same set,

    dw = Σ g · x̂,    db = Σ g,    dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(σ² + ε),    d = g · w

because μ and σ² depend on x too. For batch norm the two means are db and dw again, so all three
gradients come together. Where μ and σ² are given (evaluation) only ``d/√(σ² + ε)`` is left.

None of this is arithmetic worth speaking of; the time goes into passes over memory. So each pass
does all it can on one block in the cache, x̂ is computed again rather than kept, and numbers per
channel are repeated to long rows, since a loop over a few channels only is a slow one.
"""

from __future__ import annotations

import math

import numpy as np

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result

ROW = 8192
"""Numbers in one long row, at most (unless there are more channels)."""

BLOCK = 1 << 16
"""Numbers in one block."""


def channels_last(x: Array) -> Array:
    """(N, C, H, W), (N, C, L) or (N, C) → (M, C), a view where memory is (H, N, W, C)."""
    if x.ndim == 4:
        x = x.transpose(2, 0, 3, 1)
    elif x.ndim == 3:
        x = x.transpose(0, 2, 1)
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def channels_back(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`channels_last` for an x of ``shape``, as a view."""
    if len(shape) == 4:
        N, C, H, W = shape
        return rows.reshape(H, N, W, C).transpose(1, 3, 0, 2)
    if len(shape) == 3:
        return rows.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1)
    return rows.reshape(shape)


# -------------------------------------------------------------------------------------- long rows


def long_rows(x: Array) -> Array:
    """x (N, C, ...) → (R, k·C): k pixels beside each other, as many as fit into a row."""
    rows = channels_last(x)
    M, C = rows.shape
    k = next((k for k in range(ROW // max(C, 1), 1, -1) if M % k == 0), 1)
    return rows.reshape(M // k, k * C)


def repeated(channels: Array, rows: Array) -> Array:
    """One number per channel (C) → (k·C), for every pixel of a long row."""
    C = len(channels)
    k = rows.shape[1] // max(C, 1)
    return array_module(rows).broadcast_to(channels, (k, C)).reshape(k * C)


def folded(row: Array, C: int) -> Array:
    """The transpose of :func:`repeated`: (k·C) → (C), sums over the pixels."""
    return row.reshape(len(row) // max(C, 1), C).sum(axis=0)


def blocks_of(rows: Array) -> list[slice]:
    """Parts of the rows that fit into the cache; on a GPU all of them."""
    R, L = rows.shape
    step = max(1, BLOCK // max(1, L)) if array_module(rows) is np else max(1, R)
    return [slice(k, k + step) for k in range(0, R, step)]


def sums(rows: Array) -> Array:
    """(R, L) → (L): a product with ones, which BLAS does faster than ``sum`` adds."""
    return array_module(rows).ones(len(rows), rows.dtype) @ rows


def sums_of_products(a: Array, b: Array) -> Array:
    """Σ a·b along the rows, (R, L) twice → (L), without an array of the products."""
    return array_module(a).einsum("rl,rl->l", a, b)


# --------------------------------------------------------------------------------------- batch norm


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel of x (N, C, ...), both (C)."""
    rows, C = long_rows(x), x.shape[1]
    count = x.size // C
    mean = folded(sums(rows), C) / count
    return mean, _sum_with_centred(rows, rows, mean) / count


def _sum_with_centred(rows: Array, other: Array, mean: Array) -> Array:
    """Σ (x − mean) · other of each channel; squares where ``other`` is x itself."""
    centre, total = repeated(mean, rows), array_module(rows).zeros(rows.shape[1], rows.dtype)
    for block in blocks_of(rows):
        centred = rows[block] - centre
        total += sums_of_products(centred, centred if other is rows else other[block])
    return folded(total, len(mean))


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
    rows, C = long_rows(x), x.shape[1]
    inverse = 1 / xp.sqrt(var + eps)
    scale = inverse if w is None else inverse * w
    centre, scale_row = repeated(mean, rows), repeated(scale, rows)
    shift_row = None if b is None else repeated(b, rows)
    y = xp.empty_like(rows)
    for block in blocks_of(rows):
        part = xp.subtract(rows[block], centre, out=y[block])
        part *= scale_row
        if shift_row is not None:
            part += shift_row

    def backward(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        g = long_rows(g)
        through = from_batch and wanted[0]
        dw = _sum_with_centred(rows, g, mean) * inverse if wanted[1] or through else None
        db = folded(sums(g), C) if wanted[2] or through else None
        return d_x(g, dw, db) if wanted[0] else None, dw, db

    def d_x(g: Array, dw: Array | None, db: Array | None) -> Array:
        dx = xp.empty_like(g)
        if from_batch:  # scale · (g − db/M − x̂ · dw/M) = scale · g + slope · (x − mean) + level
            share = scale / (x.size // C)
            slope, level = repeated(-share * inverse * dw, rows), repeated(-share * db, rows)
        for block in blocks_of(rows):
            part = xp.multiply(g[block], scale_row, out=dx[block])
            if from_batch:
                centred = rows[block] - centre
                centred *= slope
                part += centred
                part += level
        return channels_back(dx, x.shape)

    return channels_back(y, x.shape), backward


# --------------------------------------------------------------------------------------- layer norm


def layer_norm(x: Array, w: Array | None, b: Array | None, axes: int, eps: float) -> Result:
    """Normalise over the last ``axes`` axes of x; w and b have the shape of those axes."""
    xp = array_module(x)
    inner = x.shape[x.ndim - axes :]
    n = math.prod(inner)
    normal = x.reshape(x.size // max(n, 1), n)
    normal = normal - normal.mean(axis=1, keepdims=True)
    inverse = 1 / xp.sqrt(xp.einsum("rn,rn->r", normal, normal) / n + eps)[:, None]
    normal *= inverse
    y = normal.copy() if w is None else normal * w.reshape(n)
    if b is not None:
        y += b.reshape(n)

    def backward(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        g = g.reshape(normal.shape)
        dw = sums_of_products(g, normal).reshape(inner) if wanted[1] else None
        db = sums(g).reshape(inner) if wanted[2] else None
        return d_x(g) if wanted[0] else None, dw, db

    def d_x(g: Array) -> Array:
        d = g.copy() if w is None else g * w.reshape(n)
        along = xp.einsum("rn,rn->r", d, normal)[:, None] / n
        d -= d.mean(axis=1, keepdims=True)
        d -= normal * along
        d *= inverse
        return d.reshape(x.shape)

    return y.reshape(x.shape), backward
