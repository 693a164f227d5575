"""Convolution and linear layers as ``prepare_qat`` makes them: latent floats, computed in codes.

The forward pass is what the integer engine will do::

    x  (codes, from the layer before; floats get a grid here)      n_x = x.steps()
    w  (latent floats, rounded anew each time)                     n_w = clip(rint(w/s_w))
    acc = n_x ∘ n_w + rint(b/(s_x·s_w))                            whole numbers, exact
    y  = requantize(acc, s_x·s_w/s_y)  or, as the model's output, the floats s_x·s_w·acc

with straight-through derivatives (``straight_through.py``). In a model whose activations stay
floats (``activations=None``) only the weights are rounded.

Two switches say what a layer does: ``observing``, whether it looks at its activations in training
mode, and ``rounding``, whether it rounds at all. Calibration is ``observing`` without ``rounding``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, on_device, to_device, to_numpy
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.exact import INT32_LARGEST, check_accumulator
from tinycompress.compress.quantize.integer.bias import whole_bias
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer, Unrounded
from tinycompress.compress.quantize.qat.weights import WeightQuantizer
from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.compress.quantize.straight_through import (
    Product,
    dequantize_steps,
    dequantized,
    multiplied,
    requantized,
    rewritten,
)
from tinycompress.functional.layers import conv2d_chain, linear_chain
from tinycompress.nn.skeleton import skeletons
from tinycompress.ops import conv, linear
from tinycompress.ops.elementwise import Result
from tinycompress.tensor import Tensor, apply, as_float_tensor


class Switched(nn.Module):
    """A layer with the two switches, both on."""

    observing: bool = True
    rounding: bool = True


class PreparedLayer(Switched):
    """What the two have in common; mixed in before the float layer's class.

    Attributes:
        quantization: the layer's config.
        label: its name, for errors.
        weight, bias: latent floats, as in the float layer.
        weight_quantizer: makes codes of the weight.
        input_quantizer: gives floats that come in a grid; None where activations stay floats, or
            always come as codes.
        output_quantizer: gives the output its grid; None where the output is floats.
        relu: whether a ReLU was taken in: the lowest code is then that of 0.
    """

    product: Callable[..., Result]
    quantization: QuantConfig
    label: str
    relu: bool
    weight: nn.Parameter
    bias: nn.Parameter | None
    weight_quantizer: WeightQuantizer
    input_quantizer: ActivationQuantizer | None
    output_quantizer: ActivationQuantizer | None

    @classmethod
    def of(cls, layer: nn.Module, quantization: QuantConfig, label: str) -> Self:
        """The prepared layer with the parameters of ``layer``, the very same ones.

        Raises:
            ValueError: the weight cannot be quantized so; names the layer.
        """
        with skeletons():
            new = cls(**layer.config())
        new.weight, new.bias = layer.weight, layer.bias
        new.quantization, new.label, new.relu = quantization, label, False
        device = layer.weight.device
        new.weight_quantizer = WeightQuantizer(quantization, layer.weight.shape, label).to(device)
        new.weight_quantizer.start(layer.weight.data)
        new.input_quantizer = new.output_quantizer = None
        if quantization.activations is not None:
            incoming = f"the input of {label}"
            new.input_quantizer = ActivationQuantizer(quantization, incoming).to(device)
            new.output_quantizer = ActivationQuantizer(quantization, label).to(device)
        return new.train(layer.training)

    # ------------------------------------------------------------------------------- computing

    def forward(self, x: Any) -> Any:
        if self.quantization.activations is None:
            return self._floats(as_float_tensor(x))
        x = self._incoming(x)
        if not self.rounding or isinstance(x, Unrounded):
            y = self._floats(x.dequantize())
            return self._given(y.relu() if self.relu else y)
        with on_device(self.weight.data):
            return self._codes(x)

    def _incoming(self, x: Any) -> QTensor:
        if isinstance(x, QTensor):
            return x
        if self.input_quantizer is None:
            raise TypeError(
                f"{self.label} takes codes from the layer before it, and got floats; run the whole "
                "model"
            )
        return self.input_quantizer(as_float_tensor(x), self.observing, self.rounding)

    def give_floats(self) -> None:
        """Let the output be floats from now on."""
        self.output_quantizer = None

    def _floats(self, x: Tensor) -> Tensor:
        """With floats, and the weights rounded or not."""
        weight: Tensor = self.weight
        if self.rounding:
            q = self.quantization
            scale, zero_point = self.weight_quantizer.scale(weight)
            steps = self.weight_quantizer.steps(weight, scale, zero_point)
            weight = apply(dequantize_steps, steps, scale, axis=q.axis, group=q.group_size)
        return self._run(x, weight, self.bias)

    def _given(self, y: Tensor) -> Any:
        if self.output_quantizer is None:
            return y
        return self.output_quantizer(y, self.observing, self.rounding)

    def _codes(self, x: QTensor) -> Any:
        """With whole numbers."""
        x_steps, s_x = x.steps(), as_scale(x)
        w_steps, s_w, bias = self._whole_weights(s_x)
        unit = float64_of(s_x) * float64_of(s_w)
        q = self.quantization
        highest = max(abs(end) for end in x.grid.steps), 1 if q.bits == 1 else q.target.qmax
        op, options = type(self).product, self._options()
        product = multiplied(x_steps.data, w_steps.data, bias, highest, op, options)
        if product.reach > INT32_LARGEST:
            whole = to_numpy(w_steps.data).astype(np.int64)
            check_accumulator(self.label, whole, x.grid.steps, to_numpy(bias))
        inputs = x_steps, w_steps, self.bias, s_x, s_w
        if self.output_quantizer is None:
            y = apply(dequantized, *inputs, product=product, unit=unit)
            return y.relu() if self.relu else y
        shape = product.sums.shape
        grid = self.output_quantizer.grid(
            lambda: self._seen(product, unit), shape, x_steps.dtype, self.observing
        )
        y = apply(
            requantized,
            *inputs,
            grid.scale,
            product=product,
            factors=unit / float64_of(grid.scale),
            low=0 if self.relu else grid.steps[0],
            high=grid.steps[1],
        )
        return QTensor.from_steps(y, grid)

    def _whole_weights(self, s_x: Tensor) -> tuple[Tensor, Tensor, Array]:
        """Steps of the weights, their scale, and the bias as whole numbers of s_x·s_w.

        A scale that is too fine for its channel's bias is widened, as in the integer engine.
        """
        s_w, _ = self.weight_quantizer.scale(self.weight)
        steps = self.weight_quantizer.steps(self.weight, s_w, 0)
        codes, scale = to_numpy(steps.data), to_numpy(s_w.data)
        bias = None if self.bias is None else to_numpy(self.bias.data)
        whole = whole_bias(codes, scale, bias, float(float64_of(s_x)[0]))
        put = lambda a: to_device(a.astype(steps.dtype), steps.device)  # noqa: E731
        if not np.array_equal(whole.scale, np.broadcast_to(scale, whole.scale.shape)):
            factors = put(scale.astype(np.float64) / whole.scale)
            steps = apply(rewritten, steps, values=put(whole.codes), factors=factors)
            s_w = Tensor(put(whole.scale))
        zeros = np.zeros(len(codes)) if whole.bias is None else whole.bias
        return steps, s_w, to_device(zeros, steps.device)

    def _seen(self, product: Product, unit: np.ndarray) -> Array:
        """The output as real numbers, before it gets its grid."""
        assert self.output_quantizer is not None
        y = product.ends(unit) if self.output_quantizer.looks_at_ends else product.values(unit)
        return y.clip(0, None) if self.relu else y

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _options(self) -> Mapping[str, Any]:
        return {}

    # ------------------------------------------------------------------------------ describing

    def __repr__(self) -> str:
        q = self.quantization
        shown = {**self.config(), "bits": q.bits, "activations": q.activations, "relu": self.relu}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class PreparedLinear(PreparedLayer, nn.Linear):
    """``nn.Linear`` in training for codes."""

    product = staticmethod(linear.linear)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear_chain(x, weight, bias, steps=())


class PreparedConv2d(PreparedLayer, nn.Conv2d):
    """``nn.Conv2d`` in training for codes."""

    product = staticmethod(conv.conv2d)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d_chain(x, weight, bias, steps=(), **self._options())

    def _options(self) -> dict[str, Any]:
        return nn.Conv2d._options(self)


def as_scale(x: QTensor) -> Tensor:
    """The scale of ``x`` as a tensor (1) of the dtype of its steps."""
    if isinstance(x.scale, Tensor):
        return x.scale
    steps = x.steps()
    with on_device(steps.data):
        return Tensor(np.full(1, x.scale, steps.dtype))


def float64_of(scale: Tensor) -> np.ndarray:
    """A scale on the host, in double precision."""
    return to_numpy(scale.data).astype(np.float64)
