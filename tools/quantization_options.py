"""What each option of quantization after training changes, on digits that training never saw.

    python tools/quantization_options.py --data-dir FOLDER --json results/quantization/options.json

Trains LeNet-5, and the same with batch norm after each convolution, on 50,000 of MNIST's training
images, once. Then it quantizes them in many ways and measures each on the other 10,000, so that the
test images take no part in choosing. Prints one table for each question and, with ``--json``, keeps
all numbers.

``--quick`` takes the sample that comes with the package: a try of the script, not a measurement.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.compress.quantize.config import OBSERVERS
from tinycompress.data import Dataset, mnist
from tinycompress.train import Workers, evaluate, fit

ROUNDINGS: dict[str, dict[str, Any]] = {
    "minmax": {"weight_observer": "minmax"},
    "mse": {"weight_observer": "mse"},
    "mse, equalize": {"weight_observer": "mse", "equalize": True},
    "mse, bias correction": {"weight_observer": "mse", "bias_correction": True},
    "mse, adaround": {"weight_observer": "mse", "adaround": True},
    "mse, adaround, bias correction": {
        "weight_observer": "mse",
        "adaround": True,
        "bias_correction": True,
    },
}
"""How weights are made into codes: fields of the config, and options of ``tc.quantize``."""

OPTIONS = ("equalize", "adaround", "bias_correction", "fold")


@dataclass
class Row:
    """One quantized model, measured.

    Attributes:
        question: which table it is in.
        what: the way, in words.
        bits, activations: of weights and activations; None: floats.
        error: wrong predictions in percent, on the validation images.
        loss: the mean cross-entropy there.
        more: by how much the error is larger than that of the float model, in points.
        seconds: how long quantizing took.
    """

    question: str
    what: str
    bits: int
    activations: int | None
    error: float
    loss: float
    more: float
    seconds: float


class Bench:
    """A trained model, what it is calibrated with, and what it is measured on."""

    def __init__(self, model: nn.Module, calibration: Dataset, held_out: Dataset, team: Workers):
        self.model, self.calibration, self.held_out, self.team = model, calibration, held_out, team
        self.float = evaluate(model, held_out, workers=team)

    def row(self, question: str, what: str, bits: int, activations: int | None, **how: Any) -> Row:
        """Quantize and measure; ``how`` holds fields of the config and options of the verb."""
        options = {name: how.pop(name) for name in OPTIONS if name in how}
        config = tc.QuantConfig(bits, activations=activations, **how)
        only = activations is None
        start = time.perf_counter()
        quantized = tc.quantize(self.model, config, self.calibration, weights_only=only, **options)
        seconds = time.perf_counter() - start
        found = evaluate(quantized, self.held_out, workers=self.team)
        more = found.error - self.float.error
        return Row(question, what, bits, activations, found.error, found.loss, more, seconds)


def weights(bench: Bench, bits: list[int]) -> Iterator[Row]:
    """Weights alone, per channel and per tensor."""
    for granularity in ("per_channel", "per_tensor"):
        for what, how in ROUNDINGS.items():
            for b in bits:
                question = f"weights only, {granularity.replace('_', ' ')}"
                yield bench.row(question, what, b, None, granularity=granularity, **how)


def observers(bench: Bench, bits: list[int]) -> Iterator[Row]:
    """Weights and activations, by each observer of activations."""
    for name in OBSERVERS:
        for b in bits:
            how = {"observer": name, "weight_observer": "mse"}
            yield bench.row("static, observers of activations", name, b, b, **how)


def roundings(bench: Bench, bits: list[int]) -> Iterator[Row]:
    """Weights and activations, by each way to round weights."""
    for what, how in ROUNDINGS.items():
        for b in bits:
            yield bench.row("static, roundings of weights", what, b, b, observer="mse", **how)


def dynamic(bench: Bench, bits: list[int]) -> Iterator[Row]:
    """Activations by the range of each image."""
    for b in bits:
        yield bench.row("dynamic", "mse", b, b, dynamic=True, weight_observer="mse")


def folding(bench: Bench, bits: list[int]) -> Iterator[Row]:
    """Batch norm left alone, or folded before."""
    for fold in (False, True):
        for b in bits:
            what = "folded" if fold else "not folded"
            how = {"weight_observer": "mse", "fold": fold}
            yield bench.row("batch norm, weights only", what, b, None, **how)
    for what in ("minmax", "mse", "mse, adaround"):
        for b in bits:
            how = ROUNDINGS[what]
            yield bench.row("batch norm folded, static", what, b, b, observer="mse", **how)


def lenet5_with_batch_norm() -> nn.Module:
    """LeNet-5 with batch norm and ReLU after each convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5, bias=False), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, bias=False), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def trained(model: nn.Module, data: Dataset, epochs: int, team: Workers) -> nn.Module:
    """Adam, whose rate falls to a tenth for the last third."""
    for epoch in range(epochs):
        rate = 1e-3 if epoch < 2 * epochs / 3 else 1e-4
        adam = optim.Adam(model.parameters(), lr=rate)
        fit(model, data, 1, adam, batch_size=64, seed=epoch, workers=team)
    return model


