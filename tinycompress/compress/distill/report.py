"""What distillation was worth: teacher, student alone and student distilled, on the same seeds.

    share of the gap closed = (errors alone − errors distilled) / (errors alone − errors of teacher)

1 means that the student makes no more errors than its teacher, 0 that the teacher was no help. One
seed may close half of the gap or twice as much by chance, so a report is of several: each seed
trains one student twice from the same initial weights, with the same order of images, and the share
is that of the sums of errors. Beside it: how often student and teacher say the same, and how well
either knows how sure to be (``calibration.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from tinycompress import optim, random
from tinycompress.backend import to_numpy
from tinycompress.compress.answers import check_labels, labels_of
from tinycompress.compress.distill.agreement import check_same_classes
from tinycompress.compress.distill.born_again import check_maker
from tinycompress.compress.distill.calibration import expected_calibration_error
from tinycompress.compress.distill.ensemble import Ensemble
from tinycompress.compress.distill.learning import asked_once, distill
from tinycompress.compress.distill.losses import label_loss
from tinycompress.compress.distill.objective import (
    Teachers,
    teacher_list,
    teacher_shares,
)
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.optim.checks import count
from tinycompress.train.evaluate import has_classes, predict
from tinycompress.train.fit import fit
from tinycompress.train.objective import Supervised
from tinycompress.train.workers import Workers


@dataclass(frozen=True)
class Grade:
    """One model on one data set.

    Attributes:
        errors: how many images it gets wrong.
        accuracy: the share that is right, 0 … 1.
        agreement: how often it says what the teacher says, right or wrong; of the teacher: 1.
        calibration_error: ECE, 0 … 1.
    """

    errors: int
    accuracy: float
    agreement: float
    calibration_error: float


@dataclass(frozen=True)
class DistillationReport:
    """Grades on the same ``count`` images; ``str()`` is a table.

    Attributes:
        teacher: its grade.
        alone, distilled: one grade for each seed, in the same order.
    """

    count: int
    teacher: Grade
    alone: tuple[Grade, ...]
    distilled: tuple[Grade, ...]

    @property
    def gap_closed(self) -> float | None:
        """The share of the gap that was closed, of all seeds together; None where there is no gap:
        the student alone makes no more errors than the teacher."""
        return _closed(
            self.teacher.errors,
            fmean(g.errors for g in self.alone),
            fmean(g.errors for g in self.distilled),
        )

    @property
    def gap_closed_by_seed(self) -> list[float | None]:
        """The same for each seed."""
        pairs = zip(self.alone, self.distilled, strict=True)
        return [_closed(self.teacher.errors, a.errors, d.errors) for a, d in pairs]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "count": self.count,
            "teacher": asdict(self.teacher),
            "alone": [asdict(g) for g in self.alone],
            "distilled": [asdict(g) for g in self.distilled],
            "gap_closed": self.gap_closed,
            "gap_closed_by_seed": self.gap_closed_by_seed,
        }

    def __str__(self) -> str:
        head = ["", "errors", "accuracy", "agreement", "ECE"]
        grades = {
            "teacher": (self.teacher,),
            "student alone": self.alone,
            "student distilled": self.distilled,
        }
        rows = [head, *([name, *_means(each)] for name, each in grades.items())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        closed = self.gap_closed
        share = "there is no gap" if closed is None else f"{closed:.0%} of the gap closed"
        seeds = f"{len(self.alone)} seed{'s' * (len(self.alone) > 1)}"
        return "\n".join([*lines, f"{share}; {self.count:,} images, {seeds}"])


def distillation_report(
    teacher: Teachers,
    alone: Module | Sequence[Module],
    distilled: Module | Sequence[Module],
    data: Dataset,
    *,
    workers: Workers | int | str | None = None,
) -> DistillationReport:
    """Grade trained models on ``data``.

    Args:
        teacher: the teacher; several are graded as an :class:`Ensemble`.
        alone, distilled: the student without and with the teacher; lists of the same length: one
            for each seed, in the same order.
        data: images and labels that nobody was trained or chosen on.
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        TypeError, ValueError: lists of different lengths, labels that are no class numbers, models
            that tell other classes apart.
    """
    check_labels("distillation_report", data)
    pair = [teacher_list(alone), teacher_list(distilled)]
    if len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"distillation_report: {len(pair[0])} students alone and {len(pair[1])} distilled; "
            "give one of each for every seed"
        )
    master = _as_one(teacher, None)
    z_t = to_numpy(predict(master, data.images, workers=workers))
    labels = labels_of("distillation_report", data, z_t.shape[1])

    def graded(model: Module) -> Grade:
        z_s = to_numpy(predict(model, data.images, workers=workers))
        check_same_classes("distillation_report", z_t, z_s)
        return _grade(z_s, z_t, labels)

    students = [tuple(graded(model) for model in models) for models in pair]
    return DistillationReport(len(labels), _grade(z_t, z_t, labels), *students)


def distillation_trial(
    teacher: Teachers,
    make_student: Callable[[], Module],
    train: Dataset,
    test: Dataset,
    *,
    epochs: int,
    seeds: Sequence[int] = (0, 1, 2),
    make_optimizer: Callable[[Module], optim.Optimizer] = lambda m: optim.Adam(m.parameters()),
    make_schedule: Callable[[optim.Optimizer], Any] | None = None,
    alone: Mapping[str, Any] | None = None,
    **options: Any,
) -> DistillationReport:
    """Train a student without and with the teacher, on each seed, and grade all of them.

    Args:
        teacher: trained; one or several, which are graded as an :class:`Ensemble` in which each
            has its weight (``teacher_weights``).
        make_student: makes a new student; called once a seed.
        train, test: images and labels; ``test`` is looked at once, at the end. Where labels are
            missing (``transfer.py``), the student alone learns from the others: with the whole
            batch in the mean, so by smaller steps.
        epochs: for each training.
        seeds: each is that of the initial weights, of dropout, and of the order of images.
        make_optimizer, make_schedule: for a student, and for its optimizer.
        alone: what is different without the teacher, such as the learning rate that suits it:
            ``{"make_optimizer": …, "epochs": …}``, and options of ``fit``.
        options: of :func:`distill`: ``temperature``, ``alpha``, ``terms`` …; those that ``fit``
            knows hold for both. (No ``checkpoint``: the trainings are several.)

    Raises:
        TypeError, ValueError: as ``fit`` and ``distill``; no seeds, no labels, an option that is
            for one training only.
    """
    seeds = [count("distillation_trial: a seed", seed, least=0) for seed in _several(seeds)]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"distillation_trial: each seed once, got {seeds}; the same seed gives the same "
            "student, and a spread that is too small"
        )
    refused = sorted(ONE_RUN_ONLY & {*options, *(alone or {})})
    if refused:
        raise TypeError(
            f"distillation_trial: {refused[0]} is for one training, and these are {2 * len(seeds)}"
            "; the seeds are seeds=[…]"
        )
    check_maker("distillation_trial", make_student)
    master = _as_one(teacher, options.get("teacher_weights"))
    _check_sets(master, train, test)
    recipe = {"epochs": epochs, "make_optimizer": make_optimizer, "make_schedule": make_schedule}
    of_fit = {k: v for k, v in options.items() if k not in DISTILLATION_ONLY}
    students: list[Module] = []
    pupils: list[Module] = []
    for seed in seeds:
        random.manual_seed(seed)
        start = make_student()
        random.manual_seed(seed)
        student = start.copy()
        own = _made(student, {**recipe, **of_fit, **(alone or {})})
        fit(student, train, objective=Supervised(label_loss), seed=seed, **own)
        random.manual_seed(seed)
        pupils.append(
            distill(teacher, start, train, seed=seed, **_made(start, {**recipe, **options}))
        )
        students.append(student)
    return distillation_report(master, students, pupils, test, workers=options.get("workers"))


DISTILLATION_ONLY = ("temperature", "alpha", "terms", "teacher_weights")
ONE_RUN_ONLY = {"checkpoint", "checkpoint_every", "resume", "seed", "optimizer", "schedule"}


def _as_one(teacher: Teachers, weights: Sequence[float] | None) -> Module:
    """The teacher, or an ensemble of several, in which each counts as in the loss."""
    masters = teacher_list(teacher)
    teacher_shares(weights, len(masters))
    return masters[0] if len(masters) == 1 else Ensemble(masters, weights)


def _check_sets(master: Module, train: Dataset, test: Dataset) -> None:
    """Now, rather than when everything is trained."""
    if not isinstance(train, Dataset):
        raise TypeError(
            f"distillation_trial: train must be a tc.data.Dataset, got {type(train).__name__}"
        )
    if len(train.arrays) < 2 or not (has_classes(train) or train.labels.any()):
        raise ValueError("distillation_trial: without labels there is no student alone")
    check_labels("distillation_trial", test)
    classes = asked_once("distillation_trial: the teacher", master, test).shape[1]
    labels_of("distillation_trial", test, classes)


def _several(seeds: Any) -> list[Any]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"distillation_trial: seeds must be a list, got {seeds!r}")
    given = list(seeds)
    if not given:
        raise ValueError("distillation_trial: give one seed or more")
    return given


def _made(student: Module, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with its optimizer and schedule made for this student."""
    optimizer = recipe.pop("make_optimizer")(student)
    make_schedule = recipe.pop("make_schedule")
    schedule = None if make_schedule is None else make_schedule(optimizer)
    return {**recipe, "optimizer": optimizer, "schedule": schedule}


def _grade(z: np.ndarray, z_t: np.ndarray, labels: np.ndarray) -> Grade:
    said = z.argmax(axis=1)
    return Grade(
        errors=int((said != labels).sum()),
        accuracy=float((said == labels).mean()),
        agreement=float((said == z_t.argmax(axis=1)).mean()),
        calibration_error=expected_calibration_error(z, labels),
    )


def _closed(teacher: float, alone: float, distilled: float) -> float | None:
    return (alone - distilled) / (alone - teacher) if alone > teacher else None


def _means(grades: Sequence[Grade]) -> list[str]:
    """Cells of a row: the mean over the seeds, and the standard deviation of the errors."""
    spread = f" ± {stdev(g.errors for g in grades):.1f}" if len(grades) > 1 else ""
    mean = {k: fmean(asdict(g)[k] for g in grades) for k in asdict(grades[0])}
    return [
        f"{mean['errors']:.{0 if len(grades) == 1 else 1}f}{spread}",
        f"{mean['accuracy']:.2%}",
        f"{mean['agreement']:.2%}",
        f"{mean['calibration_error']:.4f}",
    ]
