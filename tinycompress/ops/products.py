"""Stacks of matrix products, in pieces of the size at which BLAS is fastest.

OpenBLAS multiplies small matrices (up to a million multiply-adds, on processors with AVX-512)
without first copying them into its own order, and on the shapes of a convolution that is up to
twice as fast. So products are cut along their rows until each is that small, unless the pieces
would become so flat that nothing is gained. Elsewhere the cut does no harm. A GPU gets everything
at once.
"""

from __future__ import annotations

import math

import numpy as np

from tinycompress.backend import Array, array_module

FLOP_LIMIT = 1_000_000
"""Multiply-adds in one product."""

FLATTEST = 16
"""A piece of fewer rows is not worth the cut."""


def pieces(rows: int, flops_per_row: int) -> int:
    """Into how many equal pieces to cut ``rows``: the fewest that keep within the limit."""
    fewest = max(1, -(-rows * flops_per_row // FLOP_LIMIT))
    for count in range(fewest, rows // FLATTEST + 1):
        if rows % count == 0:
            return count
    return 1


def multiply(a: Array, b: Array, out: Array, add: bool = False) -> None:
    """``out = a @ b``, or ``out += a @ b``: a (h, G, m, k), b (G, k, n), out (h, G, m, n)."""
    xp = array_module(a)
    h, G, m, k = a.shape
    n = b.shape[2]
    count = pieces(m, k * n) if xp is np else 1
    if count > 1:
        a = a.reshape(h, G, count, m // count, k)
        b = b[:, None]
    if add:
        out += xp.matmul(a, b).reshape(h, G, m, n)
    elif count == 1:
        xp.matmul(a, b, out=out)
    else:
        xp.matmul(a, b, out=out.reshape(h, G, count, m // count, n))


def sum_of_products(a: Array, d: Array) -> Array:
    """``Σ_h a[h]ᵀ @ d[h]``: a (h, G, m, k), d (h, G, m, n) → (G, k, n)."""
    h, G, m, k = a.shape
    n = d.shape[3]
    count = pieces(m, k * n) if array_module(a) is np else 1
    if count > 1:
        a, d = a.reshape(h, G, count, m // count, k), d.reshape(h, G, count, m // count, n)
        return (a.swapaxes(-1, -2) @ d).sum(axis=(0, 2))
    if G == 1 and a.flags.c_contiguous and d.flags.c_contiguous:  # longer sums, fewer of them
        most = max(1, FLOP_LIMIT // max(1, m * k * n))
        together = next((c for c in range(min(h, most), 0, -1) if h % c == 0), 1)
        shape = (h // together, 1, together * m)
        a, d = a.reshape(*shape, k), d.reshape(*shape, n)
    return (a.swapaxes(-1, -2) @ d).sum(axis=0)


def sum_of_rows(y: Array) -> Array:
    """y (h, ..., O) → (O). A product with ones: BLAS adds long columns faster than ``sum`` does."""
    rows = y.reshape(len(y), math.prod(y.shape[1:-1]), y.shape[-1])
    ones = array_module(y).ones(rows.shape[1], y.dtype)
    return (ones @ rows).sum(axis=0)
