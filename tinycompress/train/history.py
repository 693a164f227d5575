"""The record of a training run: one entry per epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """What one epoch did. Losses are means per sample, accuracies 0 … 1, over all its batches.

    ``loss`` and ``accuracy`` are those seen during training, while the weights still moved;
    ``accuracy`` is None where the outputs are not class scores, the ``val_`` ones where nothing
    was given to validate on.
    """

    epoch: int
    loss: float
    accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass
class History:
    """The epochs of a run, in order; ``history[-1]`` is the last."""

    epochs: list[Epoch] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index: int) -> Epoch:
        return self.epochs[index]

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def to_list(self) -> list[dict[str, Any]]:
        """One dictionary of JSON values per epoch."""
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_list(cls, entries: list[dict[str, Any]]) -> History:
        return cls([Epoch(**entry) for entry in entries])
