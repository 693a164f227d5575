"""Depthwise convolution: every channel has kernels of its own, and nothing is summed over channels.

    y[p, q, c] = Σ_{i,j} w[i, j, c] · x[p·sh + i·dh − ph, q·sw + j·dw − pw, c]

There is no matrix product in it: each of the kh·kw taps is a multiplication of the image, shifted,
with one number per channel, over whole rows of pixels at a time. With a channel multiplier m,
output c·m + k belongs to channel c; the image is then repeated m times along its channels.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinycompress.backend import Array, array_module
from tinycompress.ops.geometry import Geometry
from tinycompress.ops.products import sum_of_rows


class Depthwise:
    """Multiply and add, tap by tap.

    The methods, and the shapes of what they take, are those of
    :class:`~tinycompress.ops.columns.WidthColumns`.
    """

    def __init__(self, geometry: Geometry, w: Array) -> None:
        g = self.geometry = geometry
        xp = array_module(w)
        self.w = xp.ascontiguousarray(w.reshape(g.O, g.kh, g.kw).transpose(1, 2, 0))

    def forward(self, image: Array, y: Array) -> None:
        image, y = self._repeated(image), self._by_phase(y)
        y[...] = 0
        for _, pixels, outputs, w in self._taps(self.turned()):
            y[outputs] += image[pixels] * w

    def d_weight(self, image: Array, d: Array, dw: Array) -> None:
        image, d = self._repeated(image), self._by_phase(d)
        for (i, j), pixels, outputs, _ in self._taps(self.w):
            dw[i, j] += sum_of_rows(image[pixels] * d[outputs])

    def turned(self) -> Array:
        """The weights of each tap for a whole row of pixels: (kh, kw, phase_width, O)."""
        g = self.geometry
        view = self.w[:, :, None]
        shape = (g.kh, g.kw, g.phase_width, g.O)
        return array_module(view).ascontiguousarray(array_module(view).broadcast_to(view, shape))

    def d_image(self, turned: Array, d: Array, dx: Array) -> None:
        g, d = self.geometry, self._by_phase(d)
        wide = dx if g.Og == 1 else array_module(d).empty((*dx.shape[:3], g.O), d.dtype)
        wide[...] = 0
        for _, pixels, outputs, w in self._taps(turned):
            wide[pixels] += d[outputs] * w
        if g.Og > 1:
            dx[...] = wide.reshape(*dx.shape, g.Og).sum(axis=-1)

    def unfolded(self, dw: Array) -> Array:
        g = self.geometry
        return dw.transpose(2, 0, 1).reshape(g.O, 1, g.kh, g.kw)

    def _taps(self, weights: Array) -> Iterator[tuple]:
        """For each kernel element and phase: it, its pixels, its outputs, its weights."""
        g = self.geometry
        for i, (out_rows, met) in enumerate(g.rows):
            for j, phase, places, columns in g.taps:
                outputs = (out_rows, phase, slice(None), places)
                pixels = (met, slice(None), columns)
                yield (i, j), pixels, outputs, weights[i, j][: places.stop - places.start]

    def _repeated(self, image: Array) -> Array:
        m = self.geometry.Og
        return image if m == 1 else array_module(image).repeat(image, m, axis=3)

    def _by_phase(self, y: Array) -> Array:
        """(oh, M, O) → (oh, phases, n, phase_width, O), a view."""
        g = self.geometry
        return y.reshape(g.oh, g.phases, -1, g.phase_width, g.O)
