"""Arrays of every kind that a codec may meet, for hypothesis."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.format.adaptive import ADAPTIVE
from tinycompress.format.counted import COUNTED
from tinycompress.format.dense import BRAIN, HALF, PACKED
from tinycompress.format.huffman import HUFFMAN
from tinycompress.format.parts import PARTS
from tinycompress.format.predicted import PREDICTED
from tinycompress.format.relative import RELATIVE
from tinycompress.format.sparse import SPARSE
from tinycompress.format.tensors import DTYPES
from tinycompress.format.trimmed import TRIMMED

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


def with_a_dead_row(array):
    array = array.copy()
    array[len(array) // 2] = 0
    return array


matrices = hnp.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=8)
trimmable = st.sampled_from(["float32", "float16", "int8", "uint8", "int16"]).flatmap(
    lambda dtype: hnp.arrays(dtype, matrices, elements=few(dtype)) | hnp.arrays(dtype, matrices)
)

halves = hnp.arrays(np.float16, shapes, elements=st.floats(width=16, allow_nan=False))
widened = halves.map(lambda a: a.astype(np.float64 if a.ndim % 2 else np.float32))
whole = st.sampled_from(["int8", "uint8", "int16", "uint16", "int32"]).flatmap(
    lambda dtype: hnp.arrays(dtype, shapes, elements=few(dtype))
)
SUITABLE = {
    **dict.fromkeys((PACKED, HUFFMAN, COUNTED, ADAPTIVE), whole | arrays),
    **dict.fromkeys((SPARSE, RELATIVE, PREDICTED), trimmable | trimmable | arrays),
    HALF: widened,
    PARTS: widened,
    TRIMMED: trimmable.map(with_a_dead_row),
    BRAIN: hnp.arrays(np.uint32, shapes, elements=st.integers(0, 65535).map(lambda n: n << 16)).map(
        lambda a: a.view(np.float32)
    ),
}


def suitable_arrays(number):
    """Arrays of which the codec of this number can write most."""
    return SUITABLE.get(number, arrays)
