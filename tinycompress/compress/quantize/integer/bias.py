"""The bias as whole numbers: ``b ≈ s_x·s_w · codes``, which an accumulator can simply add.

The unit s_x·s_w is fine beside the sum of hundreds of products, and the error, half a unit, is
nothing. There are two exceptions, both channels that training has left for dead:

- the weights are so small beside the bias that it does not fit into int32. Then the scale of this
  channel's weights is widened until it does, and their codes are rounded again, to few or to 0;
- all weights are 0. Their scale, by definition 1, means nothing, and would leave a bias of 0.01
  nothing but the code 0 or 1. They get one at which the bias has 22 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinycompress.compress.quantize.affine import SMALLEST_SCALE

LARGEST = 1 << 30
"""As much again is left for the products."""
BLANK = 1 << 22
COARSE = 1 << 15


class WholeBias(NamedTuple):
    """A weight and a bias that fit together.

    Attributes:
        codes: of the weights, (O, ...).
        scale: of the weights, (O) float32.
        bias: (O) int64, each within ±2³¹; None where there is none.
        notes: one sentence for each channel whose scale was widened.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    notes: tuple[str, ...]


def whole_bias(
    codes: np.ndarray, scale: np.ndarray, bias: np.ndarray | None, x_scale: float
) -> WholeBias:
    """``rint(bias / (x_scale · scale))`` in float64, and what it takes to make it fit.

    Args:
        codes: whole numbers (O, ...); scale: (O) or (1); bias: (O) floats, or None.
        x_scale: of the incoming activation.
    """
    scale = np.broadcast_to(scale.astype(np.float32), len(codes))
    if bias is None:
        return WholeBias(codes, scale, None, ())
    size = np.abs(bias.astype(np.float64))
    in_units = size / (x_scale * scale.astype(np.float64))
    too_large = in_units > LARGEST
    blank = ~codes.reshape(len(codes), -1).any(axis=1) & (in_units < COARSE) & (size > 0)
    wanted = np.where(too_large, LARGEST, BLANK)
    fitting = np.maximum(size / x_scale / wanted, SMALLEST_SCALE).astype(np.float32)
    new = np.where(too_large | blank, fitting, scale)
    if too_large.any():
        factors = (scale.astype(np.float64) / new).reshape(-1, *(1,) * (codes.ndim - 1))
        codes = np.rint(codes * factors).astype(codes.dtype)  # nothing changes where it is 1
    whole = np.rint(bias.astype(np.float64) / (x_scale * new.astype(np.float64)))
    notes = tuple(
        f"output channel {o}: its bias of {float(bias[o]):.3g} does not fit into int32 at the "
        f"weights' scale of {float(scale[o]):.3g}, which was widened to {float(new[o]):.3g}"
        for o in np.flatnonzero(too_large)
    )
    return WholeBias(codes, new, whole.astype(np.int64), notes)
