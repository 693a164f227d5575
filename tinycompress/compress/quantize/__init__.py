"""Quantization: weights as whole numbers of few bits.

In this order: numbers (``article.py`` … ``fake.py``), layers with codes for weights (``config.py``
… ``registry.py``), the integer engine (``qtensor.py``, ``fixed_point.py``, ``exact.py``,
``integer/``), ranges of activations (``histogram.py``, ``observers.py``), training for codes
(``straight_through.py``, ``qat/``, ``prepare.py``, ``convert.py``), losing less without it
(``equalize.py``, ``bias_correction.py``, ``adaround.py``); then ``model.py``, which is
``tc.quantize``, and what each layer lost (``report.py``, ``sensitivity.py``, ``mixed.py``).
docs/reading.md has every file in its place, docs/quantization.md the formulas in theirs.
"""

from tinycompress.compress.quantize.adaround import adaround as adaround
from tinycompress.compress.quantize.affine import (
    choose_qparams as choose_qparams,
    min_max as min_max,
)
from tinycompress.compress.quantize.article import (
    ArticleCodes as ArticleCodes,
    article_dequantize as article_dequantize,
    article_quantize as article_quantize,
    article_zero as article_zero,
    zero_preserving as zero_preserving,
)
from tinycompress.compress.quantize.bias_correction import correct_biases as correct_biases
from tinycompress.compress.quantize.config import QuantConfig as QuantConfig
from tinycompress.compress.quantize.convert import convert as convert
from tinycompress.compress.quantize.equalize import equalize as equalize
from tinycompress.compress.quantize.fake import fake_quantize as fake_quantize
from tinycompress.compress.quantize.fold import fold_batch_norm as fold_batch_norm
from tinycompress.compress.quantize.integer import (
    IntegerAdd as IntegerAdd,
    IntegerConcat as IntegerConcat,
    IntegerConv2d as IntegerConv2d,
    IntegerLayer as IntegerLayer,
    IntegerLinear as IntegerLinear,
    OnFloats as OnFloats,
    QuantizeInput as QuantizeInput,
)
from tinycompress.compress.quantize.layers import (
    QuantizedConv2d as QuantizedConv2d,
    QuantizedLayer as QuantizedLayer,
    QuantizedLinear as QuantizedLinear,
)
from tinycompress.compress.quantize.model import dequantize as dequantize, quantize as quantize
from tinycompress.compress.quantize.observers import (
    Observer as Observer,
    make_observer as make_observer,
)
from tinycompress.compress.quantize.prepare import prepare_qat as prepare_qat
from tinycompress.compress.quantize.qat import observe as observe, switch as switch
from tinycompress.compress.quantize.qtensor import Grid as Grid, QTensor as QTensor
from tinycompress.compress.quantize.ranges import IntegerRange as IntegerRange
from tinycompress.compress.quantize.report import (
    LayerReport as LayerReport,
    quantization_report as quantization_report,
)
