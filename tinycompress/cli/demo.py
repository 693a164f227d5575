"""``tinycompress demo``: the whole article on real digits, and one honest table.

Trains the article's CNN on the bundled sample, then quantizes it, prunes it and retrains, distills
it into a small student (and trains the same student alone, to see whether the teacher helped), and
combines the techniques. Every model is saved, and the table is measured on the loaded files.
"""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import tinycompress as tc
from tinycompress import models, nn, optim
from tinycompress.cli import common, options, output
from tinycompress.cli.options import DatasetName, ScheduleName
from tinycompress.cli.recipe import make_schedule
from tinycompress.compress.distill import DistillationObjective, with_teacher_logits
from tinycompress.compress.prune import prune
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.data import Dataset, RandomAffine
from tinycompress.report import Comparison, compare, file_stem
from tinycompress.train import evaluate, fit

STUDENT_SEEDS = (0, 1, 2)
STUDENT_EPOCHS = 10
STUDENT_RATE = {"alone": 0.2, "distilled": 0.03}  # the best of tools/student_rates.py
BATCH = 64


@common.command
def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="For the models and the JSON.", file_okay=False
        ),
    ] = Path("demo"),
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Train, quantize, prune, distill and combine on MNIST; takes about 90 seconds on two cores."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    common.check_writable(out / "demo.json")
    train, test = common.load_data(DatasetName.mnist, data_dir=None, full=False)
    show = Narrator()
    studio = Studio(train, seed, workers, show)
    made, students = make_models(studio)
    with show.stage("measuring every file on the test images"):
        table = compare(made, test, folder=out, workers=workers)
        rates = {kind: _accuracies(group, test, workers) for kind, group in students.items()}
    seconds = round(time.perf_counter() - started, 1)
    document = {
        "command": f"tinycompress demo --seed {seed}",
        "version": tc.__version__,
        "seconds": seconds,
        "models": output.rows_as_json(table.rows, [_file(out, row.name) for row in table]),
        "students": {"seeds": list(STUDENT_SEEDS), **rates},
    }
    output.write_json(out / "demo.json", document)
    if as_json:
        output.print_json(document)
    else:
        _print_result(table, rates, out, seconds)


def make_models(studio: Studio) -> tuple[dict[str, nn.Module], dict[str, list[nn.Module]]]:
    """The models of the table by name, and the students of all seeds, alone and distilled."""
    show = studio.show
    with show.stage("training the article's CNN on the sample's digits"):
        teacher = studio.train(models.ArticleCNN, epochs=6)
    with show.stage("quantizing its weights to 8 and to 4 bits"):
        int8, int4 = (quantize(teacher, QuantConfig(bits=bits)) for bits in (8, 4))
    with show.stage("pruning 90% of its weights, retraining what is left"):
        pruned = studio.retrain(prune(teacher, 0.9), epochs=2)
    with show.stage("combining: pruned, then quantized"):
        pruned_int8, pruned_int4 = (quantize(pruned, QuantConfig(bits=bits)) for bits in (8, 4))
    with show.stage("training a student alone and distilling it, three seeds each"):
        lesson = studio.lesson(teacher)
        alone = [studio.student(seed) for seed in STUDENT_SEEDS]
        distilled = [studio.student(seed, lesson) for seed in STUDENT_SEEDS]
    with show.stage("combining: distilled, then pruned, then quantized"):
        small = studio.retrain(prune(distilled[0], 0.5), epochs=3, lesson=lesson)
        smallest = quantize(small, QuantConfig(bits=8))
    table = {
        "article CNN": teacher,
        "8-bit weights": int8,
        "4-bit weights": int4,
        "pruned 90%": pruned,
        "pruned, 8-bit": pruned_int8,
        "pruned, 4-bit": pruned_int4,
        "student alone": alone[0],
        "student distilled": distilled[0],
        "student pruned 50%": small,
        "student pruned, 8-bit": smallest,
    }
    return table, {"alone": alone, "distilled": distilled}


@dataclass(frozen=True)
class Studio:
    """Trains models on one data set in one manner: one-cycle, 64 images per update."""

    data: Dataset
    seed: int
    workers: int | None
    show: Narrator

    def train(self, make: Callable[[], nn.Module], epochs: int) -> nn.Module:
        """A new model, trained with momentum on images that are shifted, turned and scaled."""
        tc.manual_seed(self.seed)
        model = make()
        rule = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self._fit(model, epochs, rule, None, self.seed, RandomAffine())
        return model

    def retrain(self, model: nn.Module, epochs: int, lesson: Dataset | None = None) -> nn.Module:
        """Train a pruned model further, on the images it had before; its zeros are held."""
        rule = optim.Adam(model.parameters(), lr=2e-3)
        augment = RandomAffine() if lesson is None else None
        self._fit(model, epochs, rule, lesson, self.seed, augment)
        return model

    def student(self, seed: int, lesson: Dataset | None = None) -> nn.Module:
        """A small student: from the labels alone, or from the teacher's answers as well."""
        tc.manual_seed(self.seed + seed)
        model = models.TinyCNN()
        rate = STUDENT_RATE["alone" if lesson is None else "distilled"]
        rule = optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        self._fit(model, STUDENT_EPOCHS, rule, lesson, self.seed + seed)
        return model

    def lesson(self, teacher: nn.Module) -> Dataset:
        """The data with the teacher's answers beside the labels."""
        return with_teacher_logits(teacher, self.data, workers=self.workers)

    def _fit(
        self,
        model: nn.Module,
        epochs: int,
        rule: optim.Optimizer,
        lesson: Dataset | None,
        seed: int,
        augment: RandomAffine | None = None,
    ) -> None:
        objective = None if lesson is None else DistillationObjective(temperature=4.0, alpha=0.9)
        data = self.data if lesson is None else lesson
        fit(
            model,
            data,
            epochs,
            rule,
            batch_size=BATCH,
            objective=objective,
            augment=augment,
            seed=seed,
            workers=self.workers,
            progress=self.show.bars,
            **make_schedule(ScheduleName.one_cycle, rule, data, epochs, BATCH),
        )


class Narrator:
    """Says on a terminal what is being done and how long it took."""

    def __init__(self) -> None:
        self.bars = output.show_progress()

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        if self.bars:
            output.say_aside(f"• {what} …")
        start = time.perf_counter()
        yield
        if self.bars:
            output.say_aside(f"  {time.perf_counter() - start:.1f} s", style="dim")


def _accuracies(group: list[nn.Module], test: Dataset, workers: int | None) -> list[float]:
    return [evaluate(model, test, workers=workers).accuracy for model in group]


def _file(out: Path, name: str) -> Path:
    return out / f"{file_stem(name)}.tcz"


def _print_result(
    table: Comparison, rates: dict[str, list[float]], out: Path, seconds: float
) -> None:
    alone, distilled = (statistics.mean(rates[kind]) for kind in ("alone", "distilled"))
    output.say()
    output.say(table.table())
    output.say(f"""
The student over {len(STUDENT_SEEDS)} seeds: {alone:.2%} alone, {distilled:.2%} with the teacher.
Accuracy is that of the loaded file on all {table.rows[0].images:,} test images, bytes are the
file's size. MACs count multiplications by zero, too: zeros that are scattered
save bytes, not time.

{seconds} s in all. Models and demo.json are in {out}; check one with
  tinycompress eval {shlex.quote(str(_file(out, table.rows[0].name)))}""")
