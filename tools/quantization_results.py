"""How well quantized networks read MNIST: trained, quantized and measured, over several seeds.

    python tools/quantization_results.py --data-dir FOLDER --select
    python tools/quantization_results.py --data-dir FOLDER

The first command chooses hyperparameters (learning rates; how weights are rounded): it trains on
the first 55,000 training images, looks at the last 5,000, and keeps what was best in
``results/quantization/MODEL-choices.json``. The second trains on all 60,000 with these, and looks
at the 10,000 test images once for each seed and setting. Both write each result as soon as it is
there, and a run that was interrupted goes on when it is started again.

One file per setting: ``results/quantization/MODEL-SETTING.json``, and the models beside it. Every
number is that of the file: it is loaded again before it is measured. Where a model computes in
integers, its answers are compared with those of a float simulation that shares no arithmetic with
the engine (``tools/quantization_simulation.py``); images that they read differently are listed.

``--quick`` takes the sample of the package and a single epoch: a try of the script.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import (
    SELECTION_SEED,
    data_in_words,
    data_of,
    origin,
    parsed,
    parser_of,
    read,
    train_one_cycle,
    with_summary,
    write,
)
from quantization_simulation import compare_answers

import tinycompress as tc
from tinycompress import models, nn, random
from tinycompress.data import Dataset
from tinycompress.train import Workers, evaluate

CALIBRATION = 1024
NUMBERS = ("error", "loss", "bytes", "nonzero")


@dataclass(frozen=True)
class Setting:
    """One way to quantize, and what there is to choose.

    Attributes:
        what: in words.
        config: of the whole model.
        candidates: fields of the config, options of ``tc.quantize`` or hyperparameters of training
            to choose from; the first is taken where nothing was chosen.
        trains: whether it is trained for the codes.
    """

    what: str
    config: tc.QuantConfig | None
    candidates: tuple[dict[str, Any], ...]
    trains: bool = False


ROUNDINGS: tuple[dict[str, Any], ...] = (
    {"bias_correction": True},
    {"adaround": True},
    {"adaround": True, "bias_correction": True},
)
STATIC: tuple[dict[str, Any], ...] = (
    {"observer": "minmax"},
    {"observer": "mse"},
    {"observer": "percentile"},
)
RATES: tuple[dict[str, Any], ...] = ({"lr": 1e-3}, {"lr": 2e-3})


def _learned(bits: int, activations: int) -> tc.QuantConfig:
    return tc.QuantConfig(bits, activations=activations, learn_step=True)


SETTINGS: dict[str, Setting] = {
    "float": Setting("float32, trained with shifted images", None, RATES),
    "ptq-w8a8": Setting(
        "8-bit weights and activations after training, in integers",
        tc.QuantConfig(8, activations=8),
        STATIC,
    ),
    "ptq-w4": Setting(
        "4-bit weights after training, per channel",
        tc.QuantConfig(4, weight_observer="mse"),
        ROUNDINGS,
    ),
    "ptq-w4a4": Setting(
        "4-bit weights and activations after training, in integers",
        tc.QuantConfig(4, activations=4, observer="mse", weight_observer="mse"),
        ROUNDINGS,
    ),
    "qat-w8a8": Setting("8/8 bits, trained (LSQ), in integers", _learned(8, 8), RATES, True),
    "qat-w4a4": Setting("4/4 bits, trained (LSQ), in integers", _learned(4, 4), RATES, True),
    "qat-w2a2": Setting("2/2 bits, trained (LSQ), in integers", _learned(2, 2), RATES, True),
    "qat-w1a8": Setting(
        "1-bit weights, 8-bit activations, trained, in integers", _learned(1, 8), RATES, True
    ),
}


@dataclass
class Work:
    """What a run has: data, workers, and where things go.

    Attributes:
        train, held: images to train on, and to measure on.
        epochs: of the float model and of training for codes.
        out: where results go; ``floats``: where float models are kept.
    """

    model: str
    train: Dataset
    held: Dataset
    epochs: tuple[int, int]
    out: Path
    floats: Path
    team: Workers
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)

    # ---------------------------------------------------------------------------------- training

    def float_model(self, seed: int, how: dict[str, Any]) -> nn.Module:
        """Trained once, and kept."""
        part = "selection" if seed == SELECTION_SEED else "final"
        run = f"{len(self.train)}x{self.epochs[0]}-{how['lr']}"
        name = f"{self.model}-{part}-{run}-seed{seed}.tcz"
        path = self.floats / name
        if not path.exists():
            random.manual_seed(seed)
            model = models.create(self.model)
            train_one_cycle(model, self.train, self.epochs[0], how["lr"], seed, self.team)
            tc.save(model, path)
        return tc.load(path).train()

    def best(self, name: str) -> dict[str, Any]:
        return self.choices.get(name, SETTINGS[name].candidates[0])

    def made(self, name: str, seed: int, how: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
        """The quantized model, and how long that took."""
        setting = SETTINGS[name]
        float_how = how if setting.config is None else self.best("float")
        start = self.float_model(seed, float_how)
        if setting.config is None:
            return start, {}
        began = time.perf_counter()
        options = dict(how)
        fields = {k: options.pop(k) for k in ("observer",) if k in options}
        config = setting.config.replace(**fields)
        some = self.train.take(min(CALIBRATION, len(self.train)))
        if setting.trains:
            random.manual_seed(seed)
            prepared = tc.prepare_qat(start, config, some)
            train_one_cycle(prepared, self.train, self.epochs[1], how["lr"], seed + 1, self.team)
            model = tc.convert(prepared)
        else:
            only = config.activations is None
            model = tc.quantize(start, config, some, weights_only=only, **options)
        return model, {"seconds": round(time.perf_counter() - began, 1)}

    # --------------------------------------------------------------------------------- measuring

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """One seed of one setting, from the file."""
        how = self.best(name)
        model, spent = self.made(name, seed, how)
        folder = self.floats if SETTINGS[name].config is None else self.out
        path = folder / f"{self.model}-{name}-seed{seed}.tcz"
        size = tc.save(model, path)
        loaded = tc.load(path)
        found = evaluate(loaded, self.held, workers=self.team)
        row = {
            "seed": seed,
            "error": round(found.error, 4),
            "wrong": found.wrong,
            "loss": found.loss,
            "bytes": size,
            "nonzero": nn.summary(loaded, (1, 28, 28)).nonzero,
            "how": how,
            **spent,
        }
        config = SETTINGS[name].config
        if config is not None and config.activations is not None:
            row["simulation"] = compare_answers(loaded, self.held.images)
        return row


# --------------------------------------------------------------------------------------- the files


def description(work: Work, name: str, command: str) -> dict[str, Any]:
    return {
        "name": f"{work.model}-{name}",
        "what": SETTINGS[name].what,
        **origin(command),
        "data": data_in_words(work.train, work.held),
        "epochs": list(work.epochs),
    }


def report(work: Work, names: list[str], seeds: int, command: str) -> None:
    """Every seed of every setting that is not there yet."""
    for seed in range(seeds):
        for name in names:
            path = work.out / f"{work.model}-{name}.json"
            file = read(path) or {**description(work, name, command), "seeds": []}
            if any(row["seed"] == seed for row in file["seeds"]):
                continue
            row = work.row(name, seed)
            file["seeds"].append(row)
            write(path, with_summary(file, NUMBERS))
            print(f"{work.model} {name} seed {seed}: {row['error']:.2f}% wrong, "
                  f"{row['bytes']:,} bytes, {row.get('seconds', 0):.0f} s", flush=True)  # fmt: skip


def select(work: Work, names: list[str], command: str) -> None:
    """The best candidate of each setting; by errors, and by the loss where these are equal."""
    path = work.out / f"{work.model}-choices.json"
    file = read(path) or {
        "name": f"{work.model}-choices",
        "what": "hyperparameters, chosen on the last 5,000 training images",
        **origin(command),
        "tried": {},
    }
    for name in names:
        tried = file["tried"].setdefault(name, [])
        for how in SETTINGS[name].candidates:
            if any(each["how"] == how for each in tried):
                continue
            model, _ = work.made(name, SELECTION_SEED, how)
            found = evaluate(model, work.held, workers=work.team)
            tried.append({"how": how, "error": found.error, "loss": found.loss})
            best = min(tried, key=lambda each: (each["error"], each["loss"]))
            file.setdefault("chosen", {})[name] = best["how"]
            write(path, file)
            print(f"{work.model} {name} {how}: {found.error:.2f}% of {len(work.held):,} wrong, "
                  f"loss {found.loss:.4f}", flush=True)  # fmt: skip
        work.choices[name] = file["chosen"][name]


def table(out: Path, model: str) -> str:
    """What the files say, one line per setting."""
    lines = [f"{'setting':12}{'error':>15}{'worst':>7}{'bytes':>11}{'seeds':>7}"]
    for name in SETTINGS:
        file = read(out / f"{model}-{name}.json")
        if file:
            mean, std, worst = (file[key] for key in ("mean", "std", "worst"))
            error = f"{mean['error']:.3f} ± {std['error']:.3f}"
            size = f"{mean['bytes']:,.0f}"
            lines.append(
                f"{name:12}{error:>15}{worst['error']:>7.2f}{size:>11}{len(file['seeds']):>7}"
            )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, "quantization", list(SETTINGS), "floats")
    parser.add_argument("--model", choices=["lenet-5", "article-cnn"], default="lenet-5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs=2, metavar=("FLOAT", "QAT"), default=(20, 10))
    return parser


def main(argv: list[str] | None = None) -> None:
    arguments, command = parsed(parser(), argv)
    out, floats = arguments.out, arguments.floats
    if not arguments.table:
        epochs = (1, 1) if arguments.quick else tuple(arguments.epochs)
        choices = read(out / f"{arguments.model}-choices.json").get("chosen", {})
        with Workers(arguments.workers) as team:
            data = data_of(arguments.data_dir, arguments.select)
            work = Work(arguments.model, *data, epochs, out, floats, team, choices)
            if arguments.select:
                select(work, arguments.settings, command)
            else:
                report(work, arguments.settings, arguments.seeds, command)
    print(table(out, arguments.model))


if __name__ == "__main__":
    main()
