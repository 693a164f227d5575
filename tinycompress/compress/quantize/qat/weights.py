"""A latent float weight, and the codes that a forward pass makes of it.

The weight that is trained stays a float parameter under its old name, so optimizers, pruning masks,
checkpoints and distillation see an ordinary layer. Each forward pass rounds it anew::

    n = clip(rint(w/s))  by the straight-through estimator,      s from the weights as they are now

- the scale is ``max|w|/qmax`` of a channel or the tensor, a constant to the derivative; with
  ``weight_observer="mse"`` the range is the part of it with the smallest squared error, a part that
  is found when the model is prepared and then kept (a search in each step would take longer than
  the step);
- with ``learn_step`` it is a parameter (LSQ, Esser et al. 2020, arXiv:1902.08153), which starts at
  ``2·mean|w|/√qmax`` (of the weights that are not pruned) and whose gradient is multiplied by
  ``1/√(n·qmax)``, for n weights that share it. Weight decay shrinks it as any other parameter;
- 2 bits are ternary, −1, 0 and 1;
- 1 bit is ``sign(w)·mean|w|``, straight through where |w| ≤ 1, as BinaryConnect and XNOR-Net do.

A pruned weight is 0 and has code 0, except at 1 bit, which has no zero: refused by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, on_device
from tinycompress.compress.quantize.affine import SMALLEST_SCALE, choose_qparams, min_max
from tinycompress.compress.quantize.binary import binarize
from tinycompress.compress.quantize.blocks import block_shape, reduce_blocks, spread
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.straight_through import (
    binary_steps,
    learned_scale,
    quantize_steps,
)
from tinycompress.compress.quantize.weights import QuantizedWeight, quantize_weight, weight_range
from tinycompress.nn.skeleton import new_array
from tinycompress.tensor import Tensor, apply

NO_ZERO = "one bit has no code for zero; use bits=2, whose codes are −1, 0 and 1"


class WeightQuantizer(nn.Module):
    """From a weight to its codes, by a config.

    Args:
        quantization: the layer's config.
        shape: of the weight.
        label: the layer's name, for errors.

    Attributes:
        share: with ``weight_observer="mse"``, which part of the range is kept, at its lower and its
            upper end, (2, blocks); else None.
        step: one parameter per block, with ``learn_step``; else None.
        zero_point: one per block, for a learned step of affine weights; else None.
    """

    share: Array | None
    zero_point: Array | None

    def __init__(self, quantization: QuantConfig, shape: tuple[int, ...], label: str) -> None:
        super().__init__()
        q = quantization
        self.quantization, self.label = q, label
        blocks = block_shape(shape, q.axis, q.group_size)
        searched = q.weight_observer == "mse" and q.bits > 1 and not q.learn_step
        ends = (2, *blocks)
        self.register_buffer("share", new_array(ends, 1, np.float64) if searched else None)
        shifted = q.learn_step and q.scheme == "affine"
        dtype = np.dtype(np.int8) if q.bits == 1 else q.target.dtype
        self.register_buffer("zero_point", new_array(blocks, 0, dtype) if shifted else None)
        self.step = nn.Parameter(new_array(blocks, 1)) if q.learn_step else None

    def start(self, w: Array) -> None:
        """Find what is found once, from the weight as it is.

        Raises:
            ValueError: NaN, infinity, or, at one bit, a weight that is 0; names the layer.
        """
        q = self.quantization
        found = quantize_weight(w, q, self.label)
        if self.share is not None:
            with on_device(w):
                whole, kept = _ends(w, q, self.label), weight_range(w, q, self.label)
                xp = array_module(w)
                parts = [
                    xp.where(a == 0, 1, b / xp.where(a == 0, 1, a))
                    for a, b in zip(whole, kept, strict=True)
                ]
                self.share = xp.stack(parts)
        if self.zero_point is not None:
            self.zero_point = found.zero_point
        if self.step is not None:
            with on_device(w):
                self.step.data[...] = self._first_step(w, found)

    def _first_step(self, w: Array, found: QuantizedWeight) -> Array:
        q = self.quantization
        if q.bits == 1 or q.scheme == "affine":
            return found.scale
        xp = array_module(w)
        # Of the weights that are there: a pruned layer's mean would be far too small.
        count = reduce_blocks(lambda b: (b != 0).sum(axis=-1), w, q.axis, q.group_size)
        total = reduce_blocks(lambda b: b.sum(axis=-1), xp.abs(w), q.axis, q.group_size)
        step = 2 * total / xp.maximum(count, 1) / np.sqrt(q.target.qmax)
        return xp.where(step > SMALLEST_SCALE, step, 1)

    # ------------------------------------------------------------------------------- computing

    def scale(self, w: Tensor) -> tuple[Tensor, Any]:
        """One scale per block, and the zero points, for ``w`` as it is now."""
        with on_device(w.data):
            if self.step is not None:
                return self._learned(w), 0 if self.zero_point is None else self.zero_point
            scale, zeros = self._of_range(w.data)
            return Tensor(scale.astype(w.dtype)), zeros

    def steps(self, w: Tensor, scale: Tensor, zero_point: Any) -> Tensor:
        """``code − zero_point`` of each weight, in the graph."""
        q = self.quantization
        if q.bits == 1:
            mask = getattr(w, "mask", None)
            if mask is not None and not bool(mask.all()):
                raise ValueError(f"{self.label}: its weights are pruned, and {NO_ZERO}")
            return apply(binary_steps, w, scale, axis=q.axis)
        block = {"axis": q.axis, "group": q.group_size}
        return apply(quantize_steps, w, scale, zero_point=zero_point, target=q.target, **block)

    def _of_range(self, w: Array) -> tuple[Array, Array]:
        q = self.quantization
        wide = w.dtype == np.float64 and q.activations is None  # as quantize_weight has it
        dtype = np.float64 if wide else np.float32
        if q.bits == 1:
            scale = binarize(w, q.axis, q.group_size, self.label)[1]
            return scale.astype(dtype), array_module(w).zeros_like(scale, dtype=np.int8)
        lo, hi = _ends(w, q, self.label)
        if self.share is not None:
            lo, hi = lo * self.share[0], hi * self.share[1]
        return choose_qparams(lo, hi, q.target, q.scheme, dtype, self.label)

    def _learned(self, w: Tensor) -> Tensor:
        assert self.step is not None
        q = self.quantization
        above = 1 if q.bits == 1 else q.target.qmax
        factor = 1 / np.sqrt(w.size / self.step.size * above)
        return apply(learned_scale, self.step, floor=SMALLEST_SCALE, gradient_scale=float(factor))

    # --------------------------------------------------------------------------------- the end

    def final(self, w: Tensor) -> QuantizedWeight:
        """Codes, scale and zero point, as evaluation uses them."""
        q = self.quantization
        scale, zero_point = self.scale(w.detach())
        steps = self.steps(w.detach(), scale.detach(), zero_point).data
        xp = array_module(steps)
        dtype = np.dtype(np.int8) if q.bits == 1 else q.target.dtype
        with on_device(steps):
            zeros = xp.zeros(scale.shape, dtype) + zero_point
            from_zero = steps if q.scheme == "symmetric" else steps + _spread(zeros, steps, q)
            return QuantizedWeight(from_zero.astype(dtype), scale.data, zeros.astype(dtype))


def _ends(w: Array, q: QuantConfig, label: str) -> tuple[Array, Array]:
    """The range of each block, 0 included."""
    lo, hi = min_max(w, q.axis, q.group_size, label)
    xp = array_module(w)
    return xp.minimum(lo, 0.0), xp.maximum(hi, 0.0)


def _spread(zeros: Array, like: Array, q: QuantConfig) -> Array:
    return spread(zeros.astype(like.dtype), like.shape, q.axis, q.group_size)
