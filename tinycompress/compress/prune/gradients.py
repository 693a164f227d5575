"""The derivative of the loss on a data set by the weights that may be pruned.

It is the mean over all samples, added up batch by batch, in evaluation mode: no dropout, and batch
norm with its running statistics, so that the answer is a function of the model and the data alone.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    """
    probe = model.copy().eval()
    params = {name: probe.get_submodule(name).weight for name in layers}
    for p in params.values():
        p.requires_grad = True
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
