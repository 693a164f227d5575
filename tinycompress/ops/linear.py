"""Matrix products: ``matmul`` in NumPy's broadcasting sense, and the linear layer."""

from __future__ import annotations

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.ops.steps import Steps, run_steps


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


def linear(x: Array, w: Array, b: Array | None, steps: Steps = ()) -> Result:
    """``x wᵀ + b`` with x (..., in), w (out, in), b (out): torch's layout of the weight.

    The steps follow on that (none of them has a window).
    """
    y = x @ w.T
    if b is not None:
        y += b

    def rows(a: Array) -> Array:  # (..., n) -> (everything, n)
        return a.reshape(-1, a.shape[-1])

    def d_bias(g: Array) -> Array:
        xp = array_module(g)  # a product with ones: BLAS adds columns faster than sum(axis=0)
        return xp.ones(rows(g).shape[0], g.dtype) @ rows(g)

    out, through = run_steps(y, steps)
    derivatives = (lambda g: g @ w, lambda g: rows(g).T @ rows(x), d_bias)

    def backward(g: Array, wanted: tuple[bool, ...]) -> list[Array | None]:
        g = through(g)
        return [d(g) if asked else None for d, asked in zip(derivatives, wanted, strict=True)]

    return out, backward
