"""Adaptive rounding: up or down, whichever is better for what comes out.

AdaRound, Nagel et al. 2020, arXiv:2004.10568.

Rounding each weight to the *nearest* code is best for each weight alone, and not for the layer:
errors of the same sign add up. So for each weight it is learned whether to round up or down::

    w̃ = s · clip(⌊w/s⌋ + h(v), qmin, qmax)
    h(v) = clip(1.2 · σ(v) − 0.1, 0, 1)             the rectified sigmoid (equation 23)

with v such that w̃ = w in the beginning. What is minimised, layer by layer, on calibration data, is
the error of what the layer gives out (after its ReLU, if it has one), and a term that pushes each
h to 0 or 1 (equation 24)::

    ‖f(w x) − f(w̃ x̂)‖² + λ Σ (1 − |2h − 1|^β)

x comes from the float model, x̂ from the model with the layers before already rounded. β falls from
20, where the second term acts only next to 0 and 1, to 2; and for the first fifth of the steps the
term is left out. At the end h ≥ ½ is up. Where the result is not better than the nearest codes on
the calibration data, the nearest ones stay.

What comes back has weights *on* their grid, and at least one at its end, so that quantizing it by
the range from smallest to largest gives exactly these codes. That needs the symmetric scheme.

Traps: weights that are 0 are not asked (pruned ones must stay 0), nor those at or beyond an end of
the grid, where w/s may be 126.99999 for what is 127.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinycompress import functional as F, nn, optim
from tinycompress.backend import Array, array_module, device_of, on_device, to_device
from tinycompress.compress.quantize.affine import SMALLEST_SCALE, choose_qparams
from tinycompress.compress.quantize.bias_correction import layers_in_order
from tinycompress.compress.quantize.blocks import spread
from tinycompress.compress.quantize.capture import inputs_and_outputs
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.flow import flow_of
from tinycompress.compress.quantize.weights import weight_range
from tinycompress.graph import no_grad
from tinycompress.ops.elementwise import Result
from tinycompress.tensor import Tensor, apply

STRETCH, SHIFT = 1.2, -0.1
"""ζ − γ and γ of the rectified sigmoid with ζ = 1.1, γ = −0.1."""

Outputs = Callable[[Array, Tensor], Tensor]
"""What a layer, and a ReLU after it, give out for (inputs, weight)."""


class Settings(NamedTuple):
    """How to learn; see :func:`adaround`."""

    steps: int
    batch_size: int
    lr: float
    strength: float
    seed: int


def adaround(
    model: nn.Module,
    config: QuantConfig,
    data: Any,
    *,
    steps: int = 300,
    batch_size: int = 32,
    lr: float = 0.02,
    strength: float = 0.01,
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model``, still in floats, whose weights are rounded, each up or down.

    Quantize it with ``config.replace(weight_observer="minmax")`` next (:func:`on_grid`): these are
    then the codes. Layers with one bit, and those that ``config`` leaves out, stay as they are.

    Args:
        model: it is not changed. Fold batch norm first.
        config: how its weights will be quantized; symmetric.
        data: images as an array or a data set; 256 to 1,024.
        steps: of Adam, for each layer. The paper takes 10,000.
        batch_size: images per step.
        lr: Adam's learning rate.
        strength: λ.
        seed: which images come in which step.

    Raises:
        ValueError: there are no images, or a layer's scheme is not symmetric; it is named.
    """
    settings = Settings(steps, batch_size, lr, strength, seed)
    rounded = model.copy()
    names = layers_in_order(model, config, data)
    with_relu = _followed_by_relu(model, data)
    for name in names:
        layer: Any = rounded.get_submodule(name)
        own = config.for_layer(name, layer)
        if own is None or own.bits == 1:
            continue
        if own.scheme != "symmetric":
            raise ValueError(f"adaround: {name} has scheme={own.scheme!r}, and needs symmetric")
        _, right = inputs_and_outputs(model, name, data)
        x, _ = inputs_and_outputs(rounded, name, data)
        outputs = _outputs(layer, name in with_relu)
        if name in with_relu:
            right = F.relu(right).data
        layer.weight.data = _learn(_grid(layer.weight.data, own, name), outputs, x, right, settings)
    return rounded


def on_grid(config: QuantConfig) -> QuantConfig:
    """``config`` for a model whose weights :func:`adaround` has rounded by it."""
    overrides = [(key, c and c.replace(weight_observer="minmax")) for key, c in config.overrides]
    return config.replace(weight_observer="minmax", overrides=overrides)


def _followed_by_relu(model: nn.Module, data: Any) -> set[str]:
    flow = flow_of(model, data)
    readers = {call.name: flow.reader(call) for call in flow.calls}
    return {n for n, r in readers.items() if not isinstance(r, str) and type(r.layer) is nn.ReLU}


