"""What a layer computes for activations of one grid: worked out once, then only done.

The layer knows the codes and scales of its weights, its bias and the grid of its output; s_x, the
zero point and the range of codes come with the activation. From these follow

    bias codes       rint(b/(s_x·s_w))           which may ask for wider scales (``bias.py``)
    int32            never overflows             or it is refused, by name (``exact.py``)
    sums             how to make them exactly    (``exact.py``)
    M = s_x·s_w/s_y  as mantissa and shift       (``fixed_point.py``)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, device_of, to_device, to_numpy
from tinycompress.compress.quantize.exact import Product, check_accumulator
from tinycompress.compress.quantize.fixed_point import Requantization
from tinycompress.compress.quantize.integer.bias import whole_bias
from tinycompress.compress.quantize.integer.grids import host_scale
from tinycompress.compress.quantize.qtensor import Grid


class Arithmetic(NamedTuple):
    """What :func:`arithmetic_of` found.

    Attributes:
        product: of the weights' codes, with the bias.
        finish: from accumulators (channels last) to steps of the output, or to floats.
        output: the grid of the output; None: floats.
        notes: what had to be changed, in words.
    """

    product: Product
    finish: Callable[[Array], Array]
    output: Grid | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Floats:
    """Accumulators to floats: ``acc · s_x·s_w`` in float64, rounded once to float32."""

    unit: Array
    relu: bool

    def __call__(self, acc: Array) -> Array:
        y = (acc * self.unit).astype(np.float32)
        return array_module(y).maximum(y, 0) if self.relu else y


def arithmetic_of(
    codes: Array,
    scale: Array,
    bias: Array | None,
    grids: tuple[Grid, Grid | None],
    relu: bool = False,
    options: Mapping[str, Any] | None = None,
    name: str = "layer",
) -> Arithmetic:
    """What is computed with these weights, on the device where they are.

    Args:
        codes, scale: of symmetric weights: (O, ...) whole numbers, and (O) or (1) floats.
        bias: (O) floats, or None.
        grids: of what comes in, and of what goes out (None: floats).
        relu: whether a ReLU follows.
        options: of a convolution; None for a linear layer.
        name: the layer's, for errors.

    Raises:
        ValueError: a sum could leave int32; ``name`` and the numbers are in the message.
    """
    device, (x_grid, y_grid) = device_of(codes), grids
    x_scale = host_scale(x_grid)
    whole = whole_bias(
        to_numpy(codes), to_numpy(scale), None if bias is None else to_numpy(bias), x_scale
    )
    check_accumulator(name, whole.codes, x_grid.steps, whole.bias)
    product = Product(whole.codes, whole.bias, x_grid.steps, device, options)
    unit = x_scale * whole.scale.astype(np.float64)
    finish: Callable[[Array], Array]
    if y_grid is None:
        finish = Floats(to_device(unit, device), relu)
    else:
        low, high = y_grid.steps
        real = unit / host_scale(y_grid)
        finish = Requantization.of(real, 0 if relu else low, high, device)
    return Arithmetic(product, finish, y_grid, whole.notes)
