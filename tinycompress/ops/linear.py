"""Matrix products: ``matmul`` in NumPy's broadcasting sense, and the linear layer."""

from __future__ import annotations

import math

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.ops.steps import Chain, Steps


def matmul(a: Array, b: Array) -> Result:
    """``a @ b``; ``da = g bᵀ``, ``db = aᵀ g``. A vector is a row on the left, a column on the
    right. Leading axes broadcast; the engine sums their gradients back.
    """
    row, column = a.ndim == 1, b.ndim == 1
    left = a[None, :] if row else a
    right = b[:, None] if column else b

    def matrix(g: Array) -> Array:  # put back the axes that the vectors lost
        g = g[..., None] if column else g
        return g[..., None, :] if row else g

    def d_a(g: Array) -> Array:
        d = matrix(g) @ right.swapaxes(-1, -2)
        return d[..., 0, :] if row else d

    def d_b(g: Array) -> Array:
        d = left.swapaxes(-1, -2) @ matrix(g)
        return d[..., 0] if column else d

    return a @ b, (d_a, d_b)


def linear(x: Array, w: Array, b: Array | None, steps: Steps = (), keep: bool = True) -> Result:
    """``x wᵀ + b`` with x (..., in), w (out, in), b (out): torch's layout of the weight.

    The steps follow on that (none of them has a window).
    """
    chain = Chain(steps, b)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = (rows @ w.T)[None]  # (1, M, out): a block of one row, as a convolution's
    out = y if chain.in_place else array_module(y).empty_like(y)
    undo = chain.forward(y, out, keep)

    def backward(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        db = array_module(g).zeros(w.shape[0], g.dtype) if wanted[2] else None
        d = chain.backward(undo, g.reshape(out.shape), db)[0]
        dx = (d @ w).reshape(x.shape) if wanted[0] else None
        return dx, d.T @ rows if wanted[1] else None, db

    return out.reshape(*x.shape[:-1], w.shape[0]), backward
