"""Fake quantization with a derivative: what training sees of quantization.

Rounding has derivative 0 almost everywhere, which teaches nothing. The straight-through estimator
(Bengio, Léonard, Courville 2013, arXiv:1308.3432) treats it as the identity where the code before
clipping, ``rint(x / scale) + zero_point``, is one of ``qmin … qmax``, both ends included, and as
constant outside. The ends matter: a weight whose code is exactly ``qmax`` must still be able to
move back.

Read ``affine.py`` first. Scale and zero point are constants here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.affine import as_qparams, grid_positions, on_grid
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.ops.elementwise import Result
from tinycompress.tensor import Tensor, apply, as_float_tensor


def fake_quantize(
    x: Any,
    scale: Array | float,
    zero_point: Array | int,
    target: IntegerRange,
    axis: int | None = None,
    group: int | None = None,
) -> Tensor:
    """``x`` rounded to what its codes stand for, with the straight-through derivative.

    Args:
        x: a tensor or an array of floats.
        scale, zero_point: one per block (see ``blocks.py``), or a single number. The scale is
            converted to the dtype of ``x``.
        target: the codes to use.
        axis, group: what a block is.
    """
    x = as_float_tensor(x)
    dtype = np.result_type(x.dtype, np.float32)
    with on_device(x.data):
        scale, zero_point = as_qparams(scale, zero_point, x.data)
        return apply(
            _fake_quantize,
            x,
            scale=scale.astype(dtype, copy=False),
            zero_point=zero_point,
            target=target,
            axis=axis,
            group=group,
        )


def _fake_quantize(
    x: Array,
    scale: Array,
    zero_point: Array,
    target: IntegerRange,
    axis: int | None,
    group: int | None,
) -> Result:
    """``dx = g`` where ``qmin ≤ rint(x/scale) + zero_point ≤ qmax``, else 0."""
    xp = array_module(x)
    positions = grid_positions(x, scale, zero_point, axis, group)
    inside = xp.logical_and(positions >= target.qmin, positions <= target.qmax).astype(x.dtype)
    return on_grid(positions, scale, zero_point, target, axis, group), (lambda g: g * inside,)
