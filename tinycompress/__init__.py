"""tinycompress: a deep-learning engine small enough to read, and what makes a network smaller.

The source reads from the ground up: ``backend``, ``ops``, ``graph``, ``tensor``, ``functional``,
``nn``, ``optim``, ``data``, ``models``, ``train``, ``compress``, ``format``, ``report``, ``cli``.
"""

from tinycompress import (
    data as data,
    functional as functional,
    models as models,
    nn as nn,
    optim as optim,
    train as train,
)
from tinycompress.backend import DeviceError as DeviceError
from tinycompress.budget import mixed_precision as mixed_precision
from tinycompress.compress.prune import (
    PruneConfig as PruneConfig,
    choose_sparsities as choose_sparsities,
    lottery_ticket as lottery_ticket,
    prune as prune,
    prune_iteratively as prune_iteratively,
    remove_channels as remove_channels,
    sparsity_report as sparsity_report,
    strip as strip,
)
from tinycompress.compress.quantize import (
    QuantConfig as QuantConfig,
    convert as convert,
    dequantize as dequantize,
    prepare_qat as prepare_qat,
    quantization_report as quantization_report,
    quantize as quantize,
)
from tinycompress.compress.sensitivity import sensitivity as sensitivity
from tinycompress.compress.share import share_weights as share_weights
from tinycompress.deep import deep_compress as deep_compress
from tinycompress.format import (
    FormatError as FormatError,
    inspect as inspect,
    load as load,
    register as register,
    save as save,
)
from tinycompress.functional.joining import (
    cat as cat,
    maximum as maximum,
    minimum as minimum,
    stack as stack,
    where as where,
)
from tinycompress.graph import (
    AnomalyError as AnomalyError,
    detect_anomaly as detect_anomaly,
    is_grad_enabled as is_grad_enabled,
    no_grad as no_grad,
)
from tinycompress.nn.compiled import compile as compile
from tinycompress.nn.summary import summary as summary
from tinycompress.pruned import pruning_report as pruning_report
from tinycompress.random import manual_seed as manual_seed
from tinycompress.report import compare as compare
from tinycompress.students import distill as distill, student_family as student_family
from tinycompress.tensor import (
    Tensor as Tensor,
    float32 as float32,
    float64 as float64,
    grad as grad,
    int64 as int64,
    matmul as matmul,
    tensor as tensor,
)
from tinycompress.train import (
    CheckpointError as CheckpointError,
    NonFiniteLossError as NonFiniteLossError,
    evaluate as evaluate,
    fit as fit,
)

__version__ = "0.1.0"
