"""One training step's value and gradients.

A batch is cut into shards (``shards.py``); each gives its loss and its gradients, and these are
added in the order of the shards:

    loss = Σ_k (n_k / N) loss_k,      gradient = Σ_k (n_k / N) gradient_k

Because the cut depends on the batch alone, so does the result, to the bit, whatever the number of
workers (``workers.py``). Batch norm sees one shard, as in torch's DistributedDataParallel, and what
a forward pass changes comes back as notes (``nn/notes.py``). Shards that fit the cache are faster,
too. A GPU gets one piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycompress import random
from tinycompress.backend import Array, array_module, on_device
from tinycompress.data.batching import Augmentation
from tinycompress.graph import is_anomaly_enabled, is_grad_enabled
from tinycompress.nn import Module, Parameter, merge_notes
from tinycompress.optim import FlatBuffer
from tinycompress.tensor import as_array
from tinycompress.train.objective import Objective
from tinycompress.train.profile import section
from tinycompress.train.shards import Shard, ShardWork, Slots, shard_slices
from tinycompress.train.workers import Workers

SHARD_SIZE = 64
"""Two cores have a shard each of a batch of 128. With more cores take larger batches, or smaller
shards: 32 costs a tenth of each core's speed (``python -m benchmarks.rules``)."""


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


class Stepper:
    """Computes steps of one objective on one model, again and again.

    Args:
        objective, model, params, shard_size: as for :func:`value_and_grad`.
        batch_size: the most samples that a step will have.
        arrays: the data set's arrays; steps then name rows of it.
        augment: changes the first array of each shard; its random numbers follow from the step's
            ``stream`` and the shard's number.
        flat: holds the parameters and gets the gradients (``optim/flat.py``); None: they lie in
            memory of their own.
    """

    def __init__(
        self,
        objective: Objective,
        model: Module,
        params: Sequence[Parameter],
        batch_size: int,
        shard_size: int = SHARD_SIZE,
        arrays: Sequence[Array] | None = None,
        augment: Augmentation | None = None,
        flat: FlatBuffer | None = None,
    ) -> None:
        on_gpu = model.device != "cpu"
        self.shard_size = batch_size if on_gpu else shard_size
        count = len(shard_slices(batch_size, self.shard_size))
        self.slots = None if on_gpu else Slots(params, count, flat)
        self.work = ShardWork(objective, model, params, arrays, augment, self.slots)
        self._merged = False  # whether layers have just taken in what they noted

    def shards(self, rows: Any, key: int, stream: tuple[int, ...] = ()) -> list[Shard]:
        """The batch of these rows (an index array, or a list of arrays), cut."""
        own = self.work.arrays is None
        N = len(rows[0]) if own else len(rows)
        return [
            Shard(k, [a[s] for a in rows] if own else rows[s], (s.stop - s.start) / N, key, stream)
            for k, s in enumerate(shard_slices(N, self.shard_size))
        ]

    def compute(self, shards: list[Shard], workers: Workers, unchanged: bool = False) -> StepResult:
        """The step's result. Its gradients are overwritten by the next step on a CPU.

        ``unchanged`` is the promise of :meth:`Workers.map`.
        """
        if is_anomaly_enabled():  # a mode of this thread
            pieces = [self.work(shard) for shard in shards]
        else:
            pieces = workers.map(self.work, shards, unchanged and not self._merged)
        with np.errstate(all="ignore"):
            loss = sum((p.loss for p in pieces[1:]), start=pieces[0].loss)
        outputs = _joined([p.outputs for p in pieces])
        with section("sum the gradients"):
            gradients = pieces[0].gradients if self.slots is None else self.slots.add(len(pieces))
        assert gradients is not None
        if self.slots is None or math.isfinite(loss):
            merge_notes([p.notes for p in pieces])
        self._merged = any(p.notes for p in pieces)
        return StepResult(loss, gradients, outputs)


def value_and_grad(
    objective: Objective,
    model: Module,
    batch: Sequence[Array],
    *,
    params: Sequence[Parameter] | None = None,
    shard_size: int = SHARD_SIZE,
    workers: Workers | int | str | None = None,
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
        workers: a running :class:`Workers`, which for many steps is much the faster; or how many
            threads to start for this one step, "auto" or None for one per core.
        key: the number that dropout masks follow from; None draws one (see ``random.py``).

    Raises:
        TypeError: a batch that is no tuple of arrays.
        ValueError: an empty batch, arrays of different lengths, no parameters, an objective that
            returns something else, or a call inside ``no_grad``.
        WorkerError: a worker process died or hung.
    """
    params = [p for p in model.parameters() if p.requires_grad] if params is None else list(params)
    arrays = _checked_batch(batch)
    _check_differentiable(params)
    key = random.next_key() if key is None else key
    N = len(arrays[0])

    def make() -> Stepper:
        return Stepper(objective, model, params, N, shard_size)

    running = isinstance(workers, Workers)
    with on_device(arrays[0]), _team(workers, model) as team:
        if running:
            same = ("step", id(objective), id(model), *map(id, params), N, shard_size)
            stepper = team.remember(same, make)
        else:
            stepper = make()
        result = stepper.compute(stepper.shards(arrays, key), team)
        if running and stepper.slots is not None:  # the next step writes into them
            return StepResult(result.loss, [g.copy() for g in result.gradients], result.outputs)
        return result


def _team(workers: Workers | int | str | None, model: Module) -> Any:
    """A context with somebody to do the work."""
    if isinstance(workers, Workers):
        return nullcontext(workers)
    if model.device != "cpu" or is_anomaly_enabled():
        Workers(workers)  # checks the number
        return Workers(1)
    return Workers(workers, kind="thread")


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


def _joined(outputs: Sequence[Array]) -> Array:
    return outputs[0] if len(outputs) == 1 else array_module(outputs[0]).concatenate(outputs)
