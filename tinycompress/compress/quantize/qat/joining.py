"""A sum and a concatenation, in training for codes: their inputs may be on different grids.

Both bring what comes in to the grid of the output, with one rounding: the sum adds first. Floats
that come in get a grid here, one for all of them.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from tinycompress import functional as F, nn
from tinycompress.backend import on_device
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.fixed_point import rounded_sum
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer, Unrounded
from tinycompress.compress.quantize.qat.layers import Switched, as_scale, float64_of
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.straight_through import summed
from tinycompress.nn.skeleton import skeletons
from tinycompress.tensor import Tensor, apply, as_float_tensor


class PreparedJoin(Switched):
    """What the two have in common; mixed in before the float layer's class.

    Attributes:
        label: its name, for errors.
        input_quantizer: gives floats that come in a grid.
        output_quantizer: gives the output its grid; None where the output is floats.
        relu: whether a ReLU that follows is taken in.
    """

    label: str
    input_quantizer: ActivationQuantizer
    output_quantizer: ActivationQuantizer | None
    relu: bool = False

    @classmethod
    def of(cls, layer: nn.Module, quantization: QuantConfig, label: str) -> Self:
        """The prepared layer in the place of ``layer``."""
        with skeletons():
            new = cls(**layer.config())
        new.label = label
        new.input_quantizer = ActivationQuantizer(quantization, f"the input of {label}")
        new.output_quantizer = ActivationQuantizer(quantization, label)
        return new.train(layer.training)

    def give_floats(self) -> None:
        """Let the output be floats from now on."""
        self.output_quantizer = None

    def forward(self, *inputs: Any) -> Any:
        given = [self._incoming(x) for x in inputs]
        if self.output_quantizer is None:
            return self._joined([x.dequantize() for x in given])
        if not self.rounding or any(isinstance(x, Unrounded) for x in given):
            y = self._joined([x.dequantize() for x in given])
            return self.output_quantizer(y, self.observing, self.rounding)
        grid = self.output_quantizer.grid(
            lambda: self._joined([x.dequantize().detach() for x in given]).data,
            self._shape([x.shape for x in given]),
            given[0].steps().dtype,
            self.observing,
        )
        return QTensor.from_steps(self._codes(given, grid), grid)

    def _incoming(self, x: Any) -> QTensor:
        if isinstance(x, QTensor):
            return x
        return self.input_quantizer(as_float_tensor(x), self.observing, self.rounding)

    def _joined(self, inputs: list[Tensor]) -> Tensor:
        """The float layer, and the ReLU."""
        y = super().forward(*inputs)
        return y.relu() if self.relu else y

    def _shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Of the output; as far as the number of features of an example goes."""
        raise NotImplementedError

    def _codes(self, inputs: list[QTensor], grid: Grid) -> Tensor:
        """Steps on ``grid``."""
        raise NotImplementedError


class PreparedAdd(PreparedJoin, nn.Add):
    """``nn.Add`` in training for codes."""

    def _shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        return np.broadcast_shapes(*shapes)

    def _codes(self, inputs: list[QTensor], grid: Grid) -> Tensor:
        return on_grid(inputs, grid, self.relu)


class PreparedConcat(PreparedJoin, nn.Concat):
    """``nn.Concat`` in training for codes."""

    def _shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        axis = self.axis % len(shapes[0])
        size = sum(shape[axis] for shape in shapes)
        return (*shapes[0][:axis], size, *shapes[0][axis + 1 :])

    def _codes(self, inputs: list[QTensor], grid: Grid) -> Tensor:
        return F.cat([on_grid([x], grid) for x in inputs], self.axis)


def on_grid(inputs: list[QTensor], grid: Grid, relu: bool = False) -> Tensor:
    """The sum of the inputs (of one: itself) as steps on ``grid``."""
    steps = [x.steps() for x in inputs]
    scales = [as_scale(x) for x in inputs]
    s_y = float(float64_of(grid.scale)[0])
    with on_device(steps[0].data):
        sums = rounded_sum([n.data for n in steps], [float(float64_of(s)[0]) / s_y for s in scales])
    low, high = grid.steps
    ends = {"low": 0 if relu else low, "high": high}
    return apply(summed, *steps, *scales, grid.scale, sums=sums, **ends)
