"""An integer model once more, in real numbers: what its codes stand for, rounded where it rounds.

Each activation is a float64 number on its grid, each weight ``scale · code``, each bias a multiple
of s_x·s_w; products are summed in float64, and between layers numbers are put on the next grid::

    y = w·x + b,    x ← scale_y · (clip(rint(y / scale_y) + zero_point) − zero_point)

It shares no arithmetic with the engine: no fixed-point multiplier, no whole accumulators. The two
differ where ``y / scale_y`` lies so near to a half that the last bits decide (a tie), and nowhere
else: :func:`compare_answers` counts the images that are read differently and how near they came.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import functional as F, nn
from tinycompress.compress.quantize.integer import IntegerLayer, QuantizeInput
from tinycompress.compress.quantize.integer.bias import whole_bias
from tinycompress.compress.quantize.qtensor import Grid, QTensor
from tinycompress.graph import no_grad
from tinycompress.tensor import Tensor


def compare_answers(model: nn.Sequential, images: np.ndarray, batch: int = 200) -> dict[str, Any]:
    """The images that ``model``, a Sequential of integer layers, and its simulation read apart.

    Returns:
        How many images; how many answers and how many codes between layers differ; how far from a
        tie the first codes that differ are at most; and the images with different answers.
    """
    wrong: list[dict[str, Any]] = []
    codes, farthest = 0, 0.0
    for start in range(0, len(images), batch):
        ours, theirs, differ, distance = _both(model, images[start : start + batch])
        codes, farthest = codes + differ, max(farthest, distance)
        for i in np.flatnonzero(ours.argmax(axis=1) != theirs.argmax(axis=1)):
            pair = {"integers": int(ours[i].argmax()), "simulation": int(theirs[i].argmax())}
            wrong.append({"image": start + int(i), **pair})
    return {
        "images": len(images),
        "different answers": len(wrong),
        "different codes": codes,
        "farthest from a tie": round(farthest, 7),
        "which": wrong,
    }


def _both(model: nn.Sequential, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, float]:
    """(the engine's outputs, the simulation's, codes that differ, how far from a tie the first)."""
    first: Any = next(m for m in model.modules() if isinstance(m, QuantizeInput))
    grid: Grid | None = first.grid
    exact: Any = x.astype(np.float32)
    with no_grad():
        real, _ = _on_grid(exact, grid)
        differ, farthest, apart = 0, 0.0, np.zeros(len(x), bool)
        for layer in model:
            exact = layer(exact)
            if not isinstance(layer, IntegerLayer):
                real = np.asarray(layer(Tensor(real)).data)
                continue
            real, before = _layer(layer, real, grid)
            grid = layer.grid
            if not isinstance(exact, QTensor):
                continue
            steps, own = np.asarray(exact.steps().data), np.rint(real / grid.scale)
            wrong = steps != own
            differ += int(wrong.sum())
            fresh = wrong & ~apart.reshape(-1, *(1,) * (wrong.ndim - 1))
            if fresh.any():
                farthest = max(farthest, float(np.abs(before[fresh] % 1 - 0.5).max()))
            apart |= wrong.reshape(len(x), -1).any(axis=1)
    return np.asarray(exact.data), real, differ, farthest


def _layer(layer: IntegerLayer, x: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(output, the same in steps of its grid before rounding), in float64."""
    bias = None if layer.bias is None else np.asarray(layer.bias)
    codes, scale, whole, _ = whole_bias(layer.weight_codes, layer.weight_scale, bias, grid.scale)
    unit = scale.astype(np.float64)
    w = codes * unit.reshape(-1, *(1,) * (codes.ndim - 1))
    b = None if whole is None else Tensor(whole * unit * grid.scale)
    if codes.ndim == 2:
        y = F.linear(Tensor(x), Tensor(w), b).data
    else:
        names = ("stride", "padding", "dilation", "groups")
        y = F.conv2d(Tensor(x), Tensor(w), b, *(getattr(layer, n) for n in names)).data
    y = np.maximum(y, 0) if layer.relu else y
    return _on_grid(y, layer.grid)


def _on_grid(y: np.ndarray, grid: Grid | None) -> tuple[np.ndarray, np.ndarray]:
    if grid is None:
        return y, y
    # True division of what came in, in its own precision: NUMERICS defines a code so.
    steps = y / y.dtype.type(grid.scale)
    return np.clip(np.rint(steps), *grid.steps).astype(np.float64) * grid.scale, steps