def tables(rows: list[Row], bits: list[int]) -> str:
    """One table for each question: error and what it is more than in floats."""
    lines = []
    for question in dict.fromkeys(row.question for row in rows):
        own = [row for row in rows if row.question == question]
        lines += ["", question, f"{'':32}" + "".join(f"{f'{b} bits':>16}" for b in bits)]
        for what in dict.fromkeys(row.what for row in own):
            cells = [next(r for r in own if (r.what, r.bits) == (what, b)) for b in bits]
            shown = "".join(f"{f'{c.error:.2f} ({c.more:+.2f})':>16}" for c in cells)
            lines.append(f"{what:32}{shown}")
    return "\n".join(lines)


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="the four IDX files of MNIST")
    parser.add_argument("--quick", action="store_true", help="with the sample of the package")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--calibration", type=int, default=512, help="how many images")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to keep all numbers")
    arguments = parser.parse_args(argv)
    if arguments.quick == (arguments.data_dir is not None):
        parser.error("give either --data-dir FOLDER or --quick")
    return arguments


def measure(arguments: argparse.Namespace, team: Workers) -> tuple[dict[str, Any], list[Row]]:
    """(the float models, all rows)."""
    if arguments.quick:
        data, _ = mnist()
    else:
        data, _ = mnist(full=True, data_dir=arguments.data_dir, download=False)
    train, held_out = data.split(1 / 6, seed=0)
    calibration = train.take(arguments.calibration)
    floats, rows = {}, []
    questions = {
        "LeNet-5": (models.LeNet5, (weights, observers, roundings, dynamic)),
        "LeNet-5 with batch norm": (lenet5_with_batch_norm, (folding,)),
    }
    for name, (create, asked) in questions.items():
        random.manual_seed(arguments.seed)
        model = trained(create(), train, arguments.epochs, team)
        bench = Bench(model, calibration, held_out, team)
        floats[name] = {"error": bench.float.error, "loss": bench.float.loss}
        print(f"{name}: {bench.float.error:.2f}% of {len(held_out):,} wrong in floats", flush=True)
        for question in asked:
            for row in question(bench, arguments.bits):
                rows.append(row)
                what = f"{row.question}: {row.what}, {row.bits} bits"
                print(f"  {what}: {row.error:.2f}", file=sys.stderr, flush=True)
    return floats, rows


def main(argv: list[str] | None = None) -> None:
    arguments = arguments_of(argv)
    with Workers() as team:
        floats, rows = measure(arguments, team)
    print(tables(rows, arguments.bits))
    if arguments.json:
        given = sys.argv[1:] if argv is None else argv
        text = {
            "command": " ".join(["python tools/quantization_options.py", *given]),
            "what": "error in percent on images held out from MNIST's training set",
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "floats": floats,
            "rows": [asdict(row) for row in rows],
        }
        arguments.json.write_text(json.dumps(text, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
