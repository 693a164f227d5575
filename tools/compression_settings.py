"""What is compressed for ``tools/compression_results.py``, and how far.

A setting is a network, a sparsity and a number of bits; all of them go the whole way of
``tc.deep_compress`` from the dense network of the same seed, with the recipe of their network. Some
learn from a teacher on the way, which is an ensemble of dense networks of other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import train_one_cycle

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.compress.distill import Ensemble
from tinycompress.data import Dataset, RandomShift
from tinycompress.stages import Compressed
from tinycompress.train import Workers

LENET300, LENET5 = "lenet-300-100", "lenet-5"

SHIFT = {LENET300: 1, LENET5: 2}
"""By up to how many pixels training images are shifted."""

RATES = {LENET300: 2e-3, LENET5: 2e-3}
DENSE_EPOCHS = 12
SECONDS = {LENET300: 2.0, LENET5: 6.5}
"""About what an epoch of 60,000 images takes on two cores."""

TEACHERS = 3
"""Dense networks in a teacher, of seeds that no student has."""

FIRST_TEACHER = 200


@dataclass(frozen=True)
class Setting:
    """One point of the curve of error against bytes.

    Attributes:
        model: its name.
        sparsity: of all weights together.
        bits: of a code, for each weight that is left.
        epochs, share_epochs: of training while weights are pruned, and of the codebooks.
        shifted: whether training images are shifted, for the dense network as well.
        taught: whether a teacher helps.
        end: the share of the first training in which weights are pruned.
        seeds: how many are reported.
    """

    model: str
    sparsity: float
    bits: int
    epochs: int
    share_epochs: int
    shifted: bool = True
    taught: bool = False
    end: float = 0.6
    seeds: int = 5

    @property
    def what(self) -> str:
        """In words."""
        teacher = ", with a teacher" if self.taught else ""
        images = "shifted images" if self.shifted else "images as they are"
        return (
            f"{self.sparsity:.1%} of the weights pruned in {self.epochs} epochs, {self.bits}-bit "
            f"codes trained for {self.share_epochs}, {images}{teacher}"
        )

    @property
    def seconds(self) -> float:
        """About how long one seed takes on two cores, the dense network not counted."""
        return SECONDS[self.model] * (self.epochs + self.share_epochs) * (1.5 if self.taught else 1)


@dataclass
class Work:
    """What a run has: data, workers, and where dense networks are kept.

    Attributes:
        train, held: images to train on, and to measure on.
        kept: folder of dense networks.
        quick: one epoch of everything.
    """

    train: Dataset
    held: Dataset
    kept: Path
    team: Workers
    quick: bool = False

    def epochs(self, count: int) -> int:
        return min(1, count) if self.quick else count

    def dense(self, kind: str, seed: int, shifted: bool) -> nn.Module:
        """Trained once, and kept for all settings."""
        shift = SHIFT[kind] if shifted else 0
        epochs = self.epochs(DENSE_EPOCHS)
        path = self.kept / f"{kind}-{len(self.train)}x{epochs}-shift{shift}-seed{seed}.tcz"
        if not path.exists():
            random.manual_seed(seed)
            model = models.create(kind)
            train_one_cycle(
                model, self.train, epochs, RATES[kind], seed, self.team, shift=shift
            )  # fmt: skip
            tc.save(model, path)
        return tc.load(path).train()

    def teacher(self, kind: str, shifted: bool) -> nn.Module:
        seeds = range(FIRST_TEACHER, FIRST_TEACHER + TEACHERS)
        return Ensemble([self.dense(kind, seed, shifted).eval() for seed in seeds])

    def compress(self, setting: Setting, seed: int) -> Compressed:
        """The whole chain."""
        kind, shift = setting.model, SHIFT[setting.model]
        return tc.deep_compress(
            self.dense(kind, seed, setting.shifted), self.train,
            sparsity=setting.sparsity, bits=setting.bits,
            epochs=self.epochs(setting.epochs), share_epochs=self.epochs(setting.share_epochs),
            pruning={"end": setting.end},
            optimizer=lambda parameters: optim.Adam(parameters, lr=RATES[kind]),
            share_optimizer=lambda parameters: optim.Adam(parameters, lr=RATES[kind] / 4),
            teacher=self.teacher(kind, setting.shifted) if setting.taught else None,
            augment=RandomShift(shift) if setting.shifted else None,
            clip_grad_norm=2.0, seed=seed + 1000, workers=self.team,
        )  # fmt: skip


def stages_of(compressed: Compressed) -> list[dict[str, Any]]:
    """What each stage was, as JSON; errors are not measured on the way."""
    stages = [stage.to_dict() for stage in compressed.stages]
    return [{k: v for k, v in s.items() if k not in ("error", "loss")} for s in stages]


def curve(
    model: str, points: Mapping[float, int], epochs: int, share_epochs: int, **more: Any
) -> dict[str, Setting]:
    """Settings at these sparsities, each with a number of bits; ``more`` are other fields."""
    words = "" if more.get("shifted", True) else "-plain"
    words += "-taught" if more.get("taught") else ""
    return {
        f"{model}-{sparsity * 100:g}{words}": Setting(
            model, sparsity, bits, epochs, share_epochs, **more
        )
        for sparsity, bits in points.items()
    }


SETTINGS: dict[str, Setting] = {
    **curve(LENET300, {0.92: 5, 0.95: 5}, 30, 6),
    **curve(LENET300, {0.98: 4, 0.985: 4, 0.99: 4}, 60, 10, seeds=3),
    **curve(LENET300, {0.98: 4}, 60, 10, shifted=False, seeds=3),
    **curve(LENET300, {0.98: 4}, 60, 10, taught=True, seeds=3),
    **curve(LENET5, {0.92: 5, 0.95: 5}, 10, 4),
    **curve(LENET5, {0.99: 4, 0.995: 4}, 30, 6, seeds=3),
    **curve(LENET5, {0.99: 4}, 30, 6, taught=True, seeds=3),
}
"""In the order in which they are run."""