def _outputs(layer: Any, relu: bool) -> Outputs:
    head = layer.in_chain()
    steps = (nn.ReLU().in_chain(),) if relu else ()
    return lambda x, w: head.run(x, w, layer.bias, steps=steps, **head.options)


# --------------------------------------------------------------------------------------- one layer


class Grid(NamedTuple):
    """What can be chosen for a weight: ``lower + step · h`` with h between 0 and 1.

    Attributes:
        lower: the number below each weight; where there is no choice, what it becomes.
        step: the scale; 0 where there is no choice.
        fraction: how far up each weight is.
    """

    lower: Array
    step: Array
    fraction: Array

    def at(self, h: Array) -> Array:
        return self.lower + self.step * h


def _grid(w: Array, config: QuantConfig, name: str) -> Grid:
    xp = array_module(w)
    with on_device(w):
        lo, hi = weight_range(w, config, name)
        scale, _ = choose_qparams(lo, hi, config.target, config.scheme, w.dtype, name)
        scale = spread(scale, w.shape, config.axis, config.group_size)
        places = w / scale
        below = xp.floor(places)
        free = abs(places) < config.target.qmax * (1 - 2.0**-20)
        free &= abs(w) >= SMALLEST_SCALE
        fixed = xp.clip(xp.rint(places), config.target.qmin, config.target.qmax)
        step = xp.broadcast_to(scale, w.shape) * free
        return Grid(scale * xp.where(free, below, fixed), step, places - below)


def _learn(grid: Grid, outputs: Outputs, x: Array, right: Array, settings: Settings) -> Array:
    """The weight on its grid."""
    xp = array_module(x)
    with on_device(x):
        inside = xp.clip(grid.fraction, 0.01, 0.99)
        start = -xp.log(STRETCH / (inside - SHIFT) - 1)
        v = nn.Parameter(start.astype(grid.lower.dtype))
        adam = optim.Adam([v], lr=settings.lr)
        order = np.random.default_rng(settings.seed)
        for step in range(settings.steps):
            rows = order.choice(len(x), min(settings.batch_size, len(x)), replace=False)
            index = to_device(np.sort(rows), device_of(x))
            adam.zero_grad()
            h = apply(_rectified_sigmoid, v)
            error = outputs(x[index], grid.lower + grid.step * h) - right[index]
            loss = (error**2).sum() * (len(grid.lower) / error.size)
            beta = _beta(step, settings.steps)
            if beta is not None:
                loss = loss + settings.strength * apply(_undecided, h, beta=beta)
            loss.backward()
            adam.step()
        with no_grad():
            learned = grid.at(apply(_rectified_sigmoid, v).data >= 0.5)
        nearest = grid.at(xp.rint(grid.fraction))
        errors = [_error(outputs, x, right, w) for w in (learned, nearest)]
        return learned if errors[0] < errors[1] else nearest


def _beta(step: int, steps: int) -> float | None:
    """β of the regulariser: None in the first fifth, then from 20 to 2 along a cosine."""
    progress = (step / steps - 0.2) / 0.8
    return None if progress < 0 else 2 + 18 * 0.5 * (1 + float(np.cos(np.pi * progress)))


def _error(outputs: Outputs, x: Array, right: Array, w: Array) -> float:
    total = 0.0
    with no_grad():
        for start in range(0, len(x), 100):
            rows = slice(start, start + 100)
            difference = outputs(x[rows], Tensor(w)).data - right[rows]
            total += float((difference**2).sum())
    return total


def _rectified_sigmoid(v: Array) -> Result:
    """``h = clip(1.2 σ(v) − 0.1, 0, 1)``, ``dh = 1.2 σ (1 − σ)`` between the ends, else 0."""
    xp = array_module(v)
    sigmoid = 0.5 * (1 + xp.tanh(0.5 * v))
    stretched = STRETCH * sigmoid + SHIFT
    inside = (stretched > 0) & (stretched < 1)
    return xp.clip(stretched, 0, 1), (lambda g: g * inside * (STRETCH * sigmoid * (1 - sigmoid)),)


def _undecided(h: Array, beta: float) -> Result:
    """``Σ (1 − |2h − 1|^β)``: near 0 or 1 an h counts 0, at ½ it counts 1."""
    xp = array_module(h)
    t = 2 * h - 1
    power = xp.abs(t) ** (beta - 1)  # |t|^(β−1); times |t| it is the term, times sign(t) the slope
    total = (1 - power * xp.abs(t)).sum()
    return total, (lambda g: -g * (2 * beta) * power * xp.sign(t),)
