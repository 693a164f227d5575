"""Which layers suffer most: each is quantized alone, and the whole model's answers are measured.

All other layers compute in floats. What is measured is in ``../answers.py``: accuracy and loss, and
two numbers that also tell small changes apart, divergence and signal-to-noise. Where activations
become codes too, a layer stands for its weights and for the activations that come *into* it: its
output is read by a layer in floats, and rounded there by nobody.

What layers lose one by one adds up only roughly: the last row quantizes them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.answers import Answers, Reference, check_labels, snr_db, team_of
from tinycompress.compress.quantize.config import QuantConfig, without_learned_steps
from tinycompress.compress.quantize.fold import fold_batch_norm
from tinycompress.compress.quantize.model import quantize
from tinycompress.compress.quantize.registry import replacement_for
from tinycompress.data import Dataset
from tinycompress.tables import as_text, table_of
from tinycompress.train import Workers

CALIBRATION = 512
"""How many of the images activations get their ranges from, unless others are given."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs.

    Attributes:
        name, kind: dotted name and class; of the last row "all layers" and the model's.
        bits, activations: of weights and of activations; None: floats (or, of all layers, several).
        accuracy, loss: of the model with this layer quantized.
        drop: what the accuracy lost, in points (percent of the images); negative for a gain.
        loss_increase: what the loss gained.
        divergence: how far its answers are from the float model's, in nats; see ``answers.py``.
        weight_snr_db: signal-to-noise ratio of its weights in decibels; infinite: nothing was lost.
        output_snr_db: the same of the model's outputs.
    """

    name: str
    kind: str
    bits: int | None
    activations: int | None
    accuracy: float
    drop: float
    loss: float
    loss_increase: float
    divergence: float
    weight_snr_db: float
    output_snr_db: float


@dataclass(frozen=True)
class Sensitivity:
    """What each layer costs; ``str()`` is a table for people, ``to_dict()`` one for programs.

    Attributes:
        images: how many were looked at.
        accuracy, loss: of the float model.
        layers: one row for each layer that was quantized alone, in the order of definition.
        together: all of them quantized at once.
    """

    images: int
    accuracy: float
    loss: float
    layers: tuple[LayerSensitivity, ...]
    together: LayerSensitivity

    def __iter__(self) -> Iterator[LayerSensitivity]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerSensitivity:
        for row in self.layers:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is not in {[row.name for row in self.layers]}")

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON values."""
        return asdict(self)

    def table(self) -> Table:
        """The rows as a rich table; "drop" is in points of accuracy."""
        head = ("layer", "type", "bits", "accuracy", "drop", "loss", "divergence", "SNR w", "SNR y")
        first = ("in floats", "", "", f"{self.accuracy:.2%}", "", f"{self.loss:.4f}", "", "", "")
        return table_of(head, [first, *map(_cells, (*self.layers, self.together))], words=2)

    def __str__(self) -> str:
        return as_text(self.table())


def quantization_sensitivity(
    model: nn.Module,
    config: QuantConfig,
    data: Dataset,
    *,
    calibration: Any = None,
    workers: Workers | int | str | None = "auto",
) -> Sensitivity:
    """Quantize one layer at a time and measure the model. It is :func:`tinycompress.sensitivity`.

    Args:
        model: a trained model; it is not changed.
        config: how to quantize a layer, as for :func:`tinycompress.quantize`: for weights alone,
            dynamic or static. Layers that its overrides leave in floats are not looked at.
        data: images and labels to measure on, not those of the final test.
        calibration: for static configs, images to get the ranges of activations from (None: the
            first 512 of ``data``).
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        ValueError: there is nothing to quantize, or something cannot be; all of it is named.
            Nothing was measured then.
    """
    with team_of(workers) as team:
        bench = Bench(model, config, data, calibration, team)
        rows = tuple(bench.alone(name, own) for name, own in bench.layers)
        return Sensitivity(
            len(data), bench.before.accuracy, bench.before.loss, rows, bench.together(config)
        )


class Bench:
    """A model in floats and what it answers, to measure quantized ones against.

    Args:
        model, config, data, calibration: as for :func:`quantization_sensitivity`.
        team: who does the work.

    Attributes:
        layers: name and own config of each layer that is to be quantized.
        before: what the float model answers.
    """

    def __init__(
        self, model: nn.Module, config: QuantConfig, data: Dataset, calibration: Any, team: Workers
    ) -> None:
        check_labels("sensitivity", data)
        self.config, self.data = config, data
        static = config.activations is not None and not config.dynamic
        if static and calibration is None:
            calibration = data.take(min(CALIBRATION, len(data)))
        self.calibration = calibration if static else None
        # It says what cannot be, before hours of measuring.
        quantize(model, without_learned_steps(config), self.calibration)
        # Norms are folded first, so that a layer's own weights are what is compared.
        self.model = fold_batch_norm(model, self.calibration, strict=False) if static else model
        self.layers = [
            (name, own)
            for name, layer in self.model.named_modules()
            if replacement_for(layer) is not None
            and (own := config.for_layer(name, layer)) is not None
        ]
        self.reference = Reference("sensitivity", self.model, data, team)
        self.before = self.reference.before

    def quantized(self, config: QuantConfig) -> nn.Module:
        """The model, quantized so; steps that training will learn are found without it."""
        return quantize(self.model, without_learned_steps(config), self.calibration)

    def alone(self, name: str, own: QuantConfig) -> LayerSensitivity:
        """Measure the model with this layer quantized, and no other."""
        config = self.config.replace(overrides=((name, own), ("*", None)))
        model = self.quantized(config)
        kind = type(self.model.get_submodule(name)).__name__
        answers = self.reference.of(model)
        snr = self._weight_snr(model, [name])
        return self._row(name, kind, (own.bits, own.activations), answers, snr)

    def together(self, config: QuantConfig) -> LayerSensitivity:
        """Measure the model with all layers quantized."""
        model = self.quantized(config)
        answers = self.reference.of(model)
        widths = {config.for_layer(n, self.model.get_submodule(n)) for n, _ in self.layers}
        bits = {(c.bits, c.activations) for c in widths if c is not None}
        snr = self._weight_snr(model, [name for name, _ in self.layers])
        same = bits.pop() if len(bits) == 1 else (None, None)
        return self._row("all layers", type(self.model).__name__, same, answers, snr)

    def _weight_snr(self, model: nn.Module, names: Sequence[str]) -> float:
        before, after = (
            np.concatenate(
                [to_numpy(m.get_submodule(n).weight.data).astype(np.float64).ravel() for n in names]
            )
            for m in (self.model, model)
        )
        return snr_db(before, after)

    def _row(
        self,
        name: str,
        kind: str,
        bits: tuple[int | None, int | None],
        answers: Answers,
        weight_snr_db: float,
    ) -> LayerSensitivity:
        return LayerSensitivity(
            name=name,
            kind=kind,
            bits=bits[0],
            activations=bits[1],
            weight_snr_db=weight_snr_db,
            output_snr_db=answers.snr_db,
            **self.reference.costs(answers),
        )


def _cells(row: LayerSensitivity) -> tuple[str, ...]:
    bits = "" if row.bits is None else f"{row.bits}/{row.activations or 'float'}"
    return (
        row.name or "(model)",
        row.kind,
        bits,
        f"{row.accuracy:.2%}",
        f"{row.drop:+.2f}",
        f"{row.loss:.4f}",
        f"{row.divergence:.2g}",
        f"{row.weight_snr_db:.1f} dB",
        f"{row.output_snr_db:.1f} dB",
    )
