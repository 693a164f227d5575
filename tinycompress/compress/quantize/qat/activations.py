"""Where an activation gets its grid in training: what it was seen to be, or a step that is learned.

A producer of codes (a layer, or the entry of the model) owns an :class:`ActivationQuantizer`. It
looks at the numbers before they are rounded, and from what its observer saw follow scale and zero
point, which every forward pass uses. Like batch norm it does not write while it computes but notes
what it saw (``nn/notes.py``), and updates once per step: so it does not matter how many workers
computed the step, and evaluation changes nothing.

Before the first step is merged nothing is known, and what comes in is given the grid of its own
range (``fit`` tries the validation data before it trains). :func:`~..convert.convert` does not
accept that: it names the layers that have seen nothing.

With ``learn_step`` the scale is a parameter instead: LSQ (Esser et al. 2020, arXiv:1902.08153). It
starts at ``2·mean|x|/√n`` with the n steps that lie above 0, from calibration data or from the
first step's batch, and after that nothing is observed any more. The zero point stays as the
observer had it then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.quantize.affine import SMALLEST_SCALE
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.observers import (
    MinMaxObserver,
    Observer,
    make_observer,
)
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.compress.quantize.straight_through import learned_scale, quantize_steps
from tinycompress.nn.skeleton import new_array
from tinycompress.tensor import Tensor, apply

WINDOW = 5000
"""How many examples the past weighs in a moving average: some 40 batches of 128."""


class Unrounded(QTensor):
    """What flows where rounding is switched off: numbers as they are, on a grid of step 1."""

    @classmethod
    def of(cls, x: Tensor, quantizer: ActivationQuantizer) -> Unrounded:
        return cls.from_steps(x, Grid(1.0, 0, quantizer.signed))  # type: ignore[return-value]


class ActivationQuantizer(nn.Module):
    """From numbers to a grid.

    Args:
        quantization: the layer's config; its ``activations`` must be set.
        label: the layer's name, for errors.

    Attributes:
        observer: what was seen.
        scale, zero_point: (1) arrays, which follow from it.
        step: (1) parameter, with ``learn_step``; else None.
    """

    scale: Array
    zero_point: Array
    size: Array

    def __init__(self, quantization: QuantConfig, label: str) -> None:
        super().__init__()
        self.target = quantization.activation_target
        self.signed = type(self.target)(self.target.bits)
        self.label = label
        self.observer: Observer = make_observer(
            quantization.observer,
            self.target,
            quantization.activation_scheme,
            label,
            percent=quantization.percentile,
            window=WINDOW if quantization.observer == "moving_average" else None,
        )
        self.register_buffer("scale", new_array((1,), 1.0))
        self.register_buffer("zero_point", new_array((1,), 0, np.int64))
        self.step = nn.Parameter(new_array((1,), 1.0)) if quantization.learn_step else None
        if self.step is not None:
            self.register_buffer("size", new_array((2,), 0, np.float64))  # Σ|x|, how many

    @property
    def ready(self) -> bool:
        """Whether anything was seen."""
        return int(self.observer.count[0]) > 0

    @property
    def looks_at_ends(self) -> bool:
        """Whether the smallest and the largest numbers say as much as all of them."""
        return type(self.observer) is MinMaxObserver and self.step is None

    # ------------------------------------------------------------------------------- computing

    def forward(self, x: Tensor, observing: bool = True, rounding: bool = True) -> QTensor:
        """Floats as codes; with ``rounding`` off as they are."""
        grid = self.grid(lambda: x.data, x.shape, x.dtype, observing, rounding)
        if not rounding:
            return Unrounded.of(x, self)
        steps = apply(quantize_steps, x, grid.scale, zero_point=grid.zero_point, target=self.target)
        return QTensor.from_steps(steps, grid)

    def grid(
        self,
        values: Callable[[], Array],
        shape: tuple[int, ...],
        dtype: Any,
        observing: bool,
        rounding: bool = True,
    ) -> Grid:
        """The grid for numbers (N, ...) of this shape, which ``values`` gives if they are wanted.

        Raises:
            ValueError: the numbers are looked at, and hold NaN or infinity; names the layer.
        """
        learned = self.step is not None and self.ready and rounding
        seen = None
        if observing and self.training and not learned:
            seen = self._seen(values())
            self.note(seen)
        if not rounding:
            return Grid(1.0, 0, self.signed)
        if not self.ready:
            scale, zeros = self._from_one(self._seen(values()) if seen is None else seen)
            scale = to_device(scale, device_of(self.scale))
            zero_point = int(zeros[0])
        else:
            scale, zero_point = self.scale, int(to_numpy(self.zero_point)[0])
            if self.step is not None:
                return Grid(self._learned(shape, zero_point), zero_point, self.target)
        with on_device(scale):
            return Grid(Tensor(scale.astype(dtype)), zero_point, self.target)

    def _learned(self, shape: tuple[int, ...], zero_point: int) -> Tensor:
        features = int(np.prod(shape[1:]))  # of one example, so that batches do not matter
        factor = 1 / np.sqrt(features * self._above(zero_point))
        return apply(learned_scale, self.step, floor=SMALLEST_SCALE, gradient_scale=float(factor))

    def _above(self, zero_point: int) -> int:
        """The steps on the longer side of 0: LSQ's Q_P, for unsigned codes from 0 just qmax."""
        return max(self.target.qmax - zero_point, zero_point - self.target.qmin)

    # ------------------------------------------------------------------------------- observing

    def _seen(self, x: Array) -> tuple[Any, Any]:
        seen = self.observer.seen(x)
        if self.step is None:
            return seen, None
        with on_device(x):
            total = float(array_module(x).abs(x).sum(dtype=np.float64))
        return seen, (total, x.size)

    def _from_one(self, noted: tuple[Any, Any]) -> tuple[Array, Array]:
        """Scale and zero point from one shard alone."""
        twin = self.observer.copy()
        twin.merge([noted[0]])
        scale, zero_point = twin.qparams()
        if self.step is not None:
            total, count = noted[1]
            scale = self._first_step(total, count, int(zero_point[0]))
        return scale, zero_point

    def _first_step(self, total: float, count: float, zero_point: int) -> np.ndarray:
        step = 2 * total / max(count, 1) / np.sqrt(self._above(zero_point))
        return np.array([step if step > SMALLEST_SCALE else 1.0], np.float32)

    def merge(self, notes: list[Any]) -> None:
        self.observer.merge([seen for seen, _ in notes])
        scale, zero_point = self.observer.qparams()
        if self.step is not None:
            sums = to_numpy(self.size) + np.sum([size for _, size in notes], axis=0)
            scale = self._first_step(float(sums[0]), float(sums[1]), int(zero_point[0]))
            self.size = to_device(sums.astype(self.size.dtype), device_of(self.size))
            with on_device(self.step.data):
                self.step.data[...] = float(scale[0])
        device = device_of(self.scale)
        self.scale = to_device(scale.astype(self.scale.dtype), device)
        self.zero_point = to_device(zero_point.astype(np.int64), device)

    # --------------------------------------------------------------------------------- the end

    def final(self) -> tuple[float, int]:
        """Scale and zero point as evaluation uses them.

        Raises:
            RuntimeError: nothing was ever seen; names the layer.
        """
        if not self.ready:
            self.observer.range()
        scale = to_numpy(self.scale if self.step is None else self.step.data)
        positive = max(abs(float(scale[0])), SMALLEST_SCALE)
        return float(np.float32(positive)), int(self.zero_point[0])
