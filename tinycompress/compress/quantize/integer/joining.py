"""A sum and a concatenation of codes that may be on different grids.

    q_y = clip(⌊(m_a·n_a + m_b·n_b) · 2⁻ˢʰⁱᶠᵗ + ½⌋ + z_y)        m · 2⁻ˢʰⁱᶠᵗ ≈ s/s_y

A sum brings both operands to the grid of the output with so many fractional bits (31 for the larger
factor) that nothing shows, adds them there, and rounds ONCE: rounding each operand first would be
off by up to a whole step. A concatenation is the same with one operand at a time; codes that are on
the grid of the output already stay as they are. The mantissas are those of
:func:`~tinycompress.compress.quantize.fixed_point.common_multipliers`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from tinycompress import functional as F
from tinycompress.backend import array_module, check_same_device, on_device
from tinycompress.compress.quantize.fixed_point import rounded_sum
from tinycompress.compress.quantize.integer.grids import IntegerModule, host_scale, range_name
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.shapes import check_broadcast


class IntegerAdd(IntegerModule):
    """``nn.Add`` on codes: ``a + b``, broadcast.

    Args:
        relu: whether a ReLU follows, and is done here.
        output: which codes it gives: ``"uint8"`` and the like; None: floats.
        input: which codes floats that come in are made into; None: floats are refused.
    """

    def __init__(
        self, relu: bool = False, output: str | None = None, input: str | None = None
    ) -> None:
        super().__init__(output, input)
        self.relu = bool(relu)

    @classmethod
    def on(cls, output: Grid | None, input: Grid | None = None, relu: bool = False) -> Self:
        """With these grids; the output's is that after the ReLU."""
        new = cls(relu, *(g and range_name(g.target) for g in (output, input)))
        new.set_grids(output, input)
        return new

    def forward(self, a: Any, b: Any) -> Any:
        operands = [self.codes_of(a), self.codes_of(b)]
        check_broadcast("add", *(x.shape for x in operands))
        if self.grid is None:
            y = operands[0].dequantize() + operands[1].dequantize()
            return y.relu() if self.relu else y
        return on_grid(operands, self.grid, self.relu)

    def config(self) -> dict[str, Any]:
        return {"relu": self.relu, **super().config()}


class IntegerConcat(IntegerModule):
    """``nn.Concat`` on codes: one behind the other along ``axis``; see :class:`IntegerAdd`."""

    def __init__(self, axis: int = 1, output: str | None = None, input: str | None = None) -> None:
        super().__init__(output, input)
        self.axis = axis

    @classmethod
    def on(cls, axis: int, output: Grid | None, input: Grid | None = None) -> Self:
        """With these grids."""
        new = cls(axis, *(g and range_name(g.target) for g in (output, input)))
        new.set_grids(output, input)
        return new

    def forward(self, *inputs: Any) -> Any:
        parts = [self.codes_of(x) for x in inputs]
        grid = self.grid
        if grid is None:
            return F.cat([x.dequantize() for x in parts], self.axis)
        moved = [x if x.grid == grid else on_grid([x], grid) for x in parts]
        return QTensor.from_steps(F.cat([x.steps() for x in moved], self.axis).data, grid)

    def config(self) -> dict[str, Any]:
        return {"axis": self.axis, **super().config()}


def on_grid(operands: list[QTensor], grid: Grid, relu: bool = False) -> QTensor:
    """The sum of ``operands`` (one, or several) on ``grid``, rounded once."""
    steps = [x.steps().data for x in operands]
    check_same_device("add", *steps)
    reals = [host_scale(x.grid) / host_scale(grid) for x in operands]
    low, high = grid.steps
    with on_device(steps[0]):
        y = rounded_sum(steps, reals)
        y = array_module(y).clip(y, 0 if relu else low, high).astype(np.float32)
    return QTensor.from_steps(y, grid)
