"""A weight as codes: which of the formulas a :class:`QuantConfig` asks for, and back.

With ``weight_observer="mse"`` each block's range is not all of ``lo … hi`` but the part of it,
``f·lo … f·hi``, with the smallest squared error ``Σ (w − ŵ)²``: clipping the few largest weights
makes the steps of all others finer. That is worth little at 8 bits and much at 4 and below (e.g.
Banner et al. 2019, arXiv:1810.05723). The affine scheme then tries each end alone, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.quantize.affine import (
    choose_qparams,
    dequantize,
    fake_quantize,
    min_max,
    quantize,
)
from tinycompress.compress.quantize.binary import binarize
from tinycompress.compress.quantize.blocks import block_shape, reduce_blocks
from tinycompress.compress.quantize.clipping import FACTORS
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.nn.skeleton import new_array

Ends = Callable[[float], tuple[np.ndarray, np.ndarray]]


class QuantizedWeight(NamedTuple):
    """Codes of a weight (O, ...) with one scale and zero point per block.

    ``zero_point`` has the dtype of the codes and is 0 for the symmetric scheme; codes of one bit
    are −1 and 1.
    """

    codes: Array
    scale: Array
    zero_point: Array


def quantize_weight(w: Array, config: QuantConfig, name: str = "w") -> QuantizedWeight:
    """``w`` as ``config`` says. Zeros stay exactly 0.

    Raises:
        ValueError: ``w`` holds NaN or infinity, or, at one bit, a zero; ``name`` says where.
    """
    with on_device(w):
        return _binary(w, config, name) if config.bits == 1 else _affine(w, config, name)


def _affine(w: Array, config: QuantConfig, name: str) -> QuantizedWeight:
    axis, group = config.axis, config.group_size
    lo, hi = weight_range(w, config, name)
    dtype = np.float64 if w.dtype == np.float64 else np.float32
    scale, zero_point = choose_qparams(lo, hi, config.target, config.scheme, dtype, name)
    codes = quantize(w, scale, zero_point, config.target, axis, group, name)
    return QuantizedWeight(codes, scale, zero_point)


def weight_range(w: Array, config: QuantConfig, name: str = "w") -> tuple[Array, Array]:
    """(lo, hi): the range of each block of ``w`` that is given codes, in float64.

    Raises:
        ValueError: ``w`` holds NaN or infinity; ``name`` says where.
    """
    lo, hi = min_max(w, config.axis, config.group_size, name)
    if config.weight_observer == "minmax":
        return lo, hi
    # A sum depends on the order of its terms, which differs between devices: search on the host.
    best = _least_error(to_numpy(w), to_numpy(lo), to_numpy(hi), config)
    return to_device(best[0], device_of(w)), to_device(best[1], device_of(w))


def _least_error(
    w: np.ndarray, lo: np.ndarray, hi: np.ndarray, config: QuantConfig
) -> tuple[np.ndarray, np.ndarray]:
    """For each block the best of the ranges that ``clipping.FACTORS`` give."""
    lo, hi = np.minimum(lo, 0.0), np.maximum(hi, 0.0)
    best = _best_factor(w, config, partial(_ends, lo, hi, (1, 1)))
    lower, upper = lo * best, hi * best
    for _ in range(2 if config.scheme == "affine" else 0):
        lower = lo * _best_factor(w, config, partial(_ends, lo, upper, (1, 0)))
        upper = hi * _best_factor(w, config, partial(_ends, lower, hi, (0, 1)))
    return lower, upper


def _ends(lo: np.ndarray, hi: np.ndarray, moves: tuple[int, int], factor: float) -> Any:
    """Both ends, those that move times ``factor``."""
    return lo * factor ** moves[0], hi * factor ** moves[1]


def _best_factor(w: np.ndarray, config: QuantConfig, ends: Ends) -> np.ndarray:
    """For each block the factor whose range has the smallest squared error; of equals the first."""
    axis, group = config.axis, config.group_size
    smallest = best = np.empty(0)
    for factor in FACTORS:
        scale, zero_point = choose_qparams(*ends(factor), config.target, config.scheme, np.float64)
        approximate = fake_quantize(w, scale, zero_point, config.target, axis, group)
        with np.errstate(over="ignore"):
            square = (approximate - w) ** 2
            error = reduce_blocks(lambda block: block.sum(axis=-1), square, axis, group)
        if not best.size:
            smallest, best = error, np.full(error.shape, factor)
        better = error < smallest
        smallest, best = np.where(better, error, smallest), np.where(better, factor, best)
    return best


def _binary(w: Array, config: QuantConfig, name: str) -> QuantizedWeight:
    codes, scale = binarize(w, config.axis, config.group_size, name)
    zeros = int((w == 0).sum())
    if zeros:
        raise ValueError(
            f"{name}: {zeros} weights are exactly 0 (pruned?), and one bit has no code for zero; "
            "use bits=2, whose codes are −1, 0 and 1"
        )
    return QuantizedWeight(codes, scale, array_module(w).zeros_like(scale, dtype=codes.dtype))


def dequantize_weight(weight: QuantizedWeight, config: QuantConfig) -> Array:
    """The numbers that the codes stand for, of scale's dtype."""
    return dequantize(*weight, config.axis, config.group_size)


def blank_weight(shape: tuple[int, ...], config: QuantConfig) -> QuantizedWeight:
    """A new layer's weight: zeros, in arrays of the shapes and dtypes that a real one has."""
    blocks = block_shape(shape, config.axis, config.group_size)
    dtype = np.dtype(np.int8) if config.bits == 1 else config.target.dtype
    return QuantizedWeight(
        new_array(shape, 0, dtype), new_array(blocks, 1.0), new_array(blocks, 0, dtype)
    )
