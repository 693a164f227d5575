"""``tc.convert``: a prepared model becomes the integer model that its training simulated.

Nothing is measured or chosen here. The latent weights are rounded a last time, each grid is that
of evaluation, and what computes them from now on is the integer engine (``integer/``), with the
same arithmetic: the converted model gives the numbers of the prepared one in evaluation mode, to
the bit. Where only weights were rounded, the result is what ``tc.quantize`` makes:
:class:`~.layers.QuantizedLayer`.
"""

from __future__ import annotations

import copy
from typing import Any

from tinycompress import nn
from tinycompress.compress.quantize.integer import (
    IntegerAdd,
    IntegerConcat,
    IntegerConv2d,
    IntegerLayer,
    IntegerLinear,
)
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer
from tinycompress.compress.quantize.qat.joining import PreparedAdd, PreparedConcat, PreparedJoin
from tinycompress.compress.quantize.qat.layers import (
    PreparedConv2d,
    PreparedLayer,
    PreparedLinear,
    Switched,
)
from tinycompress.compress.quantize.qat.passing import CONVERTED, exchanged
from tinycompress.compress.quantize.qtensor import Grid
from tinycompress.compress.quantize.registry import REPLACEMENTS
from tinycompress.compress.quantize.replacing import replace_layers
from tinycompress.nn.skeleton import skeletons

FLOAT: dict[type[nn.Module], type[nn.Module]] = {
    PreparedConv2d: nn.Conv2d,
    PreparedLinear: nn.Linear,
}
INTEGER: dict[type[nn.Module], type[IntegerLayer]] = {
    PreparedConv2d: IntegerConv2d,
    PreparedLinear: IntegerLinear,
}


def convert(model: nn.Module) -> nn.Module:
    """The quantized model that ``model`` simulates, in evaluation mode.

    Args:
        model: from :func:`tinycompress.prepare_qat`, trained or calibrated; it is not changed, and
            can be trained further.

    Raises:
        ValueError: it is not prepared.
        RuntimeError: layers have never seen data; all are named.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert takes a model, got {type(model).__name__}")
    if not any(isinstance(m, Switched) for m in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} has no prepared layer (is it converted already?); "
            "convert takes what prepare_qat gave"
        )
    _check_seen(model)
    model = model.copy().eval()
    device = model.device
    new = {id(m): _converted(m).to(device) for m in model.modules() if _changes(m)}
    return replace_layers(model, new).eval()


def _check_seen(model: nn.Module) -> None:
    """Each layer that gives codes needs a grid, and the model needs one for what comes in."""
    layers = [m for m in model.modules() if isinstance(m, PreparedLayer | PreparedJoin)]
    entries = [q for m in layers if (q := m.input_quantizer) is not None]
    outputs = [q for m in layers if (q := m.output_quantizer) is not None]
    unseen = [q.label for q in outputs if not q.ready]
    if entries and not any(q.ready for q in entries):
        unseen.insert(0, entries[0].label)
    if unseen:
        raise RuntimeError(
            f"nothing was seen of {', '.join(unseen)}, so there is no range to quantize: train the "
            "prepared model, or prepare it with calibration data, before you convert it; if you "
            "did, these layers were not called"
        )


def _changes(module: nn.Module) -> bool:
    return isinstance(module, Switched) or type(module) in CONVERTED


def _converted(module: Any) -> nn.Module:
    if isinstance(module, PreparedAdd):
        output, into = _grid(module.output_quantizer), _grid(module.input_quantizer)
        return IntegerAdd.on(output, into, module.relu)
    if isinstance(module, PreparedConcat):
        output, into = _grid(module.output_quantizer), _grid(module.input_quantizer)
        return IntegerConcat.on(module.axis, output, into)
    if not isinstance(module, PreparedLayer):
        return exchanged(module, CONVERTED[type(module)])
    weight = module.weight_quantizer.final(module.weight)
    if module.quantization.activations is not None:
        return INTEGER[type(module)].from_codes(
            module,
            weight,
            module.quantization,
            output=_grid(module.output_quantizer),
            input=_grid(module.input_quantizer),
            relu=module.relu,
        )
    with skeletons():
        kind: type[QuantizedLayer] = REPLACEMENTS[FLOAT[type(module)]]
        new = kind(**module.config(), quantization=module.quantization)
    new.weight_codes, new.weight_scale, new.weight_zero_point = weight
    new.bias = copy.deepcopy(module.bias)
    return new


def _grid(quantizer: ActivationQuantizer | None) -> Grid | None:
    """The grid of evaluation; None where there is none, or nothing ever came to be on it."""
    if quantizer is None or not quantizer.ready:
        return None
    return Grid(*quantizer.final(), quantizer.target)
