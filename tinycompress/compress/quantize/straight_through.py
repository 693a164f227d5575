"""Rounding to codes, with a derivative: the operations that quantization in training is made of.

Rounding has derivative 0 almost everywhere, which teaches nothing. The straight-through estimator
(Bengio, Léonard, Courville 2013, arXiv:1308.3432) treats it as the identity where the code before
clipping is one of ``qmin … qmax``, both ends included, and as constant outside. In ``fake.py`` what
comes out is a float near x; here it is the *step* n, the whole number code − zero_point with
x ≈ s·n, and the chain rule is written for that::

    n = clip(rint(x/s), qmin − z, qmax − z)     dn/dx = 1/s      dn/ds = −x/s²     (inside, else 0)
    x̂ = s·n                                     dx̂/dn = s        dx̂/ds = n

Put together, x̂ moves with x one to one, as in fake quantization, and with s by ``n − x/s`` inside
and by ``n`` outside: the gradient of LSQ (Esser et al. 2020, arXiv:1902.08153, equation 3) is
nothing but this chain rule.

A layer that takes codes and gives codes multiplies whole numbers (:func:`multiplied`) and rounds
once (:func:`requantized`): forward it is the integer engine, to the bit (``fixed_point.py``),
backward it is ``(s_x·s_w·acc + b)/s_y``, the real number that this stands for.

Read ``affine.py`` first, and ``fake.py``, which is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, array_module, device_of, is_array, to_device
from tinycompress.compress.quantize import fixed_point
from tinycompress.compress.quantize.blocks import reduce_blocks, spread
from tinycompress.compress.quantize.exact import FLOAT32_LIMIT
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.ops.elementwise import Result
from tinycompress.ops.layout import to_hnwc

# ------------------------------------------------------------------------------- floats and steps


def quantize_steps(
    x: Array,
    scale: Array,
    zero_point: Any,
    target: IntegerRange,
    axis: int | None = None,
    group: int | None = None,
) -> Result:
    """``clip(rint(x / scale), qmin − zero_point, qmax − zero_point)``; see the table above."""
    xp = array_module(x)
    if is_array(zero_point):
        zero_point = spread(zero_point.astype(x.dtype), x.shape, axis, group)
    low, high = target.qmin - zero_point, target.qmax - zero_point
    units = spread(scale, x.shape, axis, group)
    before = xp.rint(x / units)
    steps = xp.clip(before, low, high)
    inside = steps == before

    def d_x(g: Array) -> Array:
        return xp.where(inside, g, 0) / units

    def d_scale(g: Array) -> Array:
        return -_sum_of_blocks(d_x(g) * (x / units), axis, group)

    return steps, (d_x, d_scale)


def binary_steps(w: Array, scale: Array, axis: int | None = None) -> Result:
    """The sign of ``w``, −1 or 1 (of 0: 1), with the derivative 1/scale where |w| ≤ 1.

    So ``scale · sign(w)`` moves with w one to one, but only as long as w is between −1 and 1: the
    estimator of BinaryConnect and of XNOR-Net (arXiv:1511.00363, arXiv:1603.05279). Beyond, a
    latent weight would move on for ever without changing anything.
    """
    xp = array_module(w)
    inside = xp.abs(w) <= 1
    units = spread(scale, w.shape, axis)
    steps = xp.where(w >= 0, 1, -1).astype(w.dtype)
    return steps, (lambda g: xp.where(inside, g, 0) / units, lambda g: xp.zeros_like(scale))


def dequantize_steps(
    steps: Array, scale: Array, axis: int | None = None, group: int | None = None
) -> Result:
    """``scale · steps``."""
    units = spread(scale, steps.shape, axis, group)
    return steps * units, (
        lambda g: g * units,
        lambda g: _sum_of_blocks(g * steps, axis, group),
    )


def learned_scale(step: Array, floor: Array | float, gradient_scale: float) -> Result:
    """A learned step size as a scale: positive, and a float32 number whatever its dtype.

    ``max(|step|, floor)``; its gradient is multiplied by ``gradient_scale``, which is
    ``1/√(n · qmax)`` in LSQ (section 2.2): the gradient of a step sums over all n numbers that it
    divides, and would be far larger, for its size, than that of a weight.
    """
    xp = array_module(step)
    size = xp.abs(step)
    scale = xp.maximum(size, floor).astype(np.float32).astype(step.dtype)
    slope = xp.where(size >= floor, xp.where(step < 0, -1.0, 1.0), 0.0) * gradient_scale
    return scale, (lambda g: g * slope.astype(g.dtype),)


def rewritten(steps: Array, values: Array, factors: Array) -> Result:
    """``values``, which are ``steps`` (O, ...) on other scales: about ``factors · steps``."""
    column = factors.reshape(-1, *(1,) * (steps.ndim - 1))
    return values, (lambda g: g * column,)


def _sum_of_blocks(x: Array, axis: int | None, group: int | None) -> Array:
    return reduce_blocks(lambda block: block.sum(axis=-1), x, axis, group)


# ------------------------------------------------------------------------------ products of steps


class Product(NamedTuple):
    """``x ∘ w`` of whole numbers, exactly, and what it stands for.

    Attributes:
        sums: whole numbers in floats; channels on ``axis``.
        bias: whole numbers in floats, (O): the bias in units of s_x·s_w.
        backward: of the product, as operations have it (``graph.py: Joint``).
        axis: where the O channels are, counted from the end.
        reach: no sum, with the bias, is larger.
    """

    sums: Array
    bias: Array
    backward: Callable[..., Any]
    axis: int
    reach: float

    def column(self, values: Array) -> Array:
        """One number per channel, or a single one, to stand beside ``sums``."""
        return values.reshape(-1, *(1,) * (-self.axis - 1))

    def rows(self, values: Array) -> Array:
        """(..., O) -> (everything else, O), without a copy: images lie in memory as H, N, W, O."""
        last = to_hnwc(values) if self.axis == -3 else values
        return last.reshape(-1, last.shape[-1])

    def per_channel(self, values: Array) -> Array:
        """(O): the sum over everything else, by BLAS, which is faster than ``sum`` is."""
        rows = self.rows(values)
        return array_module(rows).ones(len(rows), rows.dtype) @ rows

    def accumulators(self) -> Array:
        """The sums and the bias: what an int32 holds in the integer engine."""
        return self.sums + self.column(self.bias)

    def values(self, unit: np.ndarray, dtype: Any = np.float32) -> Array:
        """The accumulators as real numbers; ``unit`` is s_x·s_w in float64."""
        sums = self.accumulators()
        units = to_device(self.column(unit), device_of(sums))
        return (sums.astype(np.float64) * units).astype(dtype)

    def ends(self, unit: np.ndarray) -> Array:
        """The smallest and the largest of :meth:`values` in each channel, (2, O)."""
        xp, sums = array_module(self.sums), self.sums
        if self.axis == -3:  # whole rows of images first: long stretches of memory
            low, high = sums.min(axis=2).min(axis=(0, 2)), sums.max(axis=2).max(axis=(0, 2))
        else:
            rows = self.rows(sums)
            low, high = rows.min(axis=0), rows.max(axis=0)
        ends = xp.stack([low, high]) + self.bias
        return (ends.astype(np.float64) * to_device(unit, device_of(ends))).astype(np.float32)


def multiplied(
    x: Array,
    w: Array,
    bias: Array,
    highest: tuple[int, int],
    op: Callable[..., Result],
    options: Mapping[str, Any],
) -> Product:
    """``op(x, w)`` of steps, exact: in float32 where every partial sum is below 2²⁴, else float64.

    Args:
        x: steps; w: (O, ...) steps.
        bias: (O) whole numbers.
        highest: how large a step of ``x`` and one of ``w`` can be.
        op: ``conv.conv2d`` or ``linear.linear``.
        options: its other arguments.
    """
    xp = array_module(x)
    reach = highest[0] * highest[1] * (w.size // w.shape[0]) + float(xp.abs(bias).max())
    if reach >= FLOAT32_LIMIT:  # see what the weights are
        size = xp.abs(w).reshape(w.shape[0], -1).sum(axis=1, dtype=xp.float64)
        reach = float(xp.max(size * highest[0] + xp.abs(bias)))
    exact = np.dtype(np.float64) if reach >= FLOAT32_LIMIT else x.dtype
    sums, backward = op(x.astype(exact, copy=False), w.astype(exact, copy=False), None, **options)
    return Product(sums, bias.astype(exact), backward, -3 if w.ndim == 4 else -1, reach)


def requantized(
    x: Array,
    w: Array,
    b: Array | None,
    s_x: Array,
    s_w: Array,
    s_y: Array,
    product: Product,
    factors: np.ndarray,
    low: int,
    high: int,
) -> Result:
    """Steps of ``y ≈ (s_x·s_w·(x ∘ w) + b)/s_y``, by fixed-point arithmetic with one rounding.

    Args:
        x, w: steps; b: (O) floats, or None; s_x, s_y: (1); s_w: (O) or (1).
        product: of ``x`` and ``w``; it is made before, because what it gives may decide s_y.
        factors: s_x·s_w/s_y in float64, on the host.
        low, high: the lowest and the highest step of the output; ``low=0`` makes a ReLU.
    """
    xp = array_module(x)
    m, shift = (product.column(to_device(a, device_of(x))) for a in fixed_point.multiplier(factors))
    acc = product.accumulators()
    before = fixed_point.rounded(acc, m, shift, max(abs(low), abs(high)))
    clipped = xp.clip(before, low, high)
    inside = clipped == before

    def backward(g: Array, wanted: tuple[bool, ...]) -> list[Array | None]:
        g = xp.where(inside, g, 0) / s_y  # by the real number y·s_y
        gradients, real = _by_the_parts(g, wanted[:5], s_x, s_w, product, wanted[5])
        return [*gradients, None if real is None else -real / s_y]

    return clipped.astype(x.dtype), backward


def dequantized(
    x: Array,
    w: Array,
    b: Array | None,
    s_x: Array,
    s_w: Array,
    product: Product,
    unit: np.ndarray,
) -> Result:
    """``y ≈ s_x·s_w·(x ∘ w) + b`` in floats, from the accumulators: what a model's output is."""
    y = product.values(unit, x.dtype)
    return y, lambda g, wanted: _by_the_parts(g, wanted, s_x, s_w, product)[0]


