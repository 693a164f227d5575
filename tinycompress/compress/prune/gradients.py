"""The derivative of the loss on a data set by the weights that may be pruned.

:func:`mean_gradients` is the mean over all samples, added up batch by batch, in evaluation mode: no
dropout, and batch norm with its running statistics, so that the answer is a function of the model
and the data alone. :func:`batch_gradients` is that of one batch, in training mode: what the first
step of training would see, where running statistics say nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module
from tinycompress.data import Dataset, batches
from tinycompress.train.objective import Objective, Supervised
from tinycompress.train.step import value_and_grad
from tinycompress.train.workers import Workers

BATCH_SIZE = 500


def mean_gradients(
    model: nn.Module,
    layers: Iterable[str],
    data: Dataset,
    objective: Objective | None = None,
) -> dict[str, Array]:
    """Layer name → derivative of the mean loss by that layer's weight.

    Args:
        model: read only; a copy does the work, frozen weights included.
        layers: names of the layers.
        data: the samples, on any device.
        objective: ``objective(model, *batch) -> (loss, outputs)``; None for cross-entropy.

    Returns:
        Arrays of the weights' shapes and dtypes, on the model's device.
    """
    probe = model.copy().eval()
    params = _thawed(probe, layers)
    total = {name: array_module(p.data).zeros_like(p.data) for name, p in params.items()}
    data = data.to(probe.device)
    with Workers(None if probe.device == "cpu" else 1) as workers:
        for batch in batches(data, BATCH_SIZE):
            step = value_and_grad(
                objective or Supervised(),
                probe,
                batch,
                params=list(params.values()),
                workers=workers,
                key=0,
            )
            share = len(batch[0]) / len(data)
            for name, g in zip(params, step.gradients, strict=True):
                total[name] += share * g
    return total


def batch_gradients(
    model: nn.Module,
    layers: Iterable[str],
    data: Dataset,
    objective: Objective | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Layer name → derivative of the loss of one batch in training mode, by that layer's weight.

    Args:
        model, layers, objective: as for :func:`mean_gradients`.
        data: the batch; of more than 500 samples, 500 are drawn.
        seed: of the draw, and of dropout.

    Returns:
        As :func:`mean_gradients`.
    """
    probe = model.copy().train()
    params = _thawed(probe, layers)
    rows = np.arange(len(data))
    if len(data) > BATCH_SIZE:
        rows = np.sort(np.random.default_rng(seed).choice(rows, BATCH_SIZE, replace=False))
    batch = data.to(probe.device)[rows]
    step = value_and_grad(
        objective or Supervised(),
        probe,
        batch,
        params=list(params.values()),
        shard_size=len(rows),  # batch norm sees all of it
        workers=1,
        key=seed,
    )
    return dict(zip(params, step.gradients, strict=True))


def _thawed(model: nn.Module, layers: Iterable[str]) -> dict[str, nn.Parameter]:
    """The weights of these layers, which now require gradients."""
    params = {name: model.get_submodule(name).weight for name in layers}
    for p in params.values():
        p.requires_grad = True
    return params
