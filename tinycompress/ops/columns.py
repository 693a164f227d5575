"""Convolution as matrix products along the width: the general way.

In (H, N, W, C) memory (see ``layout.py``) the pixels that one kernel *row* covers are ``kw·C``
numbers per output; laid side by side they are the *columns* of the image. Kernel row ``i`` then
multiplies the rows of these columns that it meets, and the products add up:

    y[p] = Σ_i columns[p·sh + i·dh − ph] @ w[i]       (n·ow, kw·C) @ (kw·C, O)

so the columns are ``kw`` times the image and not ``kh·kw`` times, as in the textbook im2col
(Chellapilla et al. 2006). Both derivatives are the same products turned round. Groups are one more
leading axis of everything. Where the kernel is one pixel, the columns are the image itself, and
nothing is copied. Read ``geometry.py`` first, for rows and phases.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, array_module
from tinycompress.ops.geometry import Geometry
from tinycompress.ops.layout import strided
from tinycompress.ops.products import multiply, sum_of_products


class WidthColumns:
    """One product for each kernel row. Any stride, padding, dilation and number of groups.

    Everywhere below ``image`` and ``dx`` are (R, n, W, C), the rows of n images that the kernel
    meets; ``y`` and ``d`` are (oh, M, O) with M = phases · n · phase_width.
    """

    def __init__(self, geometry: Geometry, w: Array) -> None:
        g = self.geometry = geometry
        xp = array_module(w)
        split = w.reshape(g.G, g.Og, g.Cg, g.kh, g.kw).transpose(3, 0, 4, 2, 1)
        self.w = xp.ascontiguousarray(split).reshape(g.kh, g.G, g.kw * g.Cg, g.Og)

    def forward(self, image: Array, y: Array) -> None:
        """Write the outputs for ``image`` into ``y``."""
        columns, y = width_columns(image, self.geometry), self._grouped(y)
        rows, (writes, empty) = self.geometry.rows, self.geometry.row_writers
        for row in empty:
            y[row] = 0
        for (outputs, met), w, first in zip(rows, self.w, writes, strict=True):
            multiply(columns[met], w, y[outputs], add=not first)

    def d_weight(self, image: Array, d: Array, dw: Array) -> None:
        """Add to ``dw``, which lies as :attr:`w`, what ``d``, the gradient of y, makes of it."""
        columns, d = width_columns(image, self.geometry), self._grouped(d)
        for i, (outputs, met) in enumerate(self.geometry.rows):
            dw[i] += sum_of_products(columns[met], d[outputs])

    def turned(self) -> Any:
        """The weights that take a gradient back: to the columns, (kh, G, Og, kw·Cg)."""
        g = self.geometry
        if g.backward is not None:
            flipped = self.w.reshape(g.kh, g.G, g.kw, g.Cg, g.Og)[::-1, :, ::-1].transpose(
                1, 3, 4, 0, 2
            )
            return WidthColumns(g.backward, flipped.reshape(g.C, g.Og, g.kh, g.kw))
        return array_module(self.w).ascontiguousarray(self.w.swapaxes(2, 3))

    def d_image(self, turned: Any, d: Array, dx: Array) -> None:
        """Write the gradient of the image into ``dx``."""
        g = self.geometry
        if g.backward is not None:
            return convolve_back(turned, d, dx, g)
        d = self._grouped(d)
        R, M = len(dx), d.shape[2]
        if columns_are_pixels(g):
            t = dx.reshape(R, M, 1, g.C)
        else:
            t = array_module(d).empty((R, M, g.G, g.kw * g.Cg), d.dtype)
        by_group = t.swapaxes(1, 2)
        writes, empty = g.image_row_writers
        for row in empty:
            by_group[row] = 0
        for (outputs, met), w, first in zip(g.rows, turned, writes, strict=True):
            multiply(d[outputs], w, by_group[met], add=not first)
        if not columns_are_pixels(g):
            add_columns(t, dx, g)

    def unfolded(self, dw: Array) -> Array:
        """``dw`` as (O, Cg, kh, kw)."""
        g = self.geometry
        split = dw.reshape(g.kh, g.G, g.kw, g.Cg, g.Og).transpose(1, 4, 3, 0, 2)
        return split.reshape(g.O, g.Cg, g.kh, g.kw)

    def _grouped(self, y: Array) -> Array:
        """(oh, M, O) → (oh, G, M, Og), a view."""
        g = self.geometry
        return y.reshape(*y.shape[:2], g.G, g.Og).swapaxes(1, 2)


def convolve_back(turned: Any, d: Array, dx: Array, g: Geometry) -> None:
    """The gradient of the image as a convolution of ``d`` by ``turned``, into ``dx``."""
    R, n, W, C = dx.shape
    t = array_module(d).empty((R, n * W, C), d.dtype)  # kernel rows add up here, in the cache
    turned.forward(d.reshape(g.oh, n, g.ow, g.O), t)
    dx[...] = t.reshape(dx.shape)


def columns_are_pixels(g: Geometry) -> bool:
    """Whether each column is one pixel of the image, and all are there, in their order."""
    return (g.G, g.kw, g.stride[1], g.phases, g.padding[1]) == (1, 1, 1, 1, 0)


def width_columns(image: Array, g: Geometry) -> Array:
    """image (R, n, W, C) → (R, G, M, kw·Cg): what a kernel row sees, for every output column."""
    image = padded_along_width(image, g)
    R, n, _, _ = image.shape
    sr, sn, sw, sc = image.strides
    step = g.stride[1] * sw
    view = strided(
        image,
        (R, g.phases, n, g.phase_width, g.G, g.kw, g.Cg),
        (sr, step, sn, g.phases * step, g.Cg * sc, g.dilation[1] * sw, sc),
    )
    M = g.phases * n * g.phase_width
    return view.reshape(R, M, g.G, g.kw * g.Cg).swapaxes(1, 2)  # copies, but not single pixels


def padded_along_width(image: Array, g: Geometry) -> Array:
    """image (R, n, W, C) with its padding on the left and on the right, as far as it is read."""
    p = g.padding[1]
    if p == 0:
        return image
    R, n, W, C = image.shape
    padded = array_module(image).empty((R, n, g.padded_width, C), image.dtype)
    inside = min(W, g.padded_width - p)
    padded[:, :, :p] = 0
    padded[:, :, p : p + inside] = image[:, :, :inside]
    padded[:, :, p + inside :] = 0
    return padded


def add_columns(t: Array, dx: Array, g: Geometry) -> None:
    """The transpose of :func:`width_columns`: each number is added to the pixel it came from."""
    R, n, W, _ = dx.shape
    t = t.reshape(R, g.phases, n, g.phase_width, g.G, g.kw, g.Cg)
    dx = dx.reshape(R, n, W, g.G, g.Cg)
    writes, empty = g.column_writers
    for column in empty:
        dx[:, :, column] = 0
    for (j, phase, places, columns), first in zip(g.taps, writes, strict=True):
        if first:
            dx[:, :, columns] = t[:, phase, :, places, :, j]
        else:
            dx[:, :, columns] += t[:, phase, :, places, :, j]
