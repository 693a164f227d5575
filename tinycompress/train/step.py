"""One training step's value and gradients, cut into shards.

A batch of N samples is cut into shards of at most ``shard_size``, as even as can be. Each shard
runs forward and backward by itself, weighted by its share n/N of the samples, and the gradients are
added in the order of the shards:

    loss = Σ_k (n_k / N) loss_k,      gradient = Σ_k (n_k / N) gradient_k

Because the cut depends on the batch alone, so does the result, to the bit, whatever the number of
workers. Batch norm sees one shard, as in torch's DistributedDataParallel, and what a forward pass
changes comes back as notes (``nn/notes.py``). Shards that fit the cache are faster, too. A GPU gets
one piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tinycompress import random
from tinycompress.backend import Array, array_module, on_device
from tinycompress.graph import is_anomaly_enabled, is_grad_enabled
from tinycompress.nn import Module, Parameter, merge_notes, record_notes
from tinycompress.tensor import Tensor, as_array, grad
from tinycompress.train.objective import Objective
from tinycompress.train.workers import Workers

SHARD_SIZE = 32


@dataclass(frozen=True)
class StepResult:
    """What one step computed.

    Attributes:
        loss: the mean loss of the batch, a 0-d array on the model's device (a scalar on a CPU).
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
        model: on the device of the batch. Its running statistics are updated, nothing else; and
            not even these by a loss that is NaN or infinite (on a GPU nobody looks).
        batch: arrays of one length, such as (images, labels).
        params: what to differentiate by; None for every parameter that requires gradients.
        shard_size: the most samples in one shard.
        workers: a running :class:`Workers`, a number of them, or None for one per core.
        key: the number that dropout masks follow from; None draws one (see ``random.py``).

    Raises:
        TypeError: a batch that is no tuple of arrays.
        ValueError: an empty batch, arrays of different lengths, no parameters, an objective that
            returns something else, or a call inside ``no_grad``.
    """
    params = [p for p in model.parameters() if p.requires_grad] if params is None else list(params)
    arrays = _checked_batch(batch)
    _check_differentiable(params)
    N, on_gpu = len(arrays[0]), model.device != "cpu"
    shards = shard_slices(N, N if on_gpu else shard_size)
    step_key = random.next_key() if key is None else key

    def run(k: int) -> tuple[Array, list[Array], Array, list[Any]]:
        piece = [array[shards[k]] for array in arrays]
        with random.key_stream(step_key, k), record_notes() as notes:
            loss, outputs = _call(objective, model, piece)
            share = array_module(loss.data).full_like(loss.data, len(piece[0]) / N)
            return loss.data * share, grad(loss, params, share), outputs, notes

    with on_device(arrays[0]):
        pieces = _map(run, range(len(shards)), workers, sequential=on_gpu or is_anomaly_enabled())
        losses, gradients, outputs, notes = zip(*pieces, strict=True)
        summed = [_sum_in_order(of_shards) for of_shards in zip(*gradients, strict=True)]
        result = StepResult(_sum_in_order(losses), summed, _joined(outputs))
    if on_gpu or math.isfinite(result.loss):
        merge_notes(list(notes))
    return result


def _checked_batch(batch: Sequence[Array]) -> list[Array]:
    if not isinstance(batch, tuple | list):
        raise TypeError(
            "value_and_grad: batch must be a tuple of arrays, such as (images, labels), got "
            f"{type(batch).__name__}"
        )
    arrays = [as_array(a) for a in batch]
    lengths = [len(a) if a.ndim else 0 for a in arrays]
    if not lengths or 0 in lengths:
        raise ValueError("value_and_grad: the batch is empty")
    if len(set(lengths)) > 1:
        raise ValueError(f"value_and_grad: the batch's arrays have different lengths: {lengths}")
    return arrays


def _check_differentiable(params: list[Parameter]) -> None:
    if not params:
        raise ValueError("value_and_grad: the model has no parameters that require gradients")
    if not is_grad_enabled():
        raise ValueError("value_and_grad: there are no gradients inside no_grad(); leave it first")


def _call(objective: Objective, model: Module, piece: list[Array]) -> tuple[Tensor, Array]:
    """The objective's (loss, outputs) on one shard, if they are what they should be."""
    returned = objective(model, *piece)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError(
            f"an objective returns (loss, outputs), got {type(returned).__name__} from "
            f"{objective!r}"
        )
    loss, outputs = returned[0], as_array(returned[1])
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        raise ValueError(
            "an objective's loss must be a tensor of one number, the mean over the batch, got "
            f"{f'shape {loss.shape}' if isinstance(loss, Tensor) else type(loss).__name__}"
        )
    if outputs.ndim == 0 or len(outputs) != len(piece[0]):
        raise ValueError(
            f"an objective's outputs must have one row for each of the {len(piece[0])} samples, "
            f"got shape {outputs.shape}"
        )
    return loss, outputs


def _map(run: Any, items: range, workers: Workers | int | None, sequential: bool) -> list[Any]:
    if isinstance(workers, Workers):
        return [run(k) for k in items] if sequential else workers.map(run, items)
    with Workers(1 if sequential else workers) as own:
        return own.map(run, items)


def _sum_in_order(arrays: Sequence[Array]) -> Array:
    """First to last, into the first one's memory, which is nobody else's."""
    total = arrays[0]
    with np.errstate(all="ignore"):  # detect_anomaly is how an infinity is reported
        for array in arrays[1:]:
            total += array
    return total


def _joined(outputs: Sequence[Array]) -> Array:
    return outputs[0] if len(outputs) == 1 else array_module(outputs[0]).concatenate(outputs)
