"""``tc.quantize`` and ``tc.dequantize``: a whole model, weights to codes and back.

There are three ways after training, from the least to the most that is whole numbers:

================  ==================================  ==========================================
weights only      ``QuantConfig(bits=4)``             small in the file; computes in floats
dynamic           ``QuantConfig(dynamic=True)``       each layer multiplies in whole numbers;
                                                      between layers there are floats
static            ``QuantConfig(activations=8)`` and  whole numbers from the first layer to the
                  calibration data                    last (``integer/``)
================  ==================================  ==========================================

and what can be done before, in this order: batch norm folded (``fold.py``), channels equalized
(``equalize.py``), weights rounded by what comes out (``adaround.py``), biases corrected
(``bias_correction.py``). Static quantization is training without training: layers that observe and
round take the places of the float ones (``prepare.py``), see the calibration data, and are
converted (``convert.py``).
"""

from __future__ import annotations

from typing import Any

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.checks import check_model, label_of
from tinycompress.compress.quantize.adaround import adaround as round_adaptively, on_grid
from tinycompress.compress.quantize.bias_correction import correct_biases
from tinycompress.compress.quantize.capture import check_calibration
from tinycompress.compress.quantize.checks import (
    check_layer,
    nothing_to_dequantize,
    nothing_to_quantize,
)
from tinycompress.compress.quantize.config import QuantConfig, without_learned_steps
from tinycompress.compress.quantize.convert import convert
from tinycompress.compress.quantize.dynamic import DYNAMIC, steps_of
from tinycompress.compress.quantize.equalize import equalize as equalize_channels
from tinycompress.compress.quantize.exact import check_accumulator
from tinycompress.compress.quantize.fold import fold_batch_norm
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.prepare import prepared
from tinycompress.compress.quantize.registry import REPLACEMENTS, replacement_for
from tinycompress.compress.quantize.replacing import with_replaced
from tinycompress.compress.quantize.weights import quantize_weight

NO_STEPS = (
    "learn_step=True is for training: tc.prepare_qat, tc.fit and tc.convert learn the steps; to "
    "quantize without training leave it out"
)


def quantize(
    model: nn.Module,
    config: QuantConfig | None = None,
    calibration: Any = None,
    *,
    fold: bool | None = None,
    equalize: bool = False,
    adaround: bool = False,
    bias_correction: bool = False,
    weights_only: bool = False,
) -> nn.Module:
    """A copy of ``model`` whose linear and convolution layers hold codes instead of weights.

    Weights that are 0, such as pruned ones, stay exactly 0. Without ``calibration`` the other
    layers, and biases, stay as they are, and the result computes in floats with the weights that
    the codes stand for; with it, or with ``config.activations``, it computes in integers.

    Args:
        model: a trained model; it is not changed.
        config: how (default: ``QuantConfig()``: 8 bits, symmetric, per channel).
        calibration: images as an array or a data set, a few hundred. From them activations get
            their ranges; ``config.activations`` is then 8 unless it says otherwise.
        fold: whether batch norm is folded first; None: unless only weights become codes.
        equalize: cross-layer equalization; see :func:`~.equalize.equalize`.
        adaround: round weights up or down by what comes out; needs ``calibration``, takes seconds.
        bias_correction: take the shifts of the channels back; needs ``calibration``.
        weights_only: leave activations in floats although there is ``calibration``.

    Raises:
        ValueError: there is nothing to quantize, or something cannot be; all of it is named, and
            nothing was changed.
        TypeError: ``model`` is no module, or ``config`` no QuantConfig.
    """
    check_model("quantize", model)
    config = _resolved(config, model, calibration, weights_only)
    options = {"adaround": adaround, "bias_correction": bias_correction}
    problems = _problems(model, config, calibration, [name for name, on in options.items() if on])
    if problems:
        raise ValueError("this model cannot be quantized:\n  " + "\n  ".join(problems))
    whole = config.activations is not None
    if fold or (fold is None and (whole or equalize or adaround or bias_correction)):
        model = fold_batch_norm(model, calibration, strict=False)
    if equalize:
        model = equalize_channels(model, calibration)
    reference = model
    if adaround:
        model = round_adaptively(model, config, calibration)
        config = on_grid(config)
    if bias_correction:
        model = correct_biases(model, config, calibration, reference=reference)
    if whole and not config.dynamic:
        return _static(model, config, calibration)
    return _with_codes(model, config)


