"""Two-dimensional convolution (cross-correlation, as every framework calls it).

    y[n, o, p, q] = b[o] + Σ_{c,i,j} w[o, c, i, j] · x[n, c, p·sh + i·dh − ph, q·sw + j·dw − pw]

It is done as one matrix product per kernel row. In (H, N, W, C) memory (see ``layout.py``) the
pixels that one kernel *row* covers are ``kw·C`` numbers per output column; laid side by side they
are the *columns* of the image, (H, N·ow, kw·C). Kernel row ``i`` then multiplies the slice of these
columns that starts ``i·dh`` rows further down, and the products add up:

    y[p] = Σ_i columns[p·sh + i·dh] @ w[i]            (N·ow, kw·C) @ (kw·C, O)

so the columns are ``kw`` times the image and not ``kh·kw`` times, as in the textbook im2col
(Chellapilla et al. 2006). Both derivatives are the same products turned round. Groups are one more
leading axis of everything.

Letters: N images, C channels in, O channels out, H W image, kh kw kernel, oh ow output, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result
from tinycompress.ops.layout import to_hnwc, to_nchw
from tinycompress.ops.steps import Steps, run_steps

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """The sizes of one convolution, computed once."""

    G: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    output: Pair  # oh, ow

    def rows(self, i: int) -> slice:
        """The image rows that kernel row ``i`` meets, one per output row."""
        first = i * self.dilation[0]
        return slice(first, first + (self.output[0] - 1) * self.stride[0] + 1, self.stride[0])

    def cols(self, j: int) -> slice:
        """The image columns that kernel column ``j`` meets, one per output column."""
        first = j * self.dilation[1]
        return slice(first, first + (self.output[1] - 1) * self.stride[1] + 1, self.stride[1])


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """``⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1``."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def conv2d(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    steps: Steps = (),
) -> Result:
    """x (N, C, H, W), w (O, C/groups, kh, kw), b (O) → y (N, O, oh, ow), and the steps on that."""
    xp = array_module(x)
    N, _, H, W = x.shape
    O, Cg, kh, kw = w.shape
    oh = output_size(H, kh, stride[0], padding[0], dilation[0])
    ow = output_size(W, kw, stride[1], padding[1], dilation[1])
    geometry = Geometry(groups, (kh, kw), stride, padding, dilation, (oh, ow))
    image = to_hnwc(x, padding)
    columns = width_columns(image, geometry)  # (G, H, N·ow, kw·Cg)
    wr = kernel_rows(w, groups)  # (G, kh, kw·Cg, Og)

    y = columns[:, geometry.rows(0)] @ wr[:, 0, None]  # (G, oh, N·ow, Og)
    for i in range(1, kh):
        y += columns[:, geometry.rows(i)] @ wr[:, i, None]
    y = merge_groups(y).reshape(oh, N, ow, O)
    if b is not None:
        y += b

    def d_x(g: Array) -> Array:
        gr = split_groups(to_hnwc(g), groups)
        t = xp.zeros(columns.shape, g.dtype)
        for i in range(kh):
            t[:, geometry.rows(i)] += gr @ xp.ascontiguousarray(wr[:, i].swapaxes(1, 2))[:, None]
        return to_nchw(add_columns(t, image.shape, geometry), padding)

    def d_w(g: Array) -> Array:
        gr = split_groups(to_hnwc(g), groups)
        turned = columns.swapaxes(2, 3)  # (G, H, kw·Cg, N·ow)
        dw = [(turned[:, geometry.rows(i)] @ gr).sum(axis=1) for i in range(kh)]
        rows = xp.stack(dw, axis=1).reshape(groups, kh, kw, Cg, O // groups)
        return rows.transpose(0, 4, 3, 1, 2).reshape(w.shape)  # (G, kh, kw, Cg, Og) -> (O, Cg, ...)

    def d_b(g: Array) -> Array:
        gr = to_hnwc(g).reshape(-1, O)
        return xp.ones(gr.shape[0], g.dtype) @ gr

    out, through = run_steps(to_nchw(y), steps)

    def backward(g: Array, wanted: tuple[bool, ...]) -> list[Array | None]:
        g = through(g)
        return [d(g) if asked else None for d, asked in zip((d_x, d_w, d_b), wanted, strict=True)]

    return out, backward


def width_columns(image: Array, geometry: Geometry) -> Array:
    """image (H, N, W, C) → (G, H, N·ow, kw·Cg): what a kernel row sees, for every output column."""
    xp = array_module(image)
    H, N, _, C = image.shape
    G, kw, ow = geometry.G, geometry.kernel[1], geometry.output[1]
    sh, sn, sw, sc = image.strides
    view = xp.lib.stride_tricks.as_strided(
        image,
        (G, H, N, ow, kw, C // G),
        (C // G * sc, sh, sn, geometry.stride[1] * sw, geometry.dilation[1] * sw, sc),
    )
    return xp.ascontiguousarray(view).reshape(G, H, N * ow, kw * (C // G))


def add_columns(t: Array, shape: tuple[int, ...], geometry: Geometry) -> Array:
    """The transpose of :func:`width_columns`: each number is added to the pixel it came from."""
    H, N, _, C = shape
    G, kw, ow = geometry.G, geometry.kernel[1], geometry.output[1]
    t = t.reshape(G, H, N, ow, kw, C // G)
    image = array_module(t).zeros(shape, t.dtype)
    by_group = image.reshape(*shape[:3], G, C // G)
    for j in range(kw):
        by_group[:, :, geometry.cols(j)] += t[..., j, :].transpose(1, 2, 3, 0, 4)
    return image


def kernel_rows(w: Array, groups: int) -> Array:
    """w (O, Cg, kh, kw) → (G, kh, kw·Cg, Og), one matrix per kernel row."""
    O, Cg, kh, kw = w.shape
    split = w.reshape(groups, O // groups, Cg, kh, kw).transpose(0, 3, 4, 2, 1)
    return array_module(w).ascontiguousarray(split).reshape(groups, kh, kw * Cg, O // groups)


def split_groups(y: Array, groups: int) -> Array:
    """y (oh, N, ow, O) → (G, oh, N·ow, Og), contiguous."""
    oh, N, ow, O = y.shape
    split = y.reshape(oh, N * ow, groups, O // groups).transpose(2, 0, 1, 3)
    return array_module(y).ascontiguousarray(split)


def merge_groups(y: Array) -> Array:
    """(G, oh, M, Og) → (oh, M, O): the inverse of :func:`split_groups`; a view for one group."""
    G, oh, M, Og = y.shape
    return y.transpose(1, 2, 0, 3).reshape(oh, M, G * Og)