def summed(*inputs: Array, sums: Array, low: int, high: int) -> Result:
    """Steps of ``y ≈ (s_1·n_1 + s_2·n_2 + …)/s_y``; one summand alone changes its grid.

    Args:
        inputs: all steps n (which broadcast), then all scales s (1), then s_y (1).
        sums: the right side, rounded but not clipped, as the integer engine has it.
        low, high: the lowest and the highest step of the output.
    """
    count = len(inputs) // 2
    steps, scales, s_y = inputs[:count], inputs[count:-1], inputs[-1]
    xp = array_module(sums)
    inside = xp.logical_and(sums >= low, sums <= high)

    def backward(g: Array, wanted: tuple[bool, ...]) -> list[Array | None]:
        g = xp.where(inside, g, 0) / s_y
        moved = [(g * n).sum().reshape(1) for n in steps] if any(wanted[count:]) else [None] * count
        real: Any = sum(m * s for m, s in zip(moved, scales, strict=True)) if wanted[-1] else None
        return [*(g * s for s in scales), *moved, None if real is None else -real / s_y]

    return xp.clip(sums, low, high).astype(steps[0].dtype), backward


def _by_the_parts(
    g: Array,
    wanted: tuple[bool, ...],
    s_x: Array,
    s_w: Array,
    product: Product,
    asked: bool = False,
) -> tuple[list[Array | None], Array | None]:
    """The derivatives of ``y = s_x·s_w·(x ∘ w) + b`` by x, w, b, s_x and s_w; and Σ g·y if asked.

    That sum and the derivatives by scales need no more than two numbers of each channel, Σ g and
    Σ g·(x ∘ w).
    """
    unit = s_x * s_w  # (O) or (1)
    down = (g * product.column(unit)).astype(product.sums.dtype, copy=False)
    d_x, d_w, _ = product.backward(down, (wanted[0], wanted[1], False))
    total = product.per_channel(g) if wanted[2] or asked else None
    gradients = [d_x, d_w, total if wanted[2] else None, None, None]
    if not (wanted[3] or wanted[4] or asked):
        return gradients, None
    moved = product.per_channel(g * product.sums.astype(g.dtype, copy=False))
    gradients[3] = (moved * s_w).sum().reshape(1)
    gradients[4] = moved * s_x if s_w.shape == moved.shape else (moved * s_x).sum().reshape(1)
    real = ((moved + total * product.bias) * unit).sum().reshape(1) if asked else None
    return gradients, real