def dequantize(model: nn.Module) -> nn.Module:
    """A copy of a quantized model with float layers again, whose weights are what the codes meant.

    It computes exactly what ``model`` computes, where that has codes for weights alone. Masks of
    pruned weights are not brought back: prune again before training further.

    Raises:
        ValueError: no layer is a :class:`QuantizedLayer`; those of an integer model are not.
        TypeError: ``model`` is no module.
    """
    check_model("dequantize", model)
    new = {n: m.to_float() for n, m in model.named_modules() if isinstance(m, QuantizedLayer)}
    if not new:
        raise ValueError(nothing_to_dequantize(model))
    return with_replaced(model, new)


# ------------------------------------------------------------------------------------ validation


def _resolved(config: Any, model: nn.Module, calibration: Any, weights_only: bool) -> QuantConfig:
    """The config with the bits of activations filled in."""
    config = QuantConfig() if config is None else config
    if not isinstance(config, QuantConfig):
        raise TypeError(f"config must be a QuantConfig, got {type(config).__name__}")
    if config != without_learned_steps(config):
        raise ValueError(NO_STEPS)
    if calibration is not None:
        check_calibration(model, calibration)
    if weights_only:
        if config.activations is not None:
            raise ValueError(
                f"weights_only=True contradicts activations={config.activations} in the config"
            )
        return config
    if calibration is not None and config.activations is None:
        return config.replace(activations=8)
    return config


def _problems(
    model: nn.Module, config: QuantConfig, calibration: Any, options: list[str]
) -> list[str]:
    """All that stands in the way, in words.

    Raises:
        ValueError: there is nothing to quantize.
    """
    modules = list(model.named_modules())
    found = [f"overrides[{key!r}] fits no layer" for key in config.unused_overrides(modules)]
    layers = [(n, m, config.for_layer(n, m)) for n, m in modules if replacement_for(m) is not None]
    if not layers and not found:
        raise ValueError(nothing_to_quantize(model))
    for name, layer, own in layers:
        if own is None:
            continue
        label = label_of(name, layer)
        try:
            check_layer(layer, own, label)
            plain = own.replace(weight_observer="minmax")
            codes = quantize_weight(layer.weight.data, plain, label).codes
            if own.dynamic:
                check_accumulator(label, to_numpy(codes), steps_of(own))
        except (ValueError, TypeError) as error:
            found.append(str(error))
        if "adaround" in options and own.scheme != "symmetric":
            found.append(f"{label}: adaround needs symmetric weights, got scheme={own.scheme!r}")
    if layers and all(own is None for *_, own in layers):
        found.append("the overrides leave every layer in floats")
    if calibration is None:
        static = config.activations is not None and not config.dynamic
        needy = [*options, f"activations={config.activations}"] if static else options
        found += [
            f"{each} needs calibration data: calibration=…"
            + (" (or dynamic=True in the config)" if each not in options else "")
            for each in needy
        ]
    return found


# ------------------------------------------------------------------------------------- the work


def _with_codes(model: nn.Module, config: QuantConfig) -> nn.Module:
    """Layers with codes in the places of those with weights; floats go in and come out of each."""
    new: dict[str, nn.Module] = {}
    for name, layer in model.named_modules():
        own = config.for_layer(name, layer)
        if replacement_for(layer) is None or own is None:
            continue
        kind = DYNAMIC[type(layer)] if own.dynamic else REPLACEMENTS[type(layer)]
        new[name] = kind.from_float(layer, own, label_of(name, layer))
    return with_replaced(model, new)


def _static(model: nn.Module, config: QuantConfig, calibration: Any) -> nn.Module:
    """The integer model: prepared, shown the calibration data, converted."""
    return convert(prepared(model, config, calibration))
