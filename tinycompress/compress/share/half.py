"""Numbers of half the length: what a file keeps as floats, rounded to what float16 can be.

Where weights are codes, a file's floats are codebooks, biases and the numbers of batch norm. In
float16 they have 11 significant bits instead of 24, and take 2 bytes instead of 4. The numbers are
rounded (to the nearest, ties to even) and keep their dtype: computing stays as it is, and the file
format finds out by itself that the other half of each is empty.

In a network of few weights biases are many, and 11 bits more than they need. ``bias_bits`` says how
many significant ones they keep, that is, of m in ±m · 2^e with ½ ≤ m < 1.

Centroids that become equal become one, and one that becomes 0 becomes the zero. Those that no
weight has go; those that are left are sorted again, as training may have changed their order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.checks import check_model, label_of
from tinycompress.compress.share.layers import SharedLayer
from tinycompress.optim.checks import count

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


HALF_BITS = 11
"""Significant bits of float16."""


def round_to_half(model: nn.Module, bias_bits: int = HALF_BITS) -> nn.Module:
    """A copy of ``model`` whose codebooks, biases and norms hold numbers that float16 has.

    Weights that are not shared stay as they are, and so do the scales of quantized layers.

    Args:
        model: usually with shared weights; it is not changed.
        bias_bits: how many significant bits of a bias are kept, 1 … 11; those of norms keep 11.

    Raises:
        ValueError: a number is too large for float16, whose largest is 65,504; all layers with one
            are named. ``bias_bits`` is out of range.
        TypeError: ``model`` is no module.
    """
    check_model("round_to_half", model)
    check_bias_bits("round_to_half", bias_bits)
    new = model.copy()
    held = [name for name, array, bits in _numbers(new, bias_bits) if not _round(array, bits)]
    if held:
        raise ValueError(
            f"round_to_half: {', '.join(held)} would become infinite: float16 has no number beyond "
            "65,504; leave this model in float32"
        )
    tidy_codebooks(new)
    return new


def _numbers(model: nn.Module, bias_bits: int) -> Iterator[tuple[str, Array, int]]:
    """(label, array, significant bits) of all that is rounded."""
    for name, module in model.named_modules():
        every = isinstance(module, (SharedLayer, *NORMS))
        label = label_of(name, module)
        for key, p in module._parameters.items():
            if p is not None and (every or key == "bias"):
                free = key == "bias" and not isinstance(module, NORMS)
                yield f"{label}: {key}", p.data, bias_bits if free else HALF_BITS
        for key, buffer in module._buffers.items():
            if every and buffer is not None and buffer.dtype.kind == "f":
                yield f"{label}: {key}", buffer, HALF_BITS


def check_bias_bits(who: str, bits: int) -> None:
    if count(f"{who}: bias_bits", bits, least=1) > HALF_BITS:
        raise ValueError(f"{who}: bias_bits = {bits}, but float16 has {HALF_BITS} significant bits")


def _keep_bits(array: Array, bits: int) -> Array:
    """These floats, rounded to so many significant bits."""
    xp = array_module(array)
    mantissa, exponent = xp.frexp(array)
    return xp.ldexp(xp.rint(xp.ldexp(mantissa, bits)), exponent - bits)


def _round(array: Array, bits: int) -> bool:
    """Round in place; whether all numbers are still finite that were so before."""
    xp = array_module(array)
    with on_device(array), np.errstate(over="ignore"):
        kept = array if bits == HALF_BITS else _keep_bits(array, bits)
        rounded = kept.astype(np.float16).astype(array.dtype)
        grown = xp.isinf(rounded) & ~xp.isinf(array)
        array[...] = rounded
        return not bool(grown.any())


def tidy_codebooks(model: nn.Module) -> None:
    """In place: each codebook ascending, without equal numbers, zeros, and numbers nobody has.

    The weights stay what they are.
    """
    groups: dict[int, list[SharedLayer]] = {}
    for layer in model.modules():
        if isinstance(layer, SharedLayer):
            groups.setdefault(id(layer.codebook), []).append(layer)
    for layers in groups.values():
        _tidy(layers)


def _tidy(layers: list[SharedLayer]) -> None:
    """The same of layers with one codebook in common; several may have the same codes, too."""
    old = layers[0].codebook
    numbers = to_numpy(old.data)
    codes = {id(layer.codes): to_numpy(layer.codes) for layer in layers}
    counts = sum(np.bincount(c.ravel(), minlength=numbers.size + 1) for c in codes.values())
    kept = (np.asarray(counts)[1:] > 0) & (numbers != 0)
    codebook, places = np.unique(numbers[kept], return_inverse=True)
    number_of = np.zeros(numbers.size + 1, np.min_scalar_type(codebook.size))
    number_of[1:][kept] = places + 1
    place = device_of(old.data)
    new = nn.Parameter(to_device(codebook, place), old.requires_grad)
    renumbered = {key: to_device(number_of[c], place) for key, c in codes.items()}
    for layer in layers:
        layer.codebook, layer.codes = new, renumbered[id(layer.codes)]
