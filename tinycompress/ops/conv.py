"""Two-dimensional convolution (cross-correlation, as every framework calls it).

    y[n, o, p, q] = b[o] + Σ_{c,i,j} w[o, c, i, j] · x[n, c, p·sh + i·dh − ph, q·sw + j·dw − pw]

How it is computed depends on its shape, and :func:`path_of` says how; the ways themselves stand in
``columns.py``, ``tap_rows.py`` and ``depthwise.py``. Here is what they share. The batch is worked
through in blocks of some images, so small that what lies between input and output stays in the
cache, and the steps that follow (ReLU, a pooling window) are done on each block at once. Nothing of
that is kept: the backward pass makes the columns of a block again, which is cheaper than fetching
them from memory.

Letters: N images, C channels in, O channels out, H W image, kh kw kernel, oh ow output, G groups.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module
from tinycompress.ops.columns import WidthColumns
from tinycompress.ops.depthwise import Depthwise
from tinycompress.ops.elementwise import Result
from tinycompress.ops.geometry import Geometry, output_size as output_size
from tinycompress.ops.layout import to_hnwc, to_nchw
from tinycompress.ops.products import FLATTEST, FLOP_LIMIT
from tinycompress.ops.steps import Chain, Steps
from tinycompress.ops.tap_rows import TapRows

Pair = tuple[int, int]

BLOCK_BYTES = 5 << 18
"""The largest array inside one block: 1.25 MB, as a core's own cache is usually one or two."""

PACKED_BYTES = 4 * BLOCK_BYTES
"""The same where channels are so many that BLAS packs the products for the cache itself."""

FEW_CHANNELS = 8
"""Up to so many, pixels are faster copied channel by channel than side by side."""


def path_of(g: Geometry) -> Any:
    """The class that computes a convolution of this shape; all have WidthColumns's methods."""
    if g.G > 1 and g.Cg == 1:
        return Depthwise  # multiply and add, tap by tap
    few = max(1, min(FEW_CHANNELS, g.phase_width // 2))  # the rows are long against the channels
    if few >= g.C and (g.G, g.dilation[0]) == (1, 1) and g.kh > 1:
        return TapRows  # long rows, one product with the whole kernel
    return WidthColumns  # one product per kernel row (one for all, where the kernel is one pixel)


def conv2d(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    steps: Steps = (),
    keep: bool = True,
) -> Result:
    """x (N, C, H, W), w (O, C/groups, kh, kw), b (O) → y (N, O, oh, ow), and the steps on that.

    All of one float dtype; arguments are checked in ``functional/layers.py``. Without ``keep``
    there is no derivative, and nothing is computed for its sake.
    """
    xp = array_module(x)
    chain = Chain(steps, b)
    g = Geometry.of(x.shape, w.shape, stride, padding, dilation, groups, chain.window)
    path = path_of(g)(g, w)
    image = to_hnwc(x)
    out = xp.empty((g.oh // g.window[0], g.N, g.ow // g.window[1], g.O), x.dtype)

    def forward(block: slice) -> list:
        target = out[:, block]
        M = g.phases * target.shape[1] * g.phase_width
        y = xp.empty((g.oh, M, g.O), x.dtype)
        path.forward(image[g.image_rows, block], y)
        return chain.forward(y, target, keep)

    blocks = blocks_of(g, x)
    undo = [forward(block) for block in blocks]

    def backward(gradient: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        gradient = to_hnwc(gradient)
        dx = _for_image(image, g) if wanted[0] else None
        dw = xp.zeros_like(path.w) if wanted[1] else None
        db = xp.zeros_like(b) if wanted[2] else None
        turned = path.turned() if wanted[0] else None

        def of_block(block: slice, derivatives: list) -> None:
            d = chain.backward(derivatives, gradient[:, block], db)
            d = d.reshape(g.oh, d.size // (g.oh * g.O), g.O)
            if dw is not None:
                path.d_weight(image[g.image_rows, block], d, dw)
            if dx is not None:
                path.d_image(turned, d, dx[g.image_rows, block])

        for block, derivatives in zip(blocks, undo, strict=True):
            of_block(block, derivatives)
        return None if dx is None else to_nchw(dx), None if dw is None else path.unfolded(dw), db

    return to_nchw(out), backward if keep else ()


def _for_image(image: Array, g: Geometry) -> Array:
    """Memory for the gradient of the image; 0 where no kernel row comes, as nothing is written."""
    xp = array_module(image)
    rows = g.image_rows
    if rows.step not in (None, 1):
        return xp.zeros_like(image)
    dx = xp.empty_like(image)
    dx[: rows.start] = 0
    dx[rows.stop :] = 0
    return dx


def blocks_of(g: Geometry, x: Array) -> list[slice]:
    """Equal parts of the batch, so small that each array in between stays in the cache."""
    if array_module(x) is not np or g.N == 0:
        return [slice(0, g.N)]  # a GPU has use for everything at once
    largest = x.itemsize * max(g.oh * g.ow * g.O, g.H * g.ow * g.kw * g.C)
    small = FLOP_LIMIT // (g.kw * g.Cg * g.Og) >= FLATTEST  # products without packing: see there
    images = max(1, (BLOCK_BYTES if small else PACKED_BYTES) // max(1, largest))
    count = -(-g.N // images)
    stops = [g.N * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(stops)]
