"""Affine quantization: ``x ≈ scale · (q − zero_point)`` with whole numbers q in ``qmin … qmax``.

Three steps, each one function of arrays (NumPy or CuPy): :func:`choose_qparams` turns the range of
the data into a scale and a zero point, :func:`quantize` turns numbers into codes,
:func:`dequantize` turns codes back (Jacob et al. 2018, arXiv:1712.05877, section 2.1; Nagel et
al. 2021, arXiv:2106.08295). ``article.py`` has the simpler formula that this one grew out of;
``ranges.py`` says what a code may be and ``blocks.py`` which numbers share a scale.

Results are defined to the bit, so the order of the roundings is part of the definition, and some
of it differs from other libraries:

- the range always includes 0, and 0 has a code of its own: padding, ReLU and pruned weights stay
  exactly 0;
- x is *divided* by the scale. Multiplying by 1/scale is faster, and now and then gives another
  code (torch does it);
- ties round to even, and the zero point is added *after* rounding, so that a tie does not depend
  on it;
- clipping comes *before* the cast to integers, which is undefined for what does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, check_same_device, is_array, on_device
from tinycompress.compress.quantize.blocks import block_shape, reduce_blocks, spread
from tinycompress.compress.quantize.ranges import IntegerRange

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Below it float32 has fewer digits, and dividing by it overflows."""

SCHEMES = ("symmetric", "affine")


def min_max(
    x: Array, axis: int | None = None, group: int | None = None, name: str = "x"
) -> tuple[Array, Array]:
    """The smallest and the largest number of each block, as float64.

    Raises:
        ValueError: there are no data, or NaN or infinity among them; ``name`` says where.
    """
    xp = check_floats(x, name)
    with on_device(x):
        lo, hi = _ends(x, axis, group)
        if not bool((xp.isfinite(lo) & xp.isfinite(hi)).all()):
            what = "NaN" if bool(xp.isnan(lo).any()) else "infinity"
            raise ValueError(f"{name}: holds {what}; there is no range to quantize")
        return lo.astype(xp.float64), hi.astype(xp.float64)


def _ends(x: Array, axis: int | None, group: int | None) -> tuple[Array, Array]:
    """The smallest and the largest number of each block."""
    if group is None and (axis is None or x.ndim > 1):  # in the order of memory, without a copy
        block_shape(x.shape, axis)
        others = None if axis is None else tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        return x.min(axis=others).reshape(-1), x.max(axis=others).reshape(-1)
    lo = reduce_blocks(lambda block: block.min(axis=-1), x, axis, group)
    return lo, reduce_blocks(lambda block: block.max(axis=-1), x, axis, group)


