"""The sizes of a convolution: which pixels meet which part of the kernel.

    output (p, q) meets, with kernel element (i, j), the pixel (p·sh + i·dh − ph, q·sw + j·dw − pw)

Kernel *row* i therefore meets a slice of the image's rows, one for each row of the output; the
few outputs whose pixel would lie in the padding, above or below the image, are left out, so that
padding along the height needs no memory.

**Phases.** A pooling window of width u may follow (its stride is its width). Then the output
columns are ordered phase by phase, first those that are the first of their window, then the second
ones ..., and the window is a reduction over leading axes, over long rows. Without a window u is 1,
and there is one phase with every column in it. Outputs that no window reads are not computed.

Letters: N images, C channels in, O out, H W image, kh kw kernel, oh ow output, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

Pair = tuple[int, int]
Shape = tuple[int, ...]


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """``⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1``."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class Geometry:
    """All sizes of one convolution.

    Args:
        x, w: the shapes (N, C, H, W) and (O, C / groups, kh, kw).
        window: (height, width) of the pooling that follows, (1, 1) for none.
    """

    def __init__(
        self,
        x: Shape,
        w: Shape,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        window: Pair = (1, 1),
    ) -> None:
        self.N, self.C, self.H, self.W = x
        self.O, self.Cg, self.kh, self.kw = w
        self.G, self.Og = groups, self.O // groups
        self.stride, self.padding, self.dilation, self.window = stride, padding, dilation, window
        sizes = zip(x[2:], w[2:], stride, padding, dilation, window, strict=True)
        self.oh, self.ow = (output_size(*size) // v * v for *size, v in sizes)
        self.phases, self.phase_width = window[1], self.ow // window[1]

    @classmethod
    @lru_cache(maxsize=512)
    def of(cls, *sizes: Any) -> Geometry:
        """The geometry of these sizes; the same again for the same sizes, as in every step of a
        training, so that what follows from them is computed once.
        """
        return cls(*sizes)

    @cached_property
    def backward(self) -> Geometry | None:
        """The convolution that takes the gradient back to the image, where there is one."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, (self.kh, self.kw), strict=True)]
        padding = spans[0] - self.padding[0], spans[1] - self.padding[1]
        if self.stride != (1, 1) or self.window != (1, 1) or min(padding) < 0 or self.kw == 1:
            return None
        y, w = (self.N, self.O, self.oh, self.ow), (self.C, self.Og, self.kh, self.kw)
        back = Geometry(y, w, (1, 1), padding, self.dilation, self.G)
        # A kernel with gaps may pass by some rows; both would have to be cut to those that are met.
        whole = slice(0, self.H, 1), slice(0, self.oh, 1)
        return back if (self.image_rows, back.image_rows) == whole else None

    # ------------------------------------------------------------------------------ rows

    @cached_property
    def image_rows(self) -> slice:
        """The rows of the image that are looked at; everything below counts rows among these."""
        met = [row for i in range(self.kh) for row in self._meetings(i)[1]]
        step = self.stride[0] if self.kh == 1 else 1  # a kernel of one row steps over the others
        return slice(min(met), max(met) + 1, step) if met else slice(0, 0, 1)

    @cached_property
    def rows(self) -> list[tuple[slice, slice]]:
        """For each kernel row: output rows, and the image rows that it meets for them."""
        return [self._slices(*self._meetings(i)) for i in range(self.kh)]

    @cached_property
    def row_writers(self) -> tuple[list[bool], list[int]]:
        """:func:`first_to_arrive` of the kernel rows at the rows of the output."""
        return first_to_arrive([outputs for outputs, _ in self.rows], self.oh)

    @cached_property
    def image_row_writers(self) -> tuple[list[bool], list[int]]:
        """:func:`first_to_arrive` of the kernel rows at the rows of the image."""
        start, stop, step = self.image_rows.indices(self.H)
        return first_to_arrive([met for _, met in self.rows], len(range(start, stop, step)))

    def _meetings(self, i: int) -> tuple[range, range]:
        """Output rows p for which kernel row i lies inside the image, and where it lies."""
        step, first = self.stride[0], i * self.dilation[0] - self.padding[0]
        low = max(0, -(first // step))  # the first p with p·step + first ≥ 0
        high = max(low, min(self.oh, (self.H - 1 - first) // step + 1))
        return range(low, high), range(low * step + first, high * step + first, step)

    def _slices(self, outputs: range, met: range) -> tuple[slice, slice]:
        start, step = self.image_rows.start, self.image_rows.step
        first, last = (met.start - start) // step, (met.stop - met.step - start) // step
        rows = slice(first, last + 1, met.step // step) if met else slice(0, 0)
        return slice(outputs.start, outputs.stop), rows

    # --------------------------------------------------------------------------- columns

    @property
    def padded_width(self) -> int:
        """Columns of the padded image that are looked at."""
        return (self.ow - 1) * self.stride[1] + (self.kw - 1) * self.dilation[1] + 1

    @cached_property
    def taps(self) -> list[tuple[int, int, slice, slice]]:
        """For each kernel column j and phase: j, the phase, its places inside the image, and where
        in the image they are.
        """
        pairs = [(j, phase) for j in range(self.kw) for phase in range(self.phases)]
        return [(j, phase, *self._columns(j, phase)) for j, phase in pairs]

    @cached_property
    def column_writers(self) -> tuple[list[bool], list[int]]:
        """:func:`first_to_arrive` of the taps at the columns of the image."""
        return first_to_arrive([columns for *_, columns in self.taps], self.W)

    def _columns(self, j: int, phase: int) -> tuple[slice, slice]:
        step = self.phases * self.stride[1]
        first = phase * self.stride[1] + j * self.dilation[1] - self.padding[1]
        low = max(0, -(first // step))
        high = max(low, min(self.phase_width, (self.W - 1 - first) // step + 1))
        if low == high:
            return slice(0, 0), slice(0, 0)
        start = low * step + first
        return slice(low, high), slice(start, start + (high - low - 1) * step + 1, step)


def first_to_arrive(strips: Sequence[slice], size: int) -> tuple[list[bool], list[int]]:
    """Strips are laid over ``size`` places and add up: which of them need not add, but may write?

    Returns:
        For each strip, whether all its places are still untouched when it comes; and the places
        that no such strip covers, which must be 0 before the first strip comes.
    """
    touched: set[int] = set()
    written: set[int] = set()
    writes = []
    for strip in strips:
        places = set(range(size)[strip])
        writes.append(not places & touched)
        touched |= places
        written |= places if writes[-1] else set()
    return writes, sorted(set(range(size)) - written)
