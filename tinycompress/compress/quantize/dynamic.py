"""Dynamic quantization: activations become codes at each call, by the range they have just then.

    q_x = clip(rint(x / s_x) + z_x)             s_x, z_x from the smallest and largest number of x
    y = s_x · s_w · Σ (q_x − z_x) · q_w + b     the sum in whole numbers, exactly

Floats go in and floats come out of each layer, so nothing has to be known in advance: no
calibration. The price is a pass over the activations to find their range, in every layer and at
every call.

Each example (entry along the first axis) has a range of its own. With one range for the whole batch
(as others have it) the answer for an image would depend on which images stand beside it, and
``evaluate`` would depend on the batch size and the number of workers.

The products are those of the integer engine (``exact.py``). As z_x may be any code, a step
``q_x − z_x`` is one of −(2ᵇ − 1) … 2ᵇ − 1; that the sum fits int32 for all of these is checked when
the layer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, copy_of, device_of, on_device, to_numpy
from tinycompress.compress.quantize.affine import choose_qparams, grid_positions, min_max
from tinycompress.compress.quantize.blocks import spread
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.exact import Product, check_accumulator
from tinycompress.compress.quantize.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from tinycompress.tensor import Tensor, as_float_tensor


class DynamicLayer(QuantizedLayer):
    """What both have in common. For inference: gradients do not pass.

    ``quantization`` has ``dynamic=True``.
    """

    _kept: tuple[Array, Product] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.quantization.dynamic:
            raise ValueError(f"{type(self).__name__}: quantization must have dynamic=True")

    @classmethod
    def from_float(cls, layer: nn.Module, config: QuantConfig, name: str = "layer") -> Self:
        """As :meth:`QuantizedLayer.from_float`.

        Raises:
            ValueError: also where the sums could leave int32.
        """
        new = super().from_float(layer, config, name)
        check_accumulator(name, to_numpy(new.weight_codes), steps_of(config))
        return new

    def forward(self, x: Any) -> Tensor:
        x = as_float_tensor(x).data
        self._check(x.shape)
        with on_device(x):
            steps, scale = self._codes(x)
            sums = self._product()(steps)
            return Tensor(self._values(sums, scale, len(x.shape)).astype(x.dtype, copy=False))

    def _codes(self, x: Array) -> tuple[Array, Array]:
        """``q_x − z_x`` as float32, and s_x of each example."""
        if not len(x):
            return x.astype(np.float32), array_module(x).zeros(0, np.float32)
        q, target = self.quantization, self.quantization.activation_target
        name = f"the input of {self._name or type(self).__name__}"
        axis = 0 if x.ndim > 1 else None
        xp = array_module(x)
        lo, hi = min_max(x, axis, None, name)
        scale, zero_point = choose_qparams(lo, hi, target, q.activation_scheme, np.float32, name)
        positions = grid_positions(x, scale, zero_point, axis, None)
        codes = xp.clip(positions, target.qmin, target.qmax)
        steps = codes - spread(zero_point.astype(codes.dtype), x.shape, axis)
        return steps.astype(np.float32, copy=False), scale

    def _values(self, sums: Array, scale: Array, axes: int) -> Array:
        """``sums · s_x · s_w + b`` in float64: the same on every device."""
        xp = array_module(sums)
        channels = -1 if self.float_type is nn.Linear else 1
        row = [1] * axes
        row[channels] = -1
        y = sums.astype(xp.float64) * self.weight_scale.astype(xp.float64).reshape(row)
        if axes > 1:
            scale = scale.reshape(-1, *(1,) * (axes - 1))
        y *= scale
        if self.bias is not None:
            y += self.bias.data.reshape(row)
        return y

    def _product(self) -> Product:
        """The weights, ready; made anew where the codes have changed."""
        codes, kept = self.weight_codes, self._kept
        if kept is None or not _same(kept[0], codes):
            device = device_of(codes)
            product = Product(
                to_numpy(codes), None, steps_of(self.quantization), device, self._options()
            )
            self._kept = kept = copy_of(codes), product
        return kept[1]

    def _options(self) -> Mapping[str, Any] | None:
        return None

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuse an input whose shape does not fit."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}


def steps_of(config: QuantConfig) -> tuple[int, int]:
    """The smallest and the largest ``q_x − z_x``, wherever z_x is."""
    target = config.activation_target
    if config.activation_scheme == "symmetric":
        return target.qmin, target.qmax
    return target.qmin - target.qmax, target.qmax - target.qmin


def _same(a: Array, b: Array) -> bool:
    return device_of(a) == device_of(b) and a.shape == b.shape and bool((a == b).all())


class DynamicLinear(DynamicLayer, QuantizedLinear):
    """``nn.Linear`` in whole numbers, on floats: x (..., in) → (..., out)."""

    def _check(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] != self.in_features:
            raise ValueError(
                f"linear: input of shape {shape} must end in in_features = {self.in_features}"
            )


class DynamicConv2d(DynamicLayer, QuantizedConv2d):
    """``nn.Conv2d`` in whole numbers, on floats: x (N, C, H, W) → (N, O, oh, ow)."""

    def _options(self) -> Mapping[str, Any]:
        return self._geometry()

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ValueError(
                f"conv2d: input must be (N, {self.in_channels}, H, W), got shape {shape}"
            )


DYNAMIC: dict[type[nn.Module], type[DynamicLayer]] = {
    nn.Linear: DynamicLinear,
    nn.Conv2d: DynamicConv2d,
}
