"""What hypothesis draws: shapes, axes, and the geometry of convolutions and pools."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

ORDERS_4D = [(0, 1, 2, 3), (2, 0, 3, 1), (0, 2, 3, 1), (3, 2, 1, 0)]
"""Ways in which a four-axis array may lie in memory: NCHW, the library's HNWC, NHWC, reversed."""

seeds = st.integers(0, 2**32 - 1)
orders = st.sampled_from(ORDERS_4D)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """A number for the height and one for the width."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def shapes(draw: Any, min_axes: int = 0, max_axes: int = 4, least: int = 1) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(least, 4), min_size=min_axes, max_size=max_axes)))


@st.composite
def broadcast_pairs(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast together, in every combination of 1 and absent."""
    full = draw(shapes())
    two = []
    for _ in range(2):
        kept = full[draw(st.integers(0, len(full))) :] if full else ()
        two.append(tuple(n if draw(st.booleans()) else 1 for n in kept))
    return two[0], two[1]


@st.composite
def shape_and_axes(draw: Any, min_axes: int = 0) -> tuple[tuple[int, ...], Any]:
    """A shape and what ``axis=`` may be for it: None, a number, or a tuple, negative or not."""
    shape = draw(shapes(min_axes))
    n = len(shape)
    signed = st.integers(-n, n - 1) if n else st.nothing()
    distinct = st.lists(signed, max_size=n, unique_by=lambda a: a % n).map(tuple)
    return shape, draw(st.one_of(st.none(), signed, distinct) if n else st.none())


class Convolution(NamedTuple):
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}


@st.composite
def convolutions(draw: Any) -> Convolution:
    """Every kind: strides, paddings, dilations, groups, kernels up to the whole padded image."""
    kernel, stride, dilation = draw(pairs(1, 3)), draw(pairs(1, 3)), draw(pairs(1, 3))
    padding, groups = draw(pairs(0, 2)), draw(st.integers(1, 3))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    H, W = (
        max(1, span - 2 * p) + draw(st.integers(0, 4))
        for span, p in zip(spans, padding, strict=True)
    )
    C, O = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return Convolution(
        (draw(st.integers(1, 3)), C * groups, H, W),
        (O * groups, C, *kernel),
        stride,
        padding,
        dilation,
        groups,
    )


class Pooling(NamedTuple):
    x: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    ceil_mode: bool


@st.composite
def poolings(draw: Any) -> Pooling:
    """Windows that overlap, that touch, that leave gaps, and that hang over."""
    kernel, stride = draw(pairs(1, 4)), draw(pairs(1, 5))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    H, W = (
        max(1, k - 2 * p) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True)
    )
    N, C = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return Pooling((N, C, H, W), kernel, stride, padding, draw(st.booleans()))


def normal(seed: int, *shapes: tuple[int, ...], dtype: Any = np.float64) -> list[np.ndarray]:
    """One array of normal numbers for each shape."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]
