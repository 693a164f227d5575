"""What integer modules have in common: the grid of what they give, and a way in for floats."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import array_module, on_device, to_numpy
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.nn.skeleton import new_array
from tinycompress.tensor import Tensor, as_float_tensor


def range_name(target: IntegerRange) -> str:
    """``"uint8"``, ``"int8"`` or ``"narrow8"``: how configs call a range of codes."""
    kind = "uint" if not target.signed else "narrow" if target.narrow else "int"
    return f"{kind}{target.bits}"


def range_named(what: str, name: Any) -> IntegerRange:
    """The range that :func:`range_name` calls ``name``; ``what`` is named in errors."""
    found = re.fullmatch(r"(u?int|narrow)([1-9]\d?)", name) if isinstance(name, str) else None
    if not found or not 2 <= int(found[2]) <= 16:
        raise ValueError(
            f'{what} must be "uint", "int" or "narrow" with 2 to 16 bits, as in "uint8", got '
            f"{name!r}"
        )
    return IntegerRange(int(found[2]), signed=found[1] != "uint", narrow=found[1] == "narrow")


class QuantizeInput(nn.Module):
    """Floats to codes: ``clip(rint(x / scale) + zero_point, qmin, qmax)``. Codes pass.

    Args:
        output: which codes: ``"uint8"`` and the like.

    Attributes:
        scale: (1) float32.
        zero_point: (1), of the dtype of the codes.
    """

    only_dtypes = ("float32", "float64")

    def __init__(self, output: str = "uint8") -> None:
        super().__init__()
        self.target = range_named("QuantizeInput: output", output)
        self.register_buffer("scale", new_array((1,), 1.0))
        self.register_buffer("zero_point", new_array((1,), 0, self.target.dtype))

    @classmethod
    def on(cls, grid: Grid) -> QuantizeInput:
        """With the scale and zero point of ``grid``."""
        new = cls(range_name(grid.target))
        new.scale, new.zero_point = grid_arrays(grid)
        return new

    @property
    def grid(self) -> Grid:
        return read_grid(self.scale, self.zero_point, self.target)

    def forward(self, x: Any) -> QTensor:
        if isinstance(x, QTensor):
            return x
        x, grid = as_float_tensor(x), self.grid
        xp = array_module(x.data)
        kind = np.result_type(x.dtype, np.float32)
        with on_device(x.data), np.errstate(over="ignore", invalid="ignore"):
            steps = x.data.astype(kind, copy=False) / kind.type(grid.scale)
            steps = xp.clip(xp.rint(steps, out=steps), *grid.steps, out=steps)
            if steps.size and bool(xp.isnan(steps.max())):
                raise ValueError(f"{self._name or 'the input'}: holds NaN, which has no code")
            steps = steps.astype(np.float32, copy=False)
        return QTensor.from_steps(steps, grid)

    def config(self) -> dict[str, Any]:
        return {"output": range_name(self.target)}


class IntegerModule(nn.Module):
    """A module that takes codes and gives codes on a grid of its own, or floats.

    Args:
        output: which codes it gives: ``"uint8"`` and the like; None: it gives floats.
        input: which codes floats that come in are made into; None: floats are refused.

    Attributes:
        output_scale, output_zero_point: (1) arrays, where it gives codes.
        quantize_input: a :class:`QuantizeInput`, or None.
    """

    only_dtypes = ("float32", "float64")

    def __init__(self, output: str | None, input: str | None) -> None:
        super().__init__()
        kind = type(self).__name__
        self.target = None if output is None else range_named(f"{kind}: output", output)
        if self.target is not None:
            self.register_buffer("output_scale", new_array((1,), 1.0))
            self.register_buffer("output_zero_point", new_array((1,), 0, self.target.dtype))
        if input is not None:
            range_named(f"{kind}: input", input)
        self.quantize_input = None if input is None else QuantizeInput(input)

    def set_grids(self, output: Grid | None, input: Grid | None) -> None:
        """Set the scales and zero points; the ranges are those of the constructor."""
        if output is not None:
            self.output_scale, self.output_zero_point = grid_arrays(output)
        if input is not None:
            self.quantize_input = QuantizeInput.on(input)

    @property
    def grid(self) -> Grid | None:
        """The grid of what it gives."""
        if self.target is None:
            return None
        return read_grid(self.output_scale, self.output_zero_point, self.target)

    def codes_of(self, x: Any) -> QTensor:
        """What came in, as codes."""
        if isinstance(x, QTensor):
            if x.requires_grad:
                raise TypeError(
                    f"{type(self).__name__} computes in integers, which have no derivative; train "
                    "the model that tc.prepare_qat gave, and convert it afterwards"
                )
            return x
        if self.quantize_input is None:
            raise TypeError(
                f"{type(self).__name__} takes codes (a QTensor), got {type(x).__name__}; give it "
                'input="uint8" with a scale, or put a QuantizeInput before it'
            )
        return self.quantize_input(x)

    def config(self) -> dict[str, Any]:
        into = None if self.quantize_input is None else range_name(self.quantize_input.target)
        return {"output": self.target and range_name(self.target), "input": into}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


def read_grid(scale: Any, zero_point: Any, target: IntegerRange) -> Grid:
    """A grid of Python numbers from two arrays (1)."""
    return Grid(float(to_numpy(scale)[0]), int(to_numpy(zero_point)[0]), target)


def grid_arrays(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point as arrays (1), on the host."""
    QTensor(
        Tensor(np.zeros(0, np.float32)), host_scale(grid), grid.zero_point, grid.target
    )  # checks
    return np.full(1, host_scale(grid), np.float32), np.full(1, grid.zero_point, grid.target.dtype)


def host_scale(grid: Grid) -> float:
    """The scale as a number that is exact in float32."""
    scale = grid.scale
    scale = to_numpy(scale.data).reshape(-1)[0] if isinstance(scale, Tensor) else scale
    return float(np.float32(scale))
