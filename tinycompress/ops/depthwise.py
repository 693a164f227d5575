"""Depthwise convolution: every channel has kernels of its own, and nothing is summed over channels.

    y[p, q, c] = Σ_{i,j} w[i, j, c] · x[p·sh + i·dh − ph, q·sw + j·dw − pw, c]

There is no matrix product in it. A view shows every tap of every output, as overlapping rows of
pixels with their channels (x below, ow·C long), and ``einsum`` multiplies and adds along them: row
for row, without a loop per channel and without an array in between. With a channel multiplier m,
output c·m + k belongs to channel c; the image is then repeated m times along its channels.
"""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, array_module
from tinycompress.ops.columns import convolve_back
from tinycompress.ops.geometry import Geometry
from tinycompress.ops.layout import strided


class Depthwise:
    """Multiply and add along rows of pixels.

    The methods, and the shapes of what they take, are those of
    :class:`~tinycompress.ops.columns.WidthColumns`.
    """

    def __init__(self, geometry: Geometry, w: Array) -> None:
        g = self.geometry = geometry
        xp = array_module(w)
        self.w = xp.ascontiguousarray(w.reshape(g.O, g.kh, g.kw).transpose(1, 2, 0))

    def forward(self, image: Array, y: Array) -> None:
        xp, rows = array_module(y), self._by_row(y)
        result = xp.einsum("hpnijx,ijx->hpnx", self._taps(image), self._row_weights())
        rows[...] = result

    def d_weight(self, image: Array, d: Array, dw: Array) -> None:
        g, rows = self.geometry, self._by_row(d)
        sums = array_module(d).einsum("hpnijx,hpnx->ijx", self._taps(image), rows)
        dw += sums.reshape(g.kh, g.kw, g.phase_width, g.O).sum(axis=2)

    def turned(self) -> Any:
        """The same convolution backwards, where there is one, or the weights for rows."""
        g = self.geometry
        if g.backward is None or g.Og > 1:
            return self._row_weights()
        flipped = self.w[::-1, ::-1].transpose(2, 0, 1)
        return Depthwise(g.backward, flipped.reshape(g.C, 1, g.kh, g.kw))

    def d_image(self, turned: Any, d: Array, dx: Array) -> None:
        g = self.geometry
        if isinstance(turned, Depthwise):
            return convolve_back(turned, d, dx, g)
        R, n, W, C = dx.shape
        d = d.reshape(g.oh, g.phases, n, g.phase_width, g.O)
        wide = array_module(d).zeros((R, n, W, g.O), d.dtype)
        for i, (outputs, met) in enumerate(g.rows):
            for j, phase, places, columns in g.taps:
                w = turned[i, j].reshape(g.phase_width, g.O)[places]
                wide[met, :, columns] += d[outputs, phase, :, places] * w
        dx[...] = wide if g.Og == 1 else wide.reshape(R, n, W, C, g.Og).sum(axis=-1)

    def unfolded(self, dw: Array) -> Array:
        g = self.geometry
        return dw.transpose(2, 0, 1).reshape(g.O, 1, g.kh, g.kw)

    def _row_weights(self) -> Array:
        """The weights of each tap for a whole row of pixels: (kh, kw, phase_width · O)."""
        g, xp = self.geometry, array_module(self.w)
        shape = (g.kh, g.kw, g.phase_width, g.O)
        return xp.broadcast_to(self.w[:, :, None], shape).reshape(g.kh, g.kw, g.phase_width * g.O)

    def _taps(self, image: Array) -> Array:
        """image (R, n, W, C) → (oh, phases, n, kh, kw, ow · O), a view if it can be."""
        g = self.geometry
        image = padded(image, g)
        if g.Og > 1:
            image = array_module(image).repeat(image, g.Og, axis=3)
        R, n, _, O = image.shape
        row, one, column, channel = image.strides
        step = g.stride[1] * column
        pixels = strided(
            image,
            (R, g.phases, n, g.kw, g.phase_width, O),
            (row, step, one, g.dilation[1] * column, g.phases * step, channel),
        ).reshape(R, g.phases, n, g.kw, g.phase_width * O)  # copies where pixels are skipped
        row, phase, one, tap, channel = pixels.strides
        return strided(
            pixels,
            (g.oh, g.phases, n, g.kh, g.kw, g.phase_width * O),
            (g.stride[0] * row, phase, one, g.dilation[0] * row, tap, channel),
        )

    def _by_row(self, y: Array) -> Array:
        """(oh, M, O) → (oh, phases, n, phase_width · O), a view."""
        g = self.geometry
        n = y.shape[1] // (g.phases * g.phase_width)
        return y.reshape(g.oh, g.phases, n, g.phase_width * g.O)


def padded(image: Array, g: Geometry) -> Array:
    """image (R, n, W, C) with its padding on all sides, as far as it is read."""
    start, step = g.image_rows.start, g.image_rows.step
    if g.padding == (0, 0) and (start, step) == (0, 1):
        return image
    (R, n, W, C), (top, left) = image.shape, g.padding
    height = (g.oh - 1) * g.stride[0] + (g.kh - 1) * g.dilation[0] + 1
    result = array_module(image).zeros((height, n, g.padded_width, C), image.dtype)
    inside = min(W, g.padded_width - left)
    rows = slice(start + top, start + top + R * step, step)
    result[rows, :, left : left + inside] = image[:, :, :inside]
    return result
