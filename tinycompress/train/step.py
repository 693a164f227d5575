"""One training step's value and gradients, cut into shards.

A batch of N samples is cut into shards of at most ``shard_size``, as even as can be. Each shard
runs forward and backward by itself, weighted by its share n/N of the samples, and the gradients are
added in the order of the shards:

    loss = Σ_k (n_k / N) loss_k,      gradient = Σ_k (n_k / N) gradient_k

Because the cut depends on the batch alone, so does the result, to the bit, whatever the number of
workers. It is also the cut that data-parallel ranks on several machines would use. Batch norm sees
one shard, as in torch's DistributedDataParallel, and what a forward pass changes comes back as
notes (``nn/notes.py``). Shards that fit the cache are faster, too. A GPU gets one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tinycompress import random
from tinycompress.backend import Array, array_module
from tinycompress.graph import is_anomaly_enabled
from tinycompress.nn import Module, Parameter, merge_notes, record_notes
from tinycompress.tensor import grad
from tinycompress.train.objective import Objective
from tinycompress.train.workers import Workers

SHARD_SIZE = 32


@dataclass(frozen=True)
class StepResult:
    """What one step computed.

    Attributes:
        loss: the mean loss of the batch, a 0-d array on the model's device.
        gradients: one array per parameter, in their order.
        outputs: the model's outputs (N, ...), without graph.
    """

    loss: Array
    gradients: list[Array]
    outputs: Array


def shard_slices(count: int, shard_size: int) -> list[slice]:
    """``0 … count`` in the fewest pieces of at most ``shard_size``; sizes differ by at most 1."""
    if shard_size < 1:
        raise ValueError(f"shard_size must be ≥ 1, got {shard_size}")
    pieces = -(-count // shard_size)
    edges = [count * k // pieces for k in range(pieces + 1)] if pieces else [0]
    return [slice(a, b) for a, b in pairwise(edges)]


def value_and_grad(
    objective: Objective,
    model: Module,
    batch: Sequence[Array],
    *,
    params: Sequence[Parameter] | None = None,
    shard_size: int = SHARD_SIZE,
    workers: Workers | int | None = None,
    key: int | None = None,
) -> StepResult:
    """The objective's value on ``batch`` and its gradients; no ``.grad`` is written.

    Args:
        objective: ``objective(model, *batch) -> (loss, outputs)``, see ``objective.py``.
        model: on the device of the batch. Its running statistics are updated, nothing else.
        batch: arrays of one length, such as (images, labels).
        params: what to differentiate by; None for every parameter that requires gradients.
        shard_size: the most samples in one shard.
        workers: a running :class:`Workers`, a number of them, or None for one per core.
        key: the number that dropout masks follow from; None draws one (see ``random.py``).

    Raises:
        ValueError: an empty batch, or no parameters.
    """
    if params is None:
        params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise ValueError("value_and_grad: the model has no parameters that require gradients")
    N = len(batch[0])
    if N == 0:
        raise ValueError("value_and_grad: the batch is empty")
    xp = array_module(batch[0])
    on_gpu = model.device != "cpu"
    shards = shard_slices(N, N if on_gpu else shard_size)
    step_key = random.next_key() if key is None else key

    def run(k: int) -> tuple[Array, list[Array], Array, list[Any]]:
        piece = [array[shards[k]] for array in batch]
        with random.key_stream(step_key, k), record_notes() as notes:
            loss, outputs = objective(model, *piece)
            share = xp.full_like(loss.data, len(piece[0]) / N)
            return loss.data * share, grad(loss, params, share), outputs.data, notes

    results = _map(run, range(len(shards)), workers, sequential=on_gpu or is_anomaly_enabled())
    losses, gradients, outputs, notes = zip(*results, strict=True)
    merge_notes(list(notes))
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return StepResult(total, _sum_in_order(gradients), xp.concatenate(outputs))


def _map(run: Any, items: range, workers: Workers | int | None, sequential: bool) -> list[Any]:
    if isinstance(workers, Workers):
        return [run(k) for k in items] if sequential else workers.map(run, items)
    with Workers(1 if sequential else workers) as own:
        return own.map(run, items)


def _sum_in_order(gradients: Sequence[list[Array]]) -> list[Array]:
    """Add each parameter's gradients over the shards, first to last, into the first's memory."""
    total = gradients[0]
    for shard in gradients[1:]:
        for sum_, g in zip(total, shard, strict=True):
            sum_ += g
    return total
