"""``tinycompress demo``: the whole article on real digits, and one honest table.

Trains the article's CNN on the bundled sample, then quantizes it, prunes it and retrains, distills
it into a small student (and trains the same student alone, to see whether the teacher helped), and
combines the techniques. Every model is saved, and the table is measured on the loaded files.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import tinycompress as tc
from tinycompress import models, nn, optim
from tinycompress.cli import common
from tinycompress.cli.recipe import ScheduleName, make_schedule
from tinycompress.compress.distill import DistillationObjective, with_teacher_logits
from tinycompress.compress.prune import prune
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.data import Dataset, mnist
from tinycompress.report import Comparison, compare
from tinycompress.train import Objective, evaluate, fit

STUDENT_SEEDS = (0, 1, 2)
BATCH = 64


@common.command
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the models and the JSON.")
    ] = Path("demo"),
    seed: common.Seed = 0,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Train, quantize, prune, distill and combine on MNIST; about a minute on two cores."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, test = mnist()
    show = Narrator(quiet=as_json)
    studio = Studio(train, seed, workers, show)
    made, students = make_models(studio)
    with show.stage("measuring every file on the 10,000 test images"):
        table = compare(made, test, folder=out, workers=workers)
        rates = {kind: _accuracies(group, test, workers) for kind, group in students.items()}
    document = {
        "command": f"tinycompress demo --seed {seed}",
        "version": tc.__version__,
        "seconds": round(time.perf_counter() - started, 1),
        "models": table.to_list(),
        "students": {"seeds": list(STUDENT_SEEDS), **rates},
    }
    common.write_json(out / "demo.json", document)
    if as_json:
        common.print_json(document)
    else:
        _print_result(table, rates, out, document["seconds"])


def make_models(studio: Studio) -> tuple[dict[str, nn.Module], dict[str, list[nn.Module]]]:
    """The models of the table by name, and the students of all seeds, alone and distilled."""
    show = studio.show
    with show.stage("training the article's CNN on 10,000 digits"):
        teacher = studio.train(models.ArticleCNN, epochs=5)
    with show.stage("quantizing its weights to 8 and to 4 bits"):
        int8, int4 = (quantize(teacher, QuantConfig(bits=bits)) for bits in (8, 4))
    with show.stage("pruning 90% of its weights, retraining what is left"):
        pruned = studio.retrain(prune(teacher, 0.9), epochs=2)
    with show.stage("combining: pruned, then quantized"):
        pruned_int8, pruned_int4 = (quantize(pruned, QuantConfig(bits=bits)) for bits in (8, 4))
    with show.stage("training a student alone and distilling it, three seeds each"):
        alone = [studio.student(seed) for seed in STUDENT_SEEDS]
        distilled = [studio.student(seed, teacher) for seed in STUDENT_SEEDS]
    with show.stage("combining: distilled, then pruned, then quantized"):
        small = studio.retrain(prune(distilled[0], 0.5), epochs=3, teacher=teacher)
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
        """A new model, trained with momentum."""
        tc.manual_seed(self.seed)
        model = make()
        rule = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self._fit(model, self.data, epochs, rule)
        return model

    def retrain(self, model: nn.Module, epochs: int, teacher: nn.Module | None = None) -> nn.Module:
        """Train a pruned model further; its zeros are held."""
        data, objective = self._lesson(teacher)
        rule = optim.Adam(model.parameters(), lr=2e-3)
        self._fit(model, data, epochs, rule, objective)
        return model

    def student(self, seed: int, teacher: nn.Module | None = None) -> nn.Module:
        """A small student: from the labels alone, or from the teacher's answers as well."""
        tc.manual_seed(self.seed + 1000 * seed)
        model = models.TinyCNN()
        data, objective = self._lesson(teacher)
        rule = optim.Adam(model.parameters(), lr=1e-2)
        self._fit(model, data, 6, rule, objective)
        return model

    def _lesson(self, teacher: nn.Module | None) -> tuple[Dataset, Objective | None]:
        if teacher is None:
            return self.data, None
        lesson = with_teacher_logits(teacher, self.data, workers=self.workers)
        return lesson, DistillationObjective(temperature=4.0, alpha=0.9)

    def _fit(
        self,
        model: nn.Module,
        data: Dataset,
        epochs: int,
        rule: optim.Optimizer,
        objective: Objective | None = None,
    ) -> None:
        fit(
            model,
            data,
            epochs,
            rule,
            batch_size=BATCH,
            objective=objective,
            seed=self.seed,
            workers=self.workers,
            progress=self.show.bars,
            **make_schedule(ScheduleName.one_cycle, rule, data, epochs, BATCH),
        )


class Narrator:
    """Says on standard error what is being done and how long it took."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bars = common.show_progress(quiet)

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        if not self.quiet:
            common.err.print(f"• {what} …", highlight=False)
        start = time.perf_counter()
        yield
        if not self.quiet:
            common.err.print(f"  {time.perf_counter() - start:.1f} s", style="dim", highlight=False)


def _accuracies(group: list[nn.Module], test: Dataset, workers: int | None) -> list[float]:
    return [evaluate(model, test, workers=workers).accuracy for model in group]


def _print_result(
    table: Comparison, rates: dict[str, list[float]], out: Path, seconds: Any
) -> None:
    common.out.print()
    common.out.print(table.table())
    alone, distilled = (statistics.mean(rates[kind]) for kind in ("alone", "distilled"))
    common.out.print(
        f"\nThe student over {len(STUDENT_SEEDS)} seeds: {alone:.2%} alone, {distilled:.2%} with "
        "the teacher.\nAccuracy is that of the loaded file on all 10,000 test images; bytes are "
        "the file's size. MACs count\nmultiplications with zeros too: unstructured pruning saves "
        "bytes, not time.",
        highlight=False,
    )
    first = sorted(out.glob("*.tcz"))[0]
    common.out.print(
        f"\n{seconds} s in all. Models and demo.json are in {out}/; check one with\n"
        f"  tinycompress eval {first}",
        highlight=False,
    )
