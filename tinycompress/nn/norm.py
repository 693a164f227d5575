"""Normalising layers; the mathematics is in ``ops/norm.py``.

Batch norm (Ioffe & Szegedy 2015) keeps running statistics for evaluation. It does not write them
while it computes but notes what it saw (``notes.py``), and ``merge`` updates them once per step:
``running ← (1 − momentum) · running + momentum · seen``, where *seen* is the mean over the shards
weighted by their number of values, and the variance is the unbiased one, as in torch. A layer that
is called twice in one recorded step counts as two shards; torch would update it twice.
"""

from __future__ import annotations

from typing import Any

from tinycompress import functional as F
from tinycompress.backend import Array, array_module, check_same_device, on_device
from tinycompress.functional.layers import batch_norm_training
from tinycompress.nn.fusion import Affine
from tinycompress.nn.module import Module
from tinycompress.nn.parameter import Parameter
from tinycompress.nn.skeleton import new_array
from tinycompress.shapes import whole
from tinycompress.tensor import Tensor, as_float_tensor


class _BatchNorm(Module):
    axes: tuple[int, ...] = ()
    running_mean: Array
    running_var: Array

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.num_features = n = whole(f"{layer}: num_features", num_features, 1)
        self.eps = _positive(layer, eps)
        if not (isinstance(momentum, float | int) and 0 <= momentum <= 1):
            raise ValueError(f"{layer}: momentum must be between 0 and 1, got {momentum!r}")
        self.momentum, self.affine = momentum, bool(affine)
        self.weight = Parameter(new_array((n,), 1)) if affine else None
        self.bias = Parameter(new_array((n,), 0)) if affine else None
        self.register_buffer("running_mean", new_array((n,), 0))
        self.register_buffer("running_var", new_array((n,), 1))

    def forward(self, x: Any) -> Tensor:
        x = as_float_tensor(x)
        self._check(x)
        if not self.training:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        y, seen = batch_norm_training(x, self.weight, self.bias, self.eps)
        self.note(seen)
        return y

    def _check(self, x: Tensor) -> None:
        layer = type(self).__name__
        if x.ndim not in self.axes or x.shape[1] != self.num_features:
            raise ValueError(
                f"{layer}: input must have {' or '.join(map(str, self.axes))} axes "
                f"and {self.num_features} channels on axis 1, got shape {x.shape}"
            )
        # Running statistics are no tensors, so the engine does not compare them with x.
        check_same_device(layer, x.data, self.running_mean)
        own = self.running_mean.dtype
        if x.dtype != own:
            raise TypeError(
                f"{layer}: the input is {x.dtype} and the layer {own}; make the input {own}, or "
                f"the model {x.dtype} with .to({x.dtype.name!r})"
            )

    def in_chain(self) -> Affine | None:
        """In evaluation the statistics are constants, and batch norm scales and shifts."""
        if self.training:
            return None
        return Affine(self._factors, (self.weight, self.bias), self.axes)

    def _factors(self) -> tuple[Array, Array]:
        """``(y − mean)/√(var + eps) · w + b`` as ``scale · y + shift``."""
        scale = 1 / array_module(self.running_var).sqrt(self.running_var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.data
        shift = -self.running_mean * scale
        return scale, shift if self.bias is None else shift + self.bias.data

    def merge(self, notes: list[Any]) -> None:
        total = sum(count for _, _, count in notes)
        with on_device(self.running_mean):
            mean: Any = sum(m * (count / total) for m, _, count in notes)
            var: Any = sum(v * (count / total * count / (count - 1)) for _, v, count in notes)
            self.running_mean = self.running_mean * (1 - self.momentum) + mean * self.momentum
            self.running_var = self.running_var * (1 - self.momentum) + var * self.momentum

    def config(self) -> dict[str, Any]:
        names = ("num_features", "eps", "momentum", "affine")
        return {name: getattr(self, name) for name in names}


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, C) or (N, C, L)."""

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W)."""

    axes = (4,)


class LayerNorm(Module):
    """Layer norm (Ba et al. 2016, arXiv:1607.06450) over the last axes, ``normalized_shape``."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
    ) -> None:
        super().__init__()
        sizes = (
            normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        )
        if not sizes:
            raise ValueError("LayerNorm: normalized_shape needs at least one size")
        self.normalized_shape = tuple(whole("LayerNorm: normalized_shape", n, 1) for n in sizes)
        self.eps, self.elementwise_affine = _positive("LayerNorm", eps), bool(elementwise_affine)
        self.weight = self.bias = None
        if elementwise_affine:
            self.weight = Parameter(new_array(self.normalized_shape, 1))
            self.bias = Parameter(new_array(self.normalized_shape, 0))

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def config(self) -> dict[str, Any]:
        return {
            "normalized_shape": list(self.normalized_shape),
            "eps": self.eps,
            "elementwise_affine": self.elementwise_affine,
        }


def _positive(layer: str, eps: float) -> float:
    if not (isinstance(eps, float | int) and 0 < eps < float("inf")):
        raise ValueError(f"{layer}: eps must be a number above 0, got {eps!r}")
    return eps
