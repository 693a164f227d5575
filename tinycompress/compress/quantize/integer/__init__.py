"""The integer engine: modules that take codes, compute with whole numbers, and give codes.

Read ``../fixed_point.py`` and ``../exact.py`` first, then ``grids.py``, ``layers.py``,
``arithmetic.py``, ``bias.py``, ``joining.py`` and ``passing.py``.
"""

from tinycompress.compress.quantize.integer.grids import (
    IntegerModule as IntegerModule,
    QuantizeInput as QuantizeInput,
)
from tinycompress.compress.quantize.integer.joining import (
    IntegerAdd as IntegerAdd,
    IntegerConcat as IntegerConcat,
)
from tinycompress.compress.quantize.integer.layers import (
    IntegerConv2d as IntegerConv2d,
    IntegerLayer as IntegerLayer,
    IntegerLinear as IntegerLinear,
)
from tinycompress.compress.quantize.integer.passing import (
    IntegerAdaptiveAvgPool2d as IntegerAdaptiveAvgPool2d,
    IntegerAvgPool2d as IntegerAvgPool2d,
    IntegerFlatten as IntegerFlatten,
    IntegerIdentity as IntegerIdentity,
    IntegerMaxPool2d as IntegerMaxPool2d,
    IntegerReLU as IntegerReLU,
    OnFloats as OnFloats,
)
