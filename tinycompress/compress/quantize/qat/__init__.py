"""Quantization in training: prepared layers, whose codes are floats with derivatives.

Read ``../straight_through.py`` first, then ``weights.py``, ``activations.py``, ``layers.py``,
``joining.py``, ``passing.py``, ``switches.py``; ``../prepare.py`` and ``../convert.py`` are the two
verbs.
"""

from tinycompress.compress.quantize.qat.joining import (
    PreparedAdd as PreparedAdd,
    PreparedConcat as PreparedConcat,
)
from tinycompress.compress.quantize.qat.layers import (
    PreparedConv2d as PreparedConv2d,
    PreparedLayer as PreparedLayer,
    PreparedLinear as PreparedLinear,
)
from tinycompress.compress.quantize.qat.switches import (
    observe as observe,
    switch as switch,
    switched as switched,
)
