"""A batch cut into shards, and what is done with each: the piece of work of a training step.

A batch of N samples is cut into shards of at most ``shard_size``, as even as can be. Each shard
runs forward and backward by itself, weighted by its share n/N of the samples. The samples
themselves are gathered (and augmented) here, by whoever computes the shard, so that nobody waits
for it. Read ``objective.py`` first, and ``step.py`` after.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinycompress import random
from tinycompress.backend import Array, array_module
from tinycompress.data.batching import AUGMENT, Augmentation
from tinycompress.nn import Module, Parameter, record_notes
from tinycompress.optim import FlatBuffer
from tinycompress.tensor import Tensor, as_array, grad
from tinycompress.train.objective import Objective
from tinycompress.train.profile import section
from tinycompress.train.shared_memory import shared_empty


class Shard(NamedTuple):
    """One piece of a batch.

    Attributes:
        number: its place in the batch, from 0.
        rows: what to gather from the data set (an index array or a slice), or the arrays
            themselves where there is none.
        share: its share n/N of the batch.
        key: what the step's dropout masks follow from.
        stream: what the augmentation's random numbers follow from, with the shard's number.
    """

    number: int
    rows: Any
    share: float
    key: int
    stream: tuple[int, ...] = ()


class ShardResult(NamedTuple):
    """What became of a shard.

    Attributes:
        loss: its mean loss times its share of the batch, a 0-d array.
        outputs: the model's, (n, ...).
        notes: what the layers noted (``nn/notes.py``).
        gradients: one array per parameter, times the share; None where they lie in the slots.
    """

    loss: Array
    outputs: Array
    notes: list[Any]
    gradients: list[Array] | None


def shard_slices(count: int, shard_size: int) -> list[slice]:
    """``0 … count`` in the fewest pieces of at most ``shard_size``; sizes differ by at most 1.

    Raises:
        ValueError: ``shard_size`` is below 1.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be ≥ 1, got {shard_size}")
    pieces = -(-count // shard_size)
    edges = [count * k // pieces for k in range(pieces + 1)] if pieces else [0]
    return [slice(a, b) for a, b in pairwise(edges)]


class Slots:
    """Room for every parameter's gradient, once for each shard, in shared memory.

    The gradients of a shard lie side by side (per dtype), so that they are added in one go. With a
    ``flat`` buffer, the first shard's, and so the sum, lie where its optimizer looks for them.

    Attributes:
        rows: for each dtype, one flat array per shard.
        views: for each shard, one array per parameter.
    """

    def __init__(
        self, params: Sequence[Parameter], count: int, flat: FlatBuffer | None = None
    ) -> None:
        if flat is not None:
            size, dtype = flat.grad.size, flat.grad.dtype
            rows = [flat.grad, *(shared_empty(size, dtype) for _ in range(count - 1))]
            place = {id(p): i for i, p in enumerate(flat.params)}
            wanted = [place[id(p)] for p in params]
            each = [flat.views(row) for row in rows]
            self.rows = [rows]
            self.views = [[views[i] for i in wanted] for views in each]
            self.views[0] = [flat.grads[i] for i in wanted]
            return
        sizes, starts = dict.fromkeys((p.dtype for p in params), 0), []
        for p in params:
            starts.append(sizes[p.dtype])
            sizes[p.dtype] += p.size
        by_dtype = {d: [shared_empty(n, d) for _ in range(count)] for d, n in sizes.items()}
        self.rows = list(by_dtype.values())
        self.views = [
            [
                by_dtype[p.dtype][k][start : start + p.size].reshape(p.shape)
                for p, start in zip(params, starts, strict=True)
            ]
            for k in range(count)
        ]

    def add(self, count: int) -> list[Array]:
        """The sum of the first ``count`` shards, first to last, in the memory of the first."""
        with np.errstate(all="ignore"):  # detect_anomaly is how an infinity is reported
            for total, *others in self.rows:
                for row in others[: count - 1]:
                    total += row
        return self.views[0]


class ShardWork:
    """What is done with a shard: ``work(shard) -> ShardResult``.

    Args:
        objective, model: as for ``value_and_grad``.
        params: what to differentiate by.
        arrays: the data set's arrays, or None where each shard brings its own.
        augment: changes the first array of each shard.
        slots: where gradients are left, or None to return them (on a GPU).
    """

    def __init__(
        self,
        objective: Objective,
        model: Module,
        params: Sequence[Parameter],
        arrays: Sequence[Array] | None = None,
        augment: Augmentation | None = None,
        slots: Slots | None = None,
    ) -> None:
        self.objective, self.model, self.params = objective, model, list(params)
        self.arrays, self.augment, self.slots = arrays, augment, slots

    def __call__(self, shard: Shard) -> ShardResult:
        with section("gather the samples"):
            piece = self.gather(shard)
        with random.key_stream(shard.key, shard.number), record_notes() as notes:
            loss, outputs = _call(self.objective, self.model, piece)
            share = array_module(loss.data).full_like(loss.data, shard.share)
            slots = None if self.slots is None else self.slots.views[shard.number]
            gradients = grad(loss, self.params, share, slots)
        return ShardResult(loss.data * share, outputs, notes, None if slots else gradients)

    def gather(self, shard: Shard) -> list[Array]:
        """The shard's samples, augmented."""
        if self.arrays is None:
            return shard.rows
        piece = [array[shard.rows] for array in self.arrays]
        if self.augment is not None:
            generator = np.random.default_rng((AUGMENT, *shard.stream, shard.number))
            piece[0] = self.augment(piece[0], generator)
        return piece


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
