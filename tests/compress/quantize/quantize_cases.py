"""What the properties of quantization are tried on: adversarial data, ranges and blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.backend import Array, to_device, to_numpy
from tinycompress.compress.quantize import affine
from tinycompress.compress.quantize.ranges import IntegerRange

FLOAT32 = np.finfo(np.float32)
LARGEST, SMALLEST_NORMAL, SMALLEST = map(
    float, (FLOAT32.max, FLOAT32.tiny, FLOAT32.smallest_subnormal)
)
HARD = [0.0, -0.0, SMALLEST, SMALLEST_NORMAL, 1e-30, 0.5, 1.0, 1.5, 127.5, 3e38, LARGEST]

any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)
hard_float = st.sampled_from(HARD + [-v for v in HARD])
ordinary = st.floats(-4, 4, width=32)
tiny = st.floats(-8 * SMALLEST_NORMAL, 8 * SMALLEST_NORMAL, width=32)
"""Around the smallest normal number."""

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)


@st.composite
def float_arrays(draw, shape=shapes, elements=None, dtype=np.float32):
    """Arrays of numbers of one kind: ordinary, anything, hard cases, subnormal, or all equal."""
    kinds = [ordinary, any_float, hard_float, tiny] if elements is None else [elements]
    elements = draw(st.sampled_from(kinds))
    x = draw(hnp.arrays(np.float32, shape, elements=elements, fill=elements))
    return x.astype(dtype)


@st.composite
def targets(draw, min_bits=2):
    signed = draw(st.booleans())
    return IntegerRange(
        draw(st.integers(min_bits, 16)), signed, narrow=signed and draw(st.booleans())
    )


@st.composite
def blocks(draw, shape):
    """(axis, group) that fit ``shape``."""
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    group = None if axis is None else draw(st.none() | st.integers(1, 7))
    return axis, group


@dataclass(frozen=True)
class Case:
    """Data, and how to quantize them. Scale and zero point come from the data."""

    x: np.ndarray
    target: IntegerRange
    scheme: str
    axis: int | None = None
    group: int | None = None
    device: str = "cpu"

    @property
    def block(self) -> tuple[int | None, int | None]:
        return self.axis, self.group

    def put(self, x: np.ndarray) -> Array:
        return to_device(np.asarray(x), self.device)

    def qparams(self) -> tuple[Array, Array]:
        lo, hi = affine.min_max(self.put(self.x), *self.block)
        return affine.choose_qparams(lo, hi, self.target, self.scheme, self.x.dtype)

    def codes(self, x: np.ndarray | None = None) -> np.ndarray:
        x = self.put(self.x if x is None else x)
        return to_numpy(affine.quantize(x, *self.qparams(), self.target, *self.block))

    def values(self, codes: np.ndarray) -> np.ndarray:
        return to_numpy(affine.dequantize(self.put(codes), *self.qparams(), *self.block))

    def steps(self) -> np.ndarray:
        """The scale, broadcast against the data."""
        return affine.spread(to_numpy(self.qparams()[0]), self.x.shape, *self.block)

    def with_(self, **changes) -> Case:
        return replace(self, **changes)


@st.composite
def cases(draw, data=None, target=None, scheme=None):
    x = draw(float_arrays() if data is None else data)
    target = draw(targets() if target is None else target)
    possible = ["affine", "symmetric"] if target.signed else ["affine"]
    scheme = draw(st.sampled_from(possible)) if scheme is None else scheme
    return Case(x, target, scheme, *draw(blocks(x.shape)))


narrow_targets = st.builds(
    IntegerRange, st.integers(2, 16), signed=st.just(True), narrow=st.just(True)
)
