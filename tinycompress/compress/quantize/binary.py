"""One bit: ``w ≈ scale · sign(w)`` with ``scale = mean|w|``.

With codes ±1 there is no code for zero, so the affine formula does not apply. Among all scales the
mean of |w| has the smallest squared error: ``d/ds Σ(w − s·sign w)² = 0`` gives ``s = Σ|w|/n``
(XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, equation 6). The sign of 0 is +1, as in
BinaryConnect (Courbariaux et al. 2015, arXiv:1511.00363).
"""

from __future__ import annotations

import numpy as np

from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.quantize.affine import SMALLEST_SCALE, min_max
from tinycompress.compress.quantize.blocks import reduce_blocks


def binarize(
    w: Array, axis: int | None = None, group: int | None = None, name: str = "w"
) -> tuple[Array, Array]:
    """Codes −1 and 1 (int8), and one scale ``mean|w|`` for each block.

    ``dequantize(codes, scale, 0, axis, group)`` gives ``scale · sign(w)`` back.

    Raises:
        ValueError: ``w`` holds NaN or infinity.
    """
    min_max(w, axis, group, name)
    xp = array_module(w)
    # A sum depends on the order of its terms, which differs between devices: sum on the host.
    size = np.abs(to_numpy(w).astype(np.float64))
    mean = reduce_blocks(lambda block: block.mean(axis=-1), size, axis, group)
    dtype = np.float64 if w.dtype == np.float64 else np.float32
    scale = np.maximum(mean, SMALLEST_SCALE).astype(dtype)
    with on_device(w):
        codes = xp.where(w >= 0, 1, -1).astype(xp.int8)
        return codes, to_device(scale, device_of(w))
