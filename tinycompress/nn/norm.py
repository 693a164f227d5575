"""Normalising layers; the mathematics is in ``ops/norm.py``.

Batch norm (Ioffe & Szegedy 2015) keeps running statistics for evaluation. It does not write them
while it computes but notes what it saw (``notes.py``), and ``merge`` updates them once per step:
``running ← (1 − momentum) · running + momentum · seen``, where *seen* is the mean over the shards
weighted by their number of values, and the variance is the unbiased one, as in torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import functional as F
from tinycompress.backend import Array
from tinycompress.functional.layers import batch_norm_training
from tinycompress.nn.module import Module
from tinycompress.nn.parameter import Parameter
from tinycompress.tensor import Tensor, as_tensor


class _BatchNorm(Module):
    axes: tuple[int, ...] = ()
    running_mean: Array
    running_var: Array

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__()
        if not isinstance(num_features, int) or num_features < 1:
            raise ValueError(f"num_features must be a whole number ≥ 1, got {num_features!r}")
        self.num_features, self.eps, self.momentum, self.affine = (
            num_features,
            eps,
            momentum,
            affine,
        )
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in self.axes or x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: input must have {' or '.join(map(str, self.axes))} axes "
                f"and {self.num_features} channels on axis 1, got shape {x.shape}"
            )
        if not self.training:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        y, seen = batch_norm_training(x, self.weight, self.bias, self.eps)
        self.note(seen)
        return y

    def merge(self, notes: list[Any]) -> None:
        total = sum(count for _, _, count in notes)
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
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape: tuple[int, ...] = tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = self.bias = None
        if elementwise_affine:
            self.weight = Parameter(np.ones(self.normalized_shape, np.float32))
            self.bias = Parameter(np.zeros(self.normalized_shape, np.float32))

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def config(self) -> dict[str, Any]:
        return {
            "normalized_shape": list(self.normalized_shape),
            "eps": self.eps,
            "elementwise_affine": self.elementwise_affine,
        }
