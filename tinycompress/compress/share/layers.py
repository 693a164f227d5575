"""Layers whose weights share few numbers: a codebook, and for each weight its code.

    w[i] = c[codes[i]],   c = 0, c_1, …, c_K                    (Han et al. 2016, arXiv:1510.00149)

Code 0 is the zero of pruned weights. It is no centroid: it cannot move, and no cluster is lost to
it, so that b bits are 2^b different weights beside the zero. The codebook is an ordinary parameter.
Optimizers, weight decay, workers, checkpoints and distillation do with it what they do with any
other; its derivative is the sum of those of the weights that share a number (``ops/gather.py``).
So ``tc.fit`` fine-tunes centroids, and the codes stay.

Each forward pass makes the weights and runs the usual operation, fused with what follows it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container
from typing import Any, ClassVar, Self

import numpy as np

from tinycompress import nn
from tinycompress.backend import device_of, on_device, to_device, to_numpy
from tinycompress.compress.made import MadeConv2d, MadeLinear
from tinycompress.compress.share.kmeans import kmeans_1d
from tinycompress.functional.joining import gather
from tinycompress.graph import no_grad
from tinycompress.nn.skeleton import new_array, skeletons
from tinycompress.tensor import Tensor

Size = int | tuple[int, int]
BLANK = 32
"""Centroids of a new layer, all 0; a file says how many there are where it is another number."""


class SharedLayer(nn.Module):
    """What layers with shared weights have in common.

    Args:
        layer: a skeleton of the float layer: its shapes and its config are taken over.

    Attributes:
        codebook: (K) parameter, the centroids.
        codes: 0 … K of the weight's shape (O, ...), uint8, or uint16 where K > 255; 0 is a zero.
        bias: (O) parameter, or None.
    """

    float_type: ClassVar[type[nn.Module]]

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._float_config = layer.config()
        self.codebook = nn.Parameter(new_array((BLANK,), 0))
        self.bias = None if layer.bias is None else nn.Parameter(new_array(layer.bias.shape, 0))
        self.register_buffer("codes", new_array(layer.weight.shape, 0, np.uint8))

    @classmethod
    def from_float(
        cls, layer: nn.Module, clusters: int, init: str = "linear", seed: int = 0
    ) -> Self:
        """A layer whose weights are near those of ``layer``, which stays as it is.

        Args:
            layer: weights that are 0, or that its mask prunes, get code 0.
            clusters: how many centroids at most, beside the zero.
            init, seed: see :func:`~.kmeans.kmeans_1d`.
        """
        weight = layer.weight
        w = to_numpy(weight.data)
        kept = w != 0 if weight.mask is None else (w != 0) & to_numpy(weight.mask)
        codebook, members = kmeans_1d(w[kept], clusters, init, seed)
        codes = np.zeros(w.shape, np.min_scalar_type(codebook.size))
        codes[kept] = members.astype(codes.dtype) + 1
        with skeletons():  # draws no initial weights, which would be thrown away
            new = cls(**layer.config())
        place = device_of(weight.data)
        new.codebook = nn.Parameter(to_device(codebook, place), weight.requires_grad)
        new.bias = copy.deepcopy(layer.bias)
        new.codes = to_device(codes, place)
        return new.train(layer.training)

    def to_float(self) -> nn.Module:
        """The float layer with these weights; what has code 0 is pruned in it, by a mask."""
        with skeletons():
            layer = self.float_type(**self._float_config)
        layer.weight = nn.Parameter(self.weight.data, self.codebook.requires_grad)
        with on_device(self.codes):
            kept = self.codes != 0
        layer.weight.mask = None if bool(kept.all()) else kept
        layer.bias = copy.deepcopy(self.bias)
        return layer.train(self.training)

    @property
    def weight(self) -> Tensor:
        """The weights, made anew at each reading; the graph leads to the codebook."""
        return gather(self.codebook, self.codes)

    def config(self) -> dict[str, Any]:
        return dict(self._float_config)

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape[1:]) * math.prod(self.codes.shape[1:])

    def check_state(self) -> None:
        with skeletons():
            shape = self.float_type(**self._float_config).weight.shape
        if self.codebook.ndim != 1 or self.codes.shape != shape or self.codes.dtype.kind != "u":
            raise ValueError(
                f"codes must be unsigned of shape {shape} and codebook must have one axis, got "
                f"{self.codes.dtype} {self.codes.shape} and {self.codebook.shape}"
            )
        with on_device(self.codes):
            largest = int(self.codes.max())
        if largest > self.codebook.size:
            raise ValueError(
                f"code {largest} stands for no number of a codebook of {self.codebook.size}"
            )

    def count_parameters(self) -> tuple[int, int]:
        """(weights and biases, how many are not zero). The codebook is not counted beside them."""
        return self._count(weights=True, bias=True)

    def count_repeated(self, seen: Container[int]) -> tuple[int, int]:
        same = id(self.codebook) in seen and id(self.codes) in seen
        return self._count(weights=same, bias=id(self.bias) in seen)

    def _count(self, weights: bool, bias: bool) -> tuple[int, int]:
        with no_grad(), on_device(self.codes):
            pairs = ((self.weight, weights), (self.bias, bias))
            own = [a.data for a, counted in pairs if a is not None and counted]
            return sum(a.size for a in own), sum(int((a != 0).sum()) for a in own)

    def __repr__(self) -> str:
        arguments = {**self.config(), "clusters": self.codebook.size}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


class SharedLinear(MadeLinear, SharedLayer):
    """``nn.Linear`` with shared weights: x (..., in) → (..., out)."""

    float_type = nn.Linear

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Linear(in_features, out_features, bias)
        super().__init__(layer)
        self.in_features, self.out_features = in_features, out_features


class SharedConv2d(MadeConv2d, SharedLayer):
    """``nn.Conv2d`` with shared weights: x (N, C, H, W) → (N, O, oh, ow)."""

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
    ) -> None:
        with skeletons():  # checks the arguments
            layer = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
            )
        super().__init__(layer)
        self.like(layer)
