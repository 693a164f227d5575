"""Convolution and linear layers that compute with whole numbers.

    acc = Σ n_x · q_w + rint(b/(s_x·s_w))        int32; n_x = q_x − z_x, so padding is n = 0
    q_y = clip(⌊acc · M + ½⌋ + z_y)              M = s_x·s_w/s_y, fixed point, one rounding

Weights are symmetric, so they have no zero point. A ReLU that follows is the lower end of the clip.
The layer whose output is the model's output gives floats, ``acc · s_x·s_w``: scores are not rounded
to a few bits.

A layer stores the codes and scales of its weights, its bias in floats and the grid of its output;
s_x comes with the activation. What follows from these (``arithmetic.py``) is worked out when the
first activation arrives, and kept as long as nothing of it has changed. In a Sequential a ReLU and
a maximum pooling that follow are done on each block while it is in the cache, as for floats; and
the maximum is taken before the requantization, which never decreases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from tinycompress import nn
from tinycompress.backend import (
    Array,
    array_module,
    check_same_device,
    copy_of,
    device_of,
    on_device,
)
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.integer.arithmetic import Arithmetic, arithmetic_of
from tinycompress.compress.quantize.integer.grids import IntegerModule, host_scale, range_name
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.weights import (
    QuantizedWeight,
    dequantize_weight,
    quantize_weight,
)
from tinycompress.functional.pooling import check_window
from tinycompress.nn.fusion import Head
from tinycompress.nn.skeleton import new_array, skeletons
from tinycompress.ops import conv
from tinycompress.ops.elementwise import Result
from tinycompress.ops.steps import Step
from tinycompress.tensor import Tensor

Size = int | tuple[int, int]


class IntegerLayer(IntegerModule):
    """What both have in common.

    Args:
        layer: a skeleton of the float layer: its shapes and its config are taken over.
        bits: 1 to 16 for each weight.
        granularity: "per_channel" or "per_tensor".
        relu: whether a ReLU follows, and is done here.
        output, input: see :class:`IntegerModule`.

    Attributes:
        weight_codes: whole numbers (O, ...) around 0, in the smallest dtype that fits.
        weight_scale: (O) or (1) float32.
        bias: (O) float32, or None.
    """

    float_type: ClassVar[type[nn.Module]]
    axes: ClassVar[int]

    def __init__(
        self,
        layer: nn.Module,
        bits: int,
        granularity: str,
        relu: bool,
        output: str | None,
        input: str | None,
    ) -> None:
        super().__init__(output, input)
        self.quantization = QuantConfig(bits, "symmetric", granularity)
        self.relu = bool(relu)
        self._float_config = layer.config()
        shape = layer.weight.shape
        dtype = np.dtype(np.int8) if bits == 1 else self.quantization.target.dtype
        self.register_buffer("weight_codes", new_array(shape, 0, dtype))
        scales = shape[0] if self.quantization.axis == 0 else 1
        self.register_buffer("weight_scale", new_array((scales,), 1.0))
        has_bias = layer.bias is not None
        self.register_buffer("bias", new_array((shape[0],), 0.0) if has_bias else None)
        self._kept: tuple[Any, list[Array | None], Arithmetic] | None = None

    @classmethod
    def from_codes(
        cls,
        layer: nn.Module,
        weight: QuantizedWeight,
        config: QuantConfig,
        *,
        output: Grid | None = None,
        input: Grid | None = None,
        relu: bool = False,
    ) -> Self:
        """An integer layer in the place of a float one.

        Args:
            layer: the float layer: for its shapes and its bias.
            weight: its weights as codes, symmetric, per channel or per tensor.
            config: how these were made: its bits and granularity are taken over.
            output: the grid of the output, after the ReLU; None: the layer gives floats.
            input: the grid for floats that come in; None: they are refused.
            relu: whether a ReLU follows.

        Raises:
            ValueError: weights that are not symmetric.
        """
        if config.scheme != "symmetric" or config.granularity == "per_group":
            raise ValueError(
                "integer layers need symmetric weights, per channel or per tensor, got "
                f"scheme={config.scheme!r}, granularity={config.granularity!r}"
            )
        into = {"output": output, "input": input}
        options: dict[str, Any] = {k: g and range_name(g.target) for k, g in into.items()}
        options |= {"bits": config.bits, "granularity": config.granularity, "relu": relu}
        with skeletons():
            new = cls(**layer.config(), **options)
        new.set_grids(output, input)
        with on_device(weight.codes):
            new.weight_codes, new.weight_scale = weight.codes, weight.scale.astype(np.float32)
            if layer.bias is not None:
                new.bias = layer.bias.data.astype(np.float32)
        return new.to(device_of(weight.codes)).train(layer.training)

    @classmethod
    def from_float(
        cls, layer: nn.Module, config: QuantConfig, name: str = "layer", **grids: Any
    ) -> Self:
        """:meth:`from_codes` with the weights of ``layer``, quantized as ``config`` says.

        Raises:
            ValueError: the weights cannot be quantized so; ``name`` is named.
        """
        with on_device(layer.weight.data):
            w = layer.weight.data.astype(np.float32)
        weight = quantize_weight(w, config, name)
        return cls.from_codes(layer, weight, config, **grids)

    # ------------------------------------------------------------------------------- computing

    def forward(self, x: Any) -> Any:
        return self.run(x)

    def run(self, x: Any, weight: Any = None, bias: Any = None, steps: Sequence[Step] = ()) -> Any:
        """The layer, and the ``steps`` that follow it (``nn/fusion.py``).

        ``weight`` and ``bias`` are what the Head has, and are not looked at.
        """
        x = self.codes_of(x)
        self.check_shapes(x.shape, steps)
        data = x.steps().data
        check_same_device(type(self).__name__, data, self.weight_codes)
        with on_device(data):
            arithmetic = self.arithmetic(x.grid, self._name or type(self).__name__)
            finish = Step("requantize", _step_of(arithmetic.finish), monotone=True)
            y = arithmetic.product(data, finish, *steps).astype(np.float32, copy=False)
        return Tensor(y) if arithmetic.output is None else QTensor.from_steps(y, arithmetic.output)

    def in_chain(self) -> Head:
        # A weight of codes: batch norm, which floats may have behind them, is not folded into it.
        weight = Tensor(self.weight_codes)
        return Head(self.run, self._on_arrays, weight, None, {}, self.axes, windows=self.axes == 4)

    def _on_arrays(self, x: Array, weight: Any, bias: Any, steps: Any, keep: bool) -> Result:
        y = self.run(x, weight, bias, steps)
        return (y.data if isinstance(y, Tensor) else y), ()

    def check_shapes(self, shape: tuple[int, ...], steps: Sequence[Step]) -> None:
        """Refuse an input whose shape does not fit."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------- the arithmetic

    def arithmetic(self, grid: Grid, name: str = "layer") -> Arithmetic:
        """What is computed for activations on ``grid``.

        Raises:
            ValueError: a sum could leave int32; ``name`` is named. Call it ahead to know.
        """
        arrays = list(self._buffers.values())
        key = (host_scale(grid), grid.zero_point, grid.target, device_of(self.weight_codes))
        kept = self._kept
        if kept is None or kept[0] != key or not _equal(arrays, kept[1]):
            made = arithmetic_of(
                self.weight_codes,
                self.weight_scale,
                self.bias,
                (grid, self.grid),
                self.relu,
                self._options(),
                name,
            )
            self._kept = kept = key, [a if a is None else copy_of(a) for a in arrays], made
        return kept[2]

    def _options(self) -> Mapping[str, Any] | None:
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be changed for the activations seen last, in words; usually nothing."""
        return () if self._kept is None else self._kept[2].notes

    # ------------------------------------------------------------------------------ describing

    @property
    def weight(self) -> Tensor:
        """The weights that the codes stand for: a new tensor at each reading."""
        codes, scale = self.weight_codes, self.weight_scale
        with on_device(codes):
            zeros = array_module(codes).zeros(scale.shape, codes.dtype)
            return Tensor(
                dequantize_weight(QuantizedWeight(codes, scale, zeros), self.quantization)
            )

    def to_float(self) -> nn.Module:
        """The float layer with these weights, without a ReLU and without rounding."""
        with skeletons():
            layer = self.float_type(**self._float_config)
        layer.weight = nn.Parameter(self.weight.data)
        layer.bias = None if self.bias is None else nn.Parameter(copy_of(self.bias))
        return layer.train(self.training)

    def config(self) -> dict[str, Any]:
        q = self.quantization
        own = {"bits": q.bits, "granularity": q.granularity, "relu": self.relu}
        return {**self._float_config, **own, **super().config()}

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape[1:]) * math.prod(self.weight_codes.shape[1:])

    def count_parameters(self) -> tuple[int, int]:
        return _counted([self.weight_codes, self.bias])

    def count_repeated(self, seen: Container[int]) -> tuple[int, int]:
        return _counted([a for a in (self.weight_codes, self.bias) if id(a) in seen])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}


def _counted(arrays: list[Array | None]) -> tuple[int, int]:
    own = [a for a in arrays if a is not None]
    return sum(a.size for a in own), sum(int((a != 0).sum()) for a in own)


def _step_of(finish: Callable[[Array], Array]) -> Callable[..., Result]:
    return lambda y: (finish(y), (None,))


def _equal(own: list[Array | None], kept: list[Array | None]) -> bool:
    """Whether all numbers are as they were: somebody may have written into the arrays."""
    return all(
        a is b or (a is not None and b is not None and bool((a == b).all()))
        for a, b in zip(own, kept, strict=True)
    )


class IntegerLinear(IntegerLayer):
    """``nn.Linear`` on codes: x (..., in) → (..., out). See :class:`IntegerLayer`."""

    float_type = nn.Linear
    axes = 2

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        bits: int = 8,
        granularity: str = "per_channel",
        relu: bool = False,
        output: str | None = None,
        input: str | None = None,
    ) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Linear(in_features, out_features, bias)
        super().__init__(layer, bits, granularity, relu, output, input)
        self.in_features, self.out_features = in_features, out_features

    def check_shapes(self, shape: tuple[int, ...], steps: Sequence[Step]) -> None:
        if not shape or shape[-1] != self.in_features:
            raise ValueError(
                f"linear: input of shape {shape} must end in in_features = {self.in_features}"
            )


class IntegerConv2d(IntegerLayer):
    """``nn.Conv2d`` on codes: x (N, C, H, W) → (N, O, oh, ow). See :class:`IntegerLayer`."""

    float_type = nn.Conv2d
    axes = 4

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
        bits: int = 8,
        granularity: str = "per_channel",
        relu: bool = False,
        output: str | None = None,
        input: str | None = None,
    ) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
            )
        super().__init__(layer, bits, granularity, relu, output, input)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation

    def check_shapes(self, shape: tuple[int, ...], steps: Sequence[Step]) -> None:
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ValueError(
                f"conv2d: input must be (N, {self.in_channels}, H, W), got shape {shape}"
            )
        sizes = zip(shape[2:], *self._sizes(), strict=True)
        output = tuple(conv.output_size(*each) for each in sizes)
        if min(output) < 1:
            raise ValueError(
                f"conv2d: a kernel of {self.kernel_size} (dilation {self.dilation}) does not fit "
                f"into an image of {shape[2:]} with padding {self.padding} on each side"
            )
        for step in steps:
            if step.window is not None:
                whole = (shape[0], self.out_channels, *output)
                check_window(step.name, whole, step.window, step.window, (0, 0), ceil_mode=False)

    def _sizes(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation

    def _options(self) -> Mapping[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}
