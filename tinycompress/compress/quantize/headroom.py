"""How far the sums of an integer layer stay from the ends of int32.

The sums are bounded before anything runs (``exact.py``): with a weight's codes, the steps that may
come in, and the bias. With ``reach`` the largest absolute value of such a bound,

    headroom = log₂((2³¹ − 1) / reach)      in bits: the sums could be 2^headroom times as large

A negative one would be an overflow, and is refused when the layer is made ready.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.quantize.dynamic import DynamicLayer, steps_of
from tinycompress.compress.quantize.exact import INT32_LARGEST, Steps, bounds
from tinycompress.compress.quantize.flow import first_images, is_plain
from tinycompress.compress.quantize.integer import IntegerLayer, IntegerModule, OnFloats
from tinycompress.compress.quantize.integer.bias import whole_bias
from tinycompress.compress.quantize.integer.grids import host_scale
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.graph import no_grad
from tinycompress.nn import evaluation_mode


def incoming_grids(model: nn.Module, sample: Any = None) -> dict[str, Grid]:
    """Layer name → the grid of the activations that come into it, for the integer layers.

    Args:
        model: it is not changed.
        sample: a few inputs, as an array or a data set, to run it on; None: only what stands in
            Sequentials is seen.
    """
    return _seen_in_rows(model) if sample is None else _seen_on(model, sample)


def _seen_in_rows(model: nn.Module) -> dict[str, Grid]:
    """Follow the codes through what runs in order; a forward of somebody's own is not followed."""
    found: dict[str, Grid] = {}
    now: Grid | None = None
    known = is_plain(model) or isinstance(model, IntegerLayer)
    for name, layer in _in_order(model, "") if known else ():
        if isinstance(layer, IntegerLayer):
            into = layer.quantize_input
            grid = now if now is not None or into is None else into.grid
            if grid is not None:
                found[name] = grid
            now = layer.grid
        elif isinstance(layer, OnFloats) or list(layer.children()):
            now = None
    return found


def _in_order(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if not is_plain(module):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _in_order(child, f"{name}.{key}" if name else key)


def _seen_on(model: nn.Module, sample: Any) -> dict[str, Grid]:
    found: dict[str, Grid] = {}

    def look(name: str, layer: Any, inputs: tuple[Any, ...], _: Any) -> None:
        into = layer.quantize_input
        grid = inputs[0].grid if isinstance(inputs[0], QTensor) else into and into.grid
        if grid is not None:
            found[name] = grid

    copy = model.copy()  # whose hooks are ours alone
    for name, layer in copy.named_modules():
        if isinstance(layer, IntegerLayer):
            layer.register_forward_hook(partial(look, name))
    with evaluation_mode(copy), no_grad():
        copy(first_images(copy, sample))
    return found


def headroom_bits(layer: IntegerLayer | DynamicLayer, grid: Grid | None = None) -> float:
    """The headroom of a layer; ``grid`` is that of what comes in, for one with fixed grids."""
    codes, bias, steps = to_numpy(layer.weight_codes), None, _steps(layer, grid)
    if isinstance(layer, IntegerLayer) and grid is not None:
        b = None if layer.bias is None else to_numpy(layer.bias)
        whole = whole_bias(codes, to_numpy(layer.weight_scale), b, host_scale(grid))
        codes, bias = whole.codes, whole.bias
    low, high = (side.sum(axis=1) for side in bounds(codes, steps))
    shift = np.zeros_like(low) if bias is None else bias
    ends = [np.abs(x).max() for x in (low, high, low + shift, high + shift, shift)]
    reach = int(max(ends))
    return math.log2(INT32_LARGEST / reach) if reach else math.inf


def _steps(layer: nn.Module, grid: Grid | None) -> Steps:
    if isinstance(layer, DynamicLayer):
        return steps_of(layer.quantization)
    if grid is None:
        raise ValueError(f"{type(layer).__name__}: the grid of what comes in is needed")
    return grid.steps


def widened(layer: IntegerLayer, grid: Grid) -> tuple[str, ...]:
    """What had to be changed for the bias to fit into int32, in words; usually nothing."""
    bias = None if layer.bias is None else to_numpy(layer.bias)
    arrays = to_numpy(layer.weight_codes), to_numpy(layer.weight_scale), bias
    return whole_bias(*arrays, host_scale(grid)).notes


def gives_codes(layer: nn.Module) -> bool:
    """Whether a layer without weights computes with codes: a sum or a concatenation."""
    return isinstance(layer, IntegerModule) and not isinstance(layer, IntegerLayer)
