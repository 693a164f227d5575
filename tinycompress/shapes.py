"""Arithmetic of shapes and axes, with the errors that a user sees when they do not fit."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Axes = int | tuple[int, ...] | None


def axes_of(shape: Shape, axis: Axes) -> tuple[int, ...]:
    """``axis`` (None: all) as a sorted tuple of numbers in ``0 … ndim − 1``."""
    ndim = len(shape)
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    for a in given:
        if not isinstance(a, Integral):
            raise TypeError(f"axis must be a whole number or a tuple of them, got {axis!r}")
        if not -ndim <= a < ndim:
            raise IndexError(f"axis {a} is out of range for a tensor of shape {shape}")
    axes = tuple(sorted(int(a) % ndim for a in given))
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis {axis} names an axis of shape {shape} twice")
    return axes


def filled_axes(name: str, shape: Shape, axis: Axes) -> tuple[int, ...]:
    """As :func:`axes_of`, for reductions that have no value for nothing."""
    axes = axes_of(shape, axis)
    if any(shape[a] == 0 for a in axes):
        raise ValueError(f"{name}: nothing to reduce along axis {axis} of shape {shape}")
    return axes


def one_filled_axis(name: str, shape: Shape, axis: int) -> int:
    """As :func:`filled_axes`, where it can only be one."""
    axes = filled_axes(name, shape, axis)
    if len(axes) != 1:
        raise ValueError(f"{name}: axis must be one axis, got {axis}")
    return axes[0]


def flat(name: str, sizes: tuple[Any, ...]) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    inner = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    if not all(isinstance(s, Integral) for s in inner):
        raise TypeError(f"{name}: expected whole numbers, got {inner}")
    return tuple(int(s) for s in inner)


def reshaped(old: Shape, new: Shape) -> Shape:
    """``new`` with its −1 filled in."""
    known = math.prod(s for s in new if s != -1)
    total = math.prod(old)
    guess = total // known if known else 0
    full = tuple(guess if s == -1 else s for s in new)
    if new.count(-1) > 1 or any(s < 0 for s in full) or math.prod(full) != total:
        raise ValueError(f"reshape: {total} values of shape {old} do not fit into {new}")
    return full


def flattened(old: Shape, start: int, end: int) -> Shape:
    """The shape with axes ``start`` to ``end`` as one; a number becomes a row of one."""
    if not old:
        return (1,)
    first, last = axes_of(old, start)[0], axes_of(old, end)[0]
    if first > last:
        raise ValueError(f"flatten: start={start} comes after end={end} in shape {old}")
    return (*old[:first], math.prod(old[first : last + 1]), *old[last + 1 :])


def unsqueezed(old: Shape, axis: int) -> Shape:
    """The shape with an axis of length one before axis ``axis``."""
    at = axis + len(old) + 1 if axis < 0 else axis
    if not 0 <= at <= len(old):
        raise IndexError(f"unsqueeze: axis {axis} is out of range for shape {old}")
    return (*old[:at], 1, *old[at:])


def order_of(shape: Shape, axes: Shape) -> tuple[int, ...]:
    """``axes`` as numbers from 0, each axis of ``shape`` once."""
    order = tuple(axes_of(shape, a)[0] for a in axes)
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"permute: {axes} is not an order of the {len(shape)} axes")
    return order


def pad_widths(shape: Shape, widths: Any) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis of ``shape``."""
    try:
        pairs = tuple((whole("", a, 0), whole("", b, 0)) for a, b in widths)
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) != len(shape):
        raise ValueError(
            f"pad: widths need (before, after) ≥ 0 for each of {len(shape)} axes, got {widths}"
        )
    return pairs


def expanded(old: Shape, want: Shape) -> Shape:
    """The shape that ``expand(want)`` gives, −1 filled in."""
    aligned = (1,) * (len(want) - len(old)) + old
    if len(want) >= len(old):
        new = tuple(o if s == -1 else s for o, s in zip(aligned, want, strict=True))
        if all(o in (1, n) and n >= 0 for o, n in zip(aligned, new, strict=True)):
            return new
    raise ValueError(f"expand: shape {old} does not stretch to {want}")


def check_broadcast(name: str, a: Shape, b: Shape) -> None:
    """Refuse shapes that do not broadcast together."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(f"{name}: shapes {a} and {b} do not broadcast together")


def whole(name: str, value: Any, least: int) -> int:
    """``value``, a whole number of Python or NumPy that is at least ``least``, as an int."""
    if not _is_whole(value, least):
        raise ValueError(f"{name} must be a whole number ≥ {least}, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> int | float:
    """``value`` as a Python number: NumPy's scalars would make a float32 array float64."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """A size for height and width: one whole number for both, or two; each at least ``least``."""
    two = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(two) != 2 or not all(_is_whole(v, least) for v in two):
        raise ValueError(
            f"{name} must be a whole number ≥ {least} or two of them (height, width), got {value!r}"
        )
    return int(two[0]), int(two[1])


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
