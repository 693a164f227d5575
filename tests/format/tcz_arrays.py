"""Arrays of every kind that a codec may meet, for hypothesis."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.format.dense import BRAIN, HALF
from tinycompress.format.parts import PARTS
from tinycompress.format.tensors import DTYPES

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=8)


def few(dtype):
    """Elements of which there are few different ones: they repeat, and are near each other."""
    return st.sampled_from([0, 0, 0, 1, 1, 3]).map(np.dtype(dtype).type)


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: (
        hnp.arrays(dtype, shapes)
        | hnp.arrays(dtype, shapes, fill=st.just(np.dtype(dtype).type(0)))
        | hnp.arrays(dtype, shapes, elements=few(dtype))
    )
)

halves = hnp.arrays(np.float16, shapes, elements=st.floats(width=16, allow_nan=False))
widened = halves.map(lambda a: a.astype(np.float64 if a.ndim % 2 else np.float32))
SUITABLE = {
    HALF: widened,
    PARTS: widened,
    BRAIN: hnp.arrays(np.uint32, shapes, elements=st.integers(0, 65535).map(lambda n: n << 16)).map(
        lambda a: a.view(np.float32)
    ),
}


def suitable_arrays(number):
    """Arrays of which the codec of this number can write most."""
    return SUITABLE.get(number, arrays)
