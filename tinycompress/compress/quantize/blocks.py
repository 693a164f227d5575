"""Which numbers share one scale: all of them, one channel's, or a group of a channel's.

Everywhere in quantization a *block* is described by two arguments:

=================  ==============================================  ==================
granularity        arguments                                       shape of ``scale``
=================  ==============================================  ==================
per tensor         ``axis=None``                                   (1)
per channel        ``axis=a``: one slice along axis a              (C)
per group          ``axis=a, group=g``: g numbers in a row of the  (C, ⌈K/g⌉)
                   slice; the last group may be shorter
=================  ==============================================  ==================

where the data seen as a matrix of one row per slice is (C, K). This is the only file that knows
how: :func:`reduce_blocks` goes from data to one number per block, :func:`spread` from one number
per block back to something that broadcasts against the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinycompress.backend import Array, array_module

Shape = tuple[int, ...]


def block_shape(shape: Shape, axis: int | None, group: int | None = None) -> Shape:
    """The shape of ``scale`` and ``zero_point`` for data of ``shape``.

    Raises:
        ValueError: an axis that is not there, a group without an axis or below 1.
    """
    if axis is None:
        if group is not None:
            raise ValueError("groups are cut from the slices of an axis: give axis as well")
        return (1,)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} is out of range for data of shape {shape}")
    if group is None:
        return (shape[axis],)
    if group < 1:
        raise ValueError(f"group must be a whole number ≥ 1, got {group!r}")
    return (shape[axis], -(-_row_length(shape, axis) // group))


def reduce_blocks(
    reduce: Callable[[Array], Array], x: Array, axis: int | None, group: int | None = None
) -> Array:
    """``reduce`` (over the last axis of what it gets) of each block of ``x``, one number for each.

    With groups it is called with (C, groups, g), and once more for the ragged last group.
    """
    block_shape(x.shape, axis, group)
    if axis is None:
        return reduce(x.reshape(1, -1))  # -> (1)
    rows = _rows(x, axis)  # (C, K)
    if group is None:
        return reduce(rows)  # -> (C)
    end = rows.shape[1] // group * group
    parts = [reduce(rows[:, :end].reshape(rows.shape[0], -1, group))] if end else []
    if end < rows.shape[1]:
        parts.append(reduce(rows[:, None, end:]))  # the ragged last group
    return array_module(x).concatenate(parts, axis=1)  # -> (C, ⌈K/g⌉)


def spread(values: Array, shape: Shape, axis: int | None, group: int | None = None) -> Array:
    """One number per block, reshaped or repeated so that it broadcasts against ``shape``.

    Raises:
        ValueError: ``values`` are not of the shape that :func:`block_shape` gives.
    """
    expected = block_shape(shape, axis, group)
    if values.shape != expected:
        raise ValueError(
            f"scale and zero_point for data of shape {shape} with axis={axis}, group={group} must "
            f"have shape {expected}, got {values.shape}"
        )
    if axis is None:
        return values.reshape((1,) * len(shape))
    axis %= len(shape)
    if group is None:
        return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    xp = array_module(values)
    rows = xp.repeat(values, group, axis=1)[:, : _row_length(shape, axis)]  # (C, K)
    slices_first = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return xp.moveaxis(rows.reshape(slices_first), 0, axis)


def _rows(x: Array, axis: int) -> Array:
    """One row per slice along ``axis``."""
    return array_module(x).moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def _row_length(shape: Shape, axis: int) -> int:
    return math.prod(shape) // max(shape[axis], 1)
