"""Functions of tensors, under torch's names: the public door to ``ops/``.

Arguments are checked here, with errors that name the argument, what came and what was
expected. Everything takes tensors or arrays. Import it as ``F``::

    from tinycompress import functional as F
"""

from tinycompress.functional.activations import (
    gelu as gelu,
    leaky_relu as leaky_relu,
    log_softmax as log_softmax,
    relu as relu,
    sigmoid as sigmoid,
    silu as silu,
    softmax as softmax,
    tanh as tanh,
)
from tinycompress.functional.joining import (
    cat as cat,
    gather as gather,
    maximum as maximum,
    minimum as minimum,
    stack as stack,
    where as where,
)
from tinycompress.functional.layers import (
    batch_norm as batch_norm,
    conv2d as conv2d,
    dropout as dropout,
    layer_norm as layer_norm,
    linear as linear,
    one_hot as one_hot,
)
from tinycompress.functional.losses import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    cross_entropy as cross_entropy,
    kl_div as kl_div,
    mse_loss as mse_loss,
    nll_loss as nll_loss,
)
from tinycompress.functional.pooling import (
    adaptive_avg_pool2d as adaptive_avg_pool2d,
    avg_pool2d as avg_pool2d,
    max_pool2d as max_pool2d,
)
