"""Convolution of images with few channels: one product with all of the kernel.

With one channel the columns of ``columns.py`` are three or five numbers long, too short to be
copied or multiplied fast. So they are built the other way round: each kernel column j gives one
long row, the pixels that it meets for *all* outputs,

    taps (R, kw·C, M)        M = phases · n · phase_width

and since the kernel's rows follow each other in memory, ``kh`` neighbouring rows of these are the
whole (kh·kw·C, M) matrix of one output row, without another copy.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, array_module
from tinycompress.ops.columns import WidthColumns
from tinycompress.ops.geometry import Geometry
from tinycompress.ops.layout import strided
from tinycompress.ops.products import multiply, sum_of_products


class TapRows:
    """One product for each output row; groups and a dilated height are for ``WidthColumns``.

    The methods, and the shapes of what they take, are those of
    :class:`~tinycompress.ops.columns.WidthColumns`.
    """

    def __init__(self, geometry: Geometry, w: Array) -> None:
        g = self.geometry = geometry
        turned = w.transpose(2, 3, 1, 0)  # (kh, kw, C, O)
        self.w = array_module(w).ascontiguousarray(turned).reshape(1, -1, g.O)

    def forward(self, image: Array, y: Array) -> None:
        multiply(self._tall(image), self.w, y[:, None])

    def d_weight(self, image: Array, d: Array, dw: Array) -> None:
        dw += sum_of_products(self._tall(image), d[:, None])

    def turned(self) -> tuple[WidthColumns, Any]:
        """Backwards to the image there is nothing to gain: it goes by ``columns.py``."""
        g = self.geometry
        columns = WidthColumns(g, self.unfolded(self.w))
        return columns, columns.turned()

    def d_image(self, turned: tuple[WidthColumns, Any], d: Array, dx: Array) -> None:
        columns, weights = turned
        columns.d_image(weights, d, dx)

    def unfolded(self, dw: Array) -> Array:
        g = self.geometry
        return dw.reshape(g.kh, g.kw, g.C, g.O).transpose(3, 2, 0, 1)

    def _tall(self, image: Array) -> Array:
        """image (R, n, W, C) → (oh, 1, M, kh·kw·C): overlapping views of the taps."""
        g = self.geometry
        taps = tap_rows(image, g)
        _, width, M = taps.shape
        row, tap, place = taps.strides
        shape, strides = (g.oh, g.kh * width, M), (g.stride[0] * row, tap, place)
        return strided(taps, shape, strides).swapaxes(1, 2)[:, None]


def tap_rows(image: Array, g: Geometry) -> Array:
    """image (R, n, W, C) → (padded rows, kw·C, M), zeros where a tap lies in the padding."""
    R, n, _, C = image.shape
    height = (g.oh - 1) * g.stride[0] + g.kh
    shape = (height, g.kw, C, g.phases, n, g.phase_width)
    taps = array_module(image).empty(shape, image.dtype)
    top = g.image_rows.start + g.padding[0]
    if g.padding != (0, 0):
        taps[...] = 0
    image = image.transpose(0, 3, 1, 2)
    for j, phase, places, columns in g.taps:
        taps[top : top + R, j, :, phase, :, places] = image[..., columns]
    return taps.reshape(height, g.kw * C, -1)