def choose_qparams(
    lo: Array | float,
    hi: Array | float,
    target: IntegerRange,
    scheme: str = "affine",
    dtype: Any = np.float32,
    name: str = "x",
) -> tuple[Array, Array]:
    """Scale and zero point for data between ``lo`` and ``hi``, computed in float64.

    Affine: ``scale = (hi − lo)/(qmax − qmin)``, and the zero point is the code that ``0`` gets.
    Symmetric: ``scale = max|x|/qmax``, and the zero point is 0. The range is widened to include 0
    first. Where the scale would be below the smallest normal float32 (a block of zeros), it is 1.

    Args:
        lo, hi: one number per block, or a single one.
        target: the codes to use. Symmetric needs a signed range; weights take the narrow one.
        scheme: "affine" or "symmetric".
        dtype: of the scale; float32 unless the data are float64.
        name: the layer, for errors.

    Returns:
        ``scale`` of ``dtype`` and ``zero_point`` of ``target.dtype``, shaped as ``lo`` (at least
        1-d).

    Raises:
        ValueError: ``lo > hi``, NaN or infinity, or a range too wide for ``dtype``.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, got {scheme!r}")
    if scheme == "symmetric" and not target.signed:
        raise ValueError('a symmetric scheme needs a signed range; use scheme="affine"')
    lo, hi = _bounds(lo, hi)
    xp = array_module(lo)
    with on_device(lo), np.errstate(all="ignore"):  # what overflows is found by the check
        below, above = xp.minimum(lo, 0.0), xp.maximum(hi, 0.0)
        scale = _unrounded_scale(below, above, target, scheme)
        blank = scale < SMALLEST_SCALE
        scale = xp.where(blank, 1.0, scale)
        stored = scale.astype(dtype)
        _check_range(lo, hi, stored, name)
        symmetric = scheme == "symmetric"
        zero = xp.zeros_like(scale) if symmetric else xp.rint(target.qmin - below / scale)
        zero = xp.clip(xp.where(blank, 0.0, zero), target.qmin, target.qmax)
        return stored, zero.astype(target.dtype)


def _unrounded_scale(below: Array, above: Array, target: IntegerRange, scheme: str) -> Array:
    if scheme == "symmetric":
        return array_module(below).maximum(-below, above) / target.qmax
    steps = target.qmax - target.qmin
    return above / steps - below / steps  # above − below may be too large for a float


def _check_range(lo: Array, hi: Array, scale: Array, name: str) -> None:
    """NaN and infinity anywhere before, and too wide a range, leave a scale that is not finite."""
    if not bool((array_module(lo).isfinite(scale) & (lo <= hi)).all()):
        raise ValueError(
            f"{name}: the range must be finite, with lo ≤ hi and a scale that fits {scale.dtype}, "
            f"got lo = {float(lo.min())}, hi = {float(hi.max())}"
        )


def quantize(
    x: Array,
    scale: Array | float,
    zero_point: Array | int,
    target: IntegerRange,
    axis: int | None = None,
    group: int | None = None,
    name: str = "x",
) -> Array:
    """Codes of ``x``: ``clip(rint(x / scale) + zero_point, qmin, qmax)``.

    Numbers outside of the range, infinities included, get the code at that end.

    Args:
        x: floats of any shape; float16 is widened first.
        scale, zero_point: one per block (see ``blocks.py``), or a single number.
        target: the codes to use; its ``dtype`` is that of the result.
        axis, group: what a block is.
        name: the layer, for errors.

    Raises:
        ValueError: ``x`` holds NaN.
    """
    xp = check_floats(x, name)
    with on_device(x):
        if bool(xp.isnan(x).any()):
            raise ValueError(f"{name}: holds NaN, which has no code")
        scale, zero_point = as_qparams(scale, zero_point, x)
        positions = grid_positions(x, scale, zero_point, axis, group)
        return xp.clip(positions, target.qmin, target.qmax).astype(target.dtype)


def dequantize(
    codes: Array,
    scale: Array | float,
    zero_point: Array | int,
    axis: int | None = None,
    group: int | None = None,
) -> Array:
    """The numbers that ``codes`` stand for: ``scale · (codes − zero_point)``, of scale's dtype.

    A code at the end may stand for a number just past the largest float; it saturates there.
    """
    with on_device(codes):
        scale, zero_point = as_qparams(scale, zero_point, codes)
        xp = array_module(codes)
        # Widened first: 0 − 200 is 56 in uint8.
        zero_point = spread(zero_point.astype(xp.int32), codes.shape, axis, group)
        return _values(codes.astype(xp.int32) - zero_point, scale, axis, group)


def fake_quantize(
    x: Array,
    scale: Array | float,
    zero_point: Array | int,
    target: IntegerRange,
    axis: int | None = None,
    group: int | None = None,
) -> Array:
    """``dequantize(quantize(x))``, to the bit, without the detour over integers.

    It does not look for NaN: in training that would make a GPU wait at every layer.
    """
    with on_device(x):
        scale, zero_point = as_qparams(scale, zero_point, x)
        positions = grid_positions(x, scale, zero_point, axis, group)
        return on_grid(positions, scale, zero_point, target, axis, group)


# ------------------------------------------------------------------------- the two halves of it


def grid_positions(
    x: Array, scale: Array, zero_point: Array, axis: int | None, group: int | None
) -> Array:
    """``rint(x / scale) + zero_point``: the code before clipping, as a float."""
    xp = array_module(x)
    dtype = np.result_type(x.dtype, scale.dtype, np.float32)
    with np.errstate(over="ignore"):  # too large is clipped next
        positions = x.astype(dtype, copy=False) / spread(scale, x.shape, axis, group)
    return xp.rint(positions) + spread(zero_point.astype(dtype), x.shape, axis, group)


def on_grid(
    positions: Array,
    scale: Array,
    zero_point: Array,
    target: IntegerRange,
    axis: int | None,
    group: int | None,
) -> Array:
    """The numbers that clipped :func:`grid_positions` stand for."""
    codes = array_module(positions).clip(positions, target.qmin, target.qmax)
    steps = codes - spread(zero_point.astype(codes.dtype), codes.shape, axis, group)
    return _values(steps, scale, axis, group)


def _values(steps: Array, scale: Array, axis: int | None, group: int | None) -> Array:
    """``scale · steps``; both factors are exact in scale's dtype, so there is one rounding."""
    limit = float(np.finfo(scale.dtype).max)
    with np.errstate(over="ignore"):
        values = steps.astype(scale.dtype) * spread(scale, steps.shape, axis, group)
    return array_module(steps).clip(values, -limit, limit)


# -------------------------------------------------------------------------------------- arguments


def check_floats(x: Array, name: str) -> Any:
    """The array library of ``x``, which must be a non-empty array of floats."""
    if not is_array(x) or x.dtype.kind != "f":
        kind = x.dtype if is_array(x) else type(x).__name__
        raise TypeError(f"{name}: only an array of floats can be quantized, got {kind}")
    if x.size == 0:
        raise ValueError(f"{name}: is empty (shape {x.shape}); there is nothing to quantize")
    return array_module(x)


def as_qparams(scale: Any, zero_point: Any, like: Array) -> tuple[Array, Array]:
    """Scale and zero point as arrays of one number per block; plain numbers are made into some."""
    xp = array_module(like)
    if not is_array(scale):
        dtype = like.dtype if like.dtype == np.float64 else np.dtype(np.float32)
        scale = xp.full(1, float(scale), dtype)
    if not is_array(zero_point):
        zero_point = xp.full(1, int(zero_point), xp.int32)
    check_same_device("quantize", like, scale, zero_point)
    return scale, zero_point


def _bounds(lo: Any, hi: Any) -> tuple[Array, Array]:
    """Both as float64 arrays of at least one axis, where the one that is an array lives."""
    like = next((b for b in (lo, hi) if is_array(b)), np.empty(0))
    xp = array_module(like)
    with on_device(like):
        lo, hi = (xp.asarray(b, dtype=xp.float64) for b in (lo, hi))
    return xp.atleast_1d(lo), xp.atleast_1d(hi)
