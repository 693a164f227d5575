"""The options that say how to distill, and the terms and transfer sets that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tinycompress.backend import to_numpy
from tinycompress.cli import common
from tinycompress.cli.options import ModelName, choices
from tinycompress.compress.distill import (
    Attention,
    Decoupled,
    Hint,
    LogitMatching,
    Relations,
    Term,
    few_labels,
    without_classes,
)
from tinycompress.data import Dataset
from tinycompress.train.evaluate import has_classes

LOSSES, STUDENT, IMAGES = "Losses", "Student", "Transfer set"
LOGITS = "logits"  # in the place of two layers

Teacher = Annotated[
    list[Path],
    typer.Option(
        metavar="FILE",
        help="The .tcz file of a trained network. May be repeated: several teachers.",
        exists=True,
        dir_okay=False,
    ),
]
TeacherWeight = Annotated[
    list[float] | None,
    typer.Option(
        metavar="X",
        help="Of several teachers, how much each counts; once for each --teacher.",
        min=0.0,
        show_default="alike",
        rich_help_panel=LOSSES,
    ),
]
Student = Annotated[
    ModelName | None,
    typer.Option(
        metavar="NAME",
        help=f"{choices(ModelName)}.",
        show_default="tiny-cnn",
        rich_help_panel=STUDENT,
    ),
]
BudgetBytes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="In the place of a student: the largest of a family whose file has at most N bytes.",
        min=1,
        rich_help_panel=STUDENT,
    ),
]
BudgetParameters = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The same for its parameters.",
        min=1,
        rich_help_panel=STUDENT,
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Quantize it while it learns: weights of N bits, activations of 8.",
        min=1,
        max=16,
        show_default="floats",
        rich_help_panel=STUDENT,
    ),
]
Sparsity = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Prune it while it learns: this share of its weights becomes zero.",
        min=0.0,
        show_default="none",
        rich_help_panel=STUDENT,
    ),
]
HintOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hint",
        metavar="S=T:W",
        help="Layer S of the student learns what layer T of the teacher gives, with weight W, "
        "through a map that is learned too. T@2 is a layer of the second teacher. May be repeated.",
        rich_help_panel=LOSSES,
    ),
]
AttentionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attention",
        metavar="S=T:W",
        help="Layer S looks where layer T looks. May be repeated.",
        rich_help_panel=LOSSES,
    ),
]
RelationsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--relations",
        metavar="S=T:W",
        help="Images lie to each other in S as in T; logits:W for the outputs. May be repeated.",
        rich_help_panel=LOSSES,
    ),
]
Matching = Annotated[
    float,
    typer.Option(
        metavar="W",
        help="Weight of the squared difference of the logits.",
        min=0.0,
        rich_help_panel=LOSSES,
    ),
]
DecoupledOption = Annotated[
    float,
    typer.Option(
        "--decoupled",
        metavar="W",
        help="Weight of decoupled distillation, at --temperature.",
        min=0.0,
        rich_help_panel=LOSSES,
    ),
]
Without = Annotated[
    list[int] | None,
    typer.Option(
        metavar="CLASS",
        help="Show the student no image of this class. May be repeated.",
        min=0,
        rich_help_panel=IMAGES,
    ),
]
CorrectBias = Annotated[
    bool,
    typer.Option(
        "--correct-bias",
        help="Afterwards, let it name the classes of --without as often as they come.",
        rich_help_panel=IMAGES,
    ),
]
FewLabels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Keep N labels of each class; of the other images the teacher alone tells.",
        min=0,
        show_default="all",
        rich_help_panel=IMAGES,
    ),
]


def terms_of(
    hint: list[str] | None,
    attention: list[str] | None,
    relations: list[str] | None,
    matching: float,
    decoupled: float,
    temperature: float,
    teachers: int,
) -> list[Term]:
    """The terms beside the formula that these options ask for, of so many teachers."""
    makers: dict[str, tuple[Callable[..., Term], list[str]]] = {
        "--hint": (Hint, hint or []),
        "--attention": (Attention, attention or []),
        "--relations": (Relations, relations or []),
    }
    terms: list[Term] = []
    for option, (make, values) in makers.items():
        for value in values:
            with common.usage(option):
                student, teacher, weight = _layers(value, logits=make is Relations)
                teacher, number = _of_teacher(teacher, teachers)
                if teacher == LOGITS and student == LOGITS:
                    student = teacher = None
                terms.append(make(student, teacher, weight, number))
    if matching:
        with common.usage("--matching"):
            terms.append(LogitMatching(matching))
    if decoupled:
        with common.usage("--decoupled"):
            terms.append(Decoupled(decoupled, temperature))
    return terms


def _layers(value: str, logits: bool) -> tuple[Any, Any, float]:
    """``conv2=conv1:0.01`` as two layers and a weight, which is 1 where it is left out."""
    names, colon, number = value.partition(":")
    try:
        weight = float(number) if colon else 1.0
    except ValueError:
        raise ValueError(f"the weight in {value!r} must be a number, got {number!r}") from None
    if logits and names.partition("@")[0] == LOGITS:
        return LOGITS, names, weight
    student, equals, teacher = names.partition("=")
    if not (student and equals and teacher):
        raise ValueError(f"{value!r} must be STUDENT_LAYER=TEACHER_LAYER:WEIGHT")
    return student, teacher, weight


def _of_teacher(layer: str, teachers: int) -> tuple[Any, int]:
    """``conv1@2`` as a layer and the number, from 0, of the teacher that has it."""
    name, at, number = layer.rpartition("@")
    if not at:
        return layer, 0
    if not (number.isdecimal() and 1 <= int(number) <= teachers):
        raise ValueError(
            f"{layer!r} names teacher {number or 'nobody'}, and there are {teachers}, from 1"
        )
    return name, int(number) - 1


def labelled(data: Dataset) -> Dataset:
    """What a student without a teacher can learn from: the images with a label.

    They are repeated until they are as many as all, so that both students take as many steps.
    """
    if has_classes(data):
        return data
    known = np.flatnonzero(to_numpy(data.labels).any(axis=1))
    return Dataset(*data[np.resize(known, len(data))], name=f"{data.name}, those alone")


def transfer_set(data: Dataset, without: list[int] | None, few: int | None, seed: int) -> Dataset:
    """What the student is shown of ``data``."""
    if without:
        with common.usage("--without"):
            data = without_classes(data, without)
    if few is not None:
        with common.usage("--few-labels"):
            data = few_labels(data, few, seed)
    return data
