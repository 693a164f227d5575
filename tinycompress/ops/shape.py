"""Moving numbers about without changing them: each derivative moves the gradient back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, is_array
from tinycompress.ops.elementwise import Result


def reshape(x: Array, shape: tuple[int, ...]) -> Result:
    """The same numbers in row-major order under another shape; a view where memory allows."""
    return x.reshape(shape), (lambda g: g.reshape(x.shape),)


def transpose(x: Array, axes: tuple[int, ...]) -> Result:
    """Axes in another order, as a view: output axis ``i`` is input axis ``axes[i]``."""
    inverse = tuple(int(i) for i in np.argsort(axes))
    return x.transpose(axes), (lambda g: g.transpose(inverse),)


def expand(x: Array, shape: tuple[int, ...]) -> Result:
    """Repeat axes of length one, as a read-only view; the engine sums the gradient back."""
    return array_module(x).broadcast_to(x, shape), (lambda g: g,)


def getitem(x: Array, index: Any) -> Result:
    """``x[index]``: slices, numbers, None, Ellipsis, integer or boolean arrays.

    Array indices may name a place twice; its gradients then add up.
    """

    def d_x(g: Array) -> Array:
        xp = array_module(x)
        dx = xp.zeros(x.shape, g.dtype)
        if _names_once(index):
            dx[index] = g
        else:
            xp.add.at(dx, index, g)
        return dx

    return x[index], (d_x,)


def _names_once(index: Any) -> bool:
    """Whether no place can be named twice: so it is without integer arrays."""
    parts = index if isinstance(index, tuple) else (index,)
    return not any(is_array(i) and i.dtype.kind != "b" for i in parts)


def cat(*arrays: Array, axis: int) -> Result:
    """Arrays one behind the other along ``axis``; each gets its own piece of the gradient."""
    stops = np.cumsum([a.shape[axis] for a in arrays]).tolist()
    axis %= arrays[0].ndim

    def piece(start: int, stop: int) -> Any:
        return lambda g: g[(slice(None),) * axis + (slice(start, stop),)]

    vjps = tuple(piece(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True))
    return array_module(arrays[0]).concatenate(arrays, axis=axis), vjps


def pad(x: Array, widths: tuple[tuple[int, int], ...], value: float) -> Result:
    """``value`` around ``x``; ``widths`` is (before, after) for every axis, none negative."""
    inner = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
    shape = [before + n + after for (before, after), n in zip(widths, x.shape, strict=True)]
    y = array_module(x).full(shape, value, x.dtype)
    y[inner] = x
    return y, (lambda g: g[inner],)
