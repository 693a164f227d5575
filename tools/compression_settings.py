"""What is compressed for ``tools/compression_results.py``, and how far.

A setting is a network, a sparsity and a number of bits; all of them go the whole way of
``tc.deep_compress`` from the dense network of the same seed, with the recipe of their network. Some
learn from a teacher on the way, which is an ensemble of dense networks of other seeds. Those far
along the curve do not begin anew: they prune on from the pruned network of a setting before them.
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
"""By up to how many pixels the images of dense networks are shifted."""

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
        shift: by up to how many pixels training images are shifted; 0: nor are those of the dense
            network. None: as for the dense network.
        taught: whether a teacher helps.
        after: the setting whose pruned network is pruned on; None: begin with the dense network.
        importance: how weights are ranked.
        lr: largest rate of Adam while weights are pruned; None: the dense network's.
        init: where the search for codebooks starts.
        bias_bits: significant bits of biases.
        end: the share of the first training in which weights are pruned.
        seeds: how many are reported.
    """

    model: str
    sparsity: float
    bits: int
    epochs: int
    share_epochs: int
    shift: int | None = None
    taught: bool = False
    after: str | None = None
    importance: str = "magnitude"
    lr: float | None = None
    init: str = "linear"
    bias_bits: int = 11
    end: float = 0.6
    seeds: int = 5

    @property
    def pixels(self) -> int:
        return SHIFT[self.model] if self.shift is None else self.shift

    @property
    def rate(self) -> float:
        return self.lr or RATES[self.model]

    @property
    def what(self) -> str:
        """In words."""
        begin = f"from the pruned network of {self.after}, " if self.after else ""
        by = "" if self.importance == "magnitude" else f" by {self.importance}"
        images = f"images shifted by {self.pixels}" if self.pixels else "images as they are"
        biases = "" if self.bias_bits == 11 else f", {self.bias_bits}-bit biases"
        teacher = ", with a teacher" if self.taught else ""
        return (
            f"{begin}{self.sparsity:.1%} of the weights pruned{by} in {self.epochs} epochs at a "
            f"rate of {self.rate:g}, {self.bits}-bit codes ({self.init}) trained for "
            f"{self.share_epochs}{biases}, {images}{teacher}"
        )

    @property
    def seconds(self) -> float:
        """About how long one seed takes on two cores, what it begins with not counted."""
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

    def pruned(self, name: str, seed: int) -> nn.Module:
        """The network of this setting before its weights are shared, with all its masks."""
        path = self.thin(name, seed)
        if not path.exists():
            self.compress(name, seed)
        return tc.load(path).train()

    def thin(self, name: str, seed: int) -> Path:
        return self.kept / f"{name}-{len(self.train)}-pruned-seed{seed}.tcz"

    def compress(self, name: str, seed: int) -> Compressed:
        """The whole chain; what was pruned is kept for settings that go on from it."""
        setting = SETTINGS[name]
        kind, shifted = setting.model, setting.pixels > 0
        pruning: dict[str, Any] = {"end": setting.end, "importance": setting.importance}
        if setting.after:
            thin = self.pruned(setting.after, seed)
            pruning["initial"] = SETTINGS[setting.after].sparsity
        else:
            thin = self.dense(kind, seed, shifted)
        compressed = tc.deep_compress(
            thin, self.train,
            sparsity=setting.sparsity, bits=setting.bits, init=setting.init,
            bias_bits=setting.bias_bits,
            epochs=self.epochs(setting.epochs), share_epochs=self.epochs(setting.share_epochs),
            pruning=pruning,
            optimizer=lambda parameters: optim.Adam(parameters, lr=setting.rate),
            share_optimizer=lambda parameters: optim.Adam(parameters, lr=RATES[kind] / 4),
            teacher=self.teacher(kind, shifted) if setting.taught else None,
            augment=RandomShift(setting.pixels) if shifted else None,
            clip_grad_norm=2.0, seed=seed + 1000, workers=self.team,
        )  # fmt: skip
        tc.save(compressed.pruned, self.thin(name, seed))
        return compressed


def stages_of(compressed: Compressed) -> list[dict[str, Any]]:
    """What each stage was, as JSON; errors are not measured on the way."""
    stages = [stage.to_dict() for stage in compressed.stages]
    return [{k: v for k, v in s.items() if k not in ("error", "loss")} for s in stages]


def curve(
    model: str, points: Mapping[float, int], epochs: int, share_epochs: int, **more: Any
) -> dict[str, Setting]:
    """Settings at these sparsities, each with a number of bits; ``more`` are other fields."""
    words = "-plain" if more.get("shift") == 0 else ""
    words += "-taught" if more.get("taught") else ""
    return {
        f"{model}-{sparsity * 100:g}{words}": Setting(
            model, sparsity, bits, epochs, share_epochs, **more
        )
        for sparsity, bits in points.items()
    }


def descent(
    model: str, points: Mapping[float, int], first: int, then: int, share_epochs: int, **more: Any
) -> dict[str, Setting]:
    """The same, each beginning with the pruned network of the one before it.

    Args:
        first: epochs of the first of them.
        then: of all others.
    """
    found: dict[str, Setting] = {}
    for sparsity, bits in points.items():
        after = next(reversed(found), None)
        epochs = first if after is None else then
        found |= curve(model, {sparsity: bits}, epochs, share_epochs, after=after, **more)
    return found


FAR300: dict[float, int] = {0.98: 4, 0.985: 3, 0.99: 3}
FAR5: dict[float, int] = {0.991: 3, 0.995: 3, 0.997: 3}
"""Sparsity → bits of a code, far along the curve."""

LONG: dict[str, Any] = {"importance": "lamp", "init": "density", "bias_bits": 5}

SETTINGS: dict[str, Setting] = {
    **curve(LENET300, {0.95: 5}, 30, 6),
    **curve(LENET300, {0.977: 4}, 80, 10, shift=1, taught=True, seeds=3, **LONG),
    **descent(LENET300, FAR300, 40, 15, 6, shift=1, taught=True, seeds=3, **LONG),
    **descent(LENET300, FAR300, 40, 15, 6, shift=1, seeds=2, **LONG),
    **curve(LENET300, {0.98: 4}, 40, 6, shift=0, seeds=2, **LONG),
    **curve(LENET5, {0.95: 5}, 10, 4),
    **descent(LENET5, FAR5, 24, 12, 4, shift=1, lr=4e-3, taught=True, seeds=3, **LONG),
    **descent(LENET5, FAR5, 24, 12, 4, shift=1, lr=4e-3, seeds=2, **LONG),
    **curve(LENET5, {0.991: 3}, 24, 4, shift=0, lr=4e-3, seeds=2, **LONG),
}
"""In the order in which they are run."""
