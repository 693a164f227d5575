"""Layers that hold codes instead of weights, and compute in floats (weight-only quantization).

Their state is what a file stores: whole numbers, one scale and zero point per block, and the bias
as it was. Each forward pass turns the codes into floats and runs the usual operation, fused with
what follows it as that of a float layer is (``nn/fusion.py``). So the model is small where it is
kept, and where it runs as fast as a float one from some images on; for a single image, making
the weights takes longer than their products, unless ``tc.compile`` makes them once and for all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Mapping
from typing import Any, ClassVar, Self

from tinycompress import nn
from tinycompress.backend import on_device
from tinycompress.compress.made import MadeConv2d, MadeLinear
from tinycompress.compress.quantize.blocks import spread
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.weights import (
    QuantizedWeight,
    blank_weight,
    dequantize_weight,
    quantize_weight,
)
from tinycompress.nn.skeleton import new_array, skeletons
from tinycompress.tensor import Tensor

Size = int | tuple[int, int]


class QuantizedLayer(nn.Module):
    """What quantized layers have in common.

    Args:
        layer: a skeleton of the float layer: its shapes and its config are taken over.
        quantization: a :class:`QuantConfig`, what its ``to_dict`` gave, or None for the default.

    Attributes:
        weight_codes: whole numbers, (O, ...) as the float weight, in the smallest dtype that fits.
        weight_scale, weight_zero_point: one per block, see ``blocks.py``.
        bias: (O) parameter, or None.
    """

    float_type: ClassVar[type[nn.Module]]
    only_dtypes = ("float32", "float64")  # the scales of 16-bit codes are 0 in float16

    def __init__(
        self, layer: nn.Module, quantization: QuantConfig | Mapping[str, Any] | None
    ) -> None:
        super().__init__()
        if not isinstance(quantization, QuantConfig):
            quantization = QuantConfig.from_dict(quantization or {})
        self.quantization: QuantConfig = quantization
        self._float_config = layer.config()
        codes, scale, zero_point = blank_weight(layer.weight.shape, self.quantization)
        self.register_buffer("weight_codes", codes)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", zero_point)
        self.bias = None if layer.bias is None else nn.Parameter(new_array(layer.bias.shape, 0))

    @classmethod
    def from_float(cls, layer: nn.Module, config: QuantConfig, name: str = "layer") -> Self:
        """A quantized layer with the weights of ``layer``, which stays as it is.

        Raises:
            ValueError: the weights cannot be quantized so; ``name`` is named.
        """
        weight = quantize_weight(layer.weight.data, config, name)
        with skeletons():
            new = cls(**layer.config(), quantization=config)
        new.weight_codes, new.weight_scale, new.weight_zero_point = weight
        new.bias = copy.deepcopy(layer.bias)
        return new.train(layer.training)

    def to_float(self) -> nn.Module:
        """The float layer whose weights are what the codes stand for."""
        with skeletons():  # draws no initial weights, which would be thrown away
            layer = self.float_type(**self._float_config)
        layer.weight = nn.Parameter(self.weight.data)
        layer.bias = copy.deepcopy(self.bias)
        return layer.train(self.training)

    @property
    def weight(self) -> Tensor:
        """The weights that the codes stand for: a new tensor at each reading."""
        return Tensor(dequantize_weight(self._quantized_weight(), self.quantization))

    def _quantized_weight(self) -> QuantizedWeight:
        return QuantizedWeight(self.weight_codes, self.weight_scale, self.weight_zero_point)

    def config(self) -> dict[str, Any]:
        return {**self._float_config, "quantization": self.quantization.to_dict()}

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape[1:]) * math.prod(self.weight_codes.shape[1:])

    def count_parameters(self) -> tuple[int, int]:
        """(weights and biases, how many are not zero): a code equal to its zero point is a zero."""
        return self._and_codes(super().count_parameters())

    def count_repeated(self, seen: Container[int]) -> tuple[int, int]:
        """Layers that are tied share their codes: so does a file that holds them once."""
        again = super().count_repeated(seen)
        return self._and_codes(again) if id(self.weight_codes) in seen else again

    def _and_codes(self, count: tuple[int, int]) -> tuple[int, int]:
        codes, q = self.weight_codes, self.quantization
        with on_device(codes):
            zero_point = spread(self.weight_zero_point, codes.shape, q.axis, q.group_size)
            return count[0] + codes.size, count[1] + int((codes != zero_point).sum())

    def __repr__(self) -> str:
        arguments = {**self.config(), **self.quantization.to_dict()}
        del arguments["quantization"]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


class QuantizedLinear(MadeLinear, QuantizedLayer):
    """``nn.Linear`` with codes for weights: x (..., in) → (..., out)."""

    float_type = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        quantization: QuantConfig | Mapping[str, Any] | None = None,
    ) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Linear(in_features, out_features, bias)
        super().__init__(layer, quantization)
        self.in_features, self.out_features = in_features, out_features


class QuantizedConv2d(MadeConv2d, QuantizedLayer):
    """``nn.Conv2d`` with codes for weights: x (N, C, H, W) → (N, O, oh, ow)."""

    float_type = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        quantization: QuantConfig | Mapping[str, Any] | None = None,
    ) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
            )
        super().__init__(layer, quantization)
        self.like(layer)
