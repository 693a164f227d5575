"""``tc.sensitivity``: what it costs to change one layer alone, layer by layer.

One verb for every way to make a layer smaller: the class of ``config`` says which,
:class:`QuantConfig` (``quantize/sensitivity.py``) or :class:`PruneConfig`
(``prune/sensitivity.py``). Another way is another line of ``KINDS``; all are measured by
``answers.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinycompress import nn
from tinycompress.compress.prune.sensitivity import PruneConfig, pruning_sensitivity
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.sensitivity import quantization_sensitivity
from tinycompress.data import Dataset

KINDS: dict[type, Callable[..., Any]] = {
    QuantConfig: quantization_sensitivity,
    PruneConfig: pruning_sensitivity,
}


def sensitivity(model: nn.Module, config: Any, data: Dataset, **options: Any) -> Any:
    """Change one layer of ``model`` at a time, and measure what that does to its answers.

    Args:
        model: a trained model; it is not changed.
        config: what to do to a layer. A :class:`QuantConfig`: quantize it; see
            :func:`~.quantize.sensitivity.quantization_sensitivity` for the result and the options.
            A :class:`PruneConfig`: prune it, by several shares; see
            :func:`~.prune.sensitivity.pruning_sensitivity`.
        data: images and labels, not those of the final test.
        options: of the function for this kind of config.

    Raises:
        TypeError: ``config`` is of no known kind.
    """
    for kind, function in KINDS.items():
        if isinstance(config, kind):
            return function(model, config, data, **options)
    known = " or ".join(kind.__name__ for kind in KINDS)
    raise TypeError(f"sensitivity: config must be a {known}, got {type(config).__name__}")
