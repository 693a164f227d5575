"""Born again: a student of its teacher's size, then a student of that student, and so on.

Each generation is the same architecture from new initial weights, and learns from the generation
before it (the first one from the teacher). Nothing gets smaller; what may get better is the
accuracy, since softened answers tell more than labels, and the ensemble of all generations may be
better again. Furlanello et al. 2018, arXiv:1805.04770.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinycompress import optim
from tinycompress.compress.distill.learning import distill
from tinycompress.compress.distill.objective import (
    DistillationObjective,
    Teachers,
    checked_terms,
    teacher_list,
)
from tinycompress.compress.distill.terms import Term
from tinycompress.data import Dataset
from tinycompress.nn import Module
from tinycompress.optim.checks import count


def born_again(
    teacher: Teachers,
    make_student: Callable[[], Module],
    data: Dataset,
    *,
    generations: int = 3,
    epochs: int,
    make_optimizer: Callable[[Module], optim.Optimizer] = lambda m: optim.Adam(m.parameters()),
    make_schedule: Callable[[optim.Optimizer], Any] | None = None,
    checkpoint: Any = None,
    **options: Any,
) -> list[Module]:
    """The generations, first to last; ``Ensemble(born_again(…))`` is the ensemble of all.

    Args:
        teacher: of the first generation, usually a model like those of ``make_student``.
        make_student: makes a new model, with new initial weights each time.
        data: as for :func:`distill`.
        generations: how many students, one after the other.
        epochs: for each.
        make_optimizer: makes the optimizer of a student.
        make_schedule: makes the schedule of that optimizer, also of Adam.
        checkpoint: a file name; generation k has its own, "name-k.ending". With ``resume=True``
            generations that are done are read from theirs, and the one that was interrupted goes
            on. (Random numbers must start the same: ``tc.manual_seed`` before both runs.)
        options: whatever else ``distill`` takes.

    Raises:
        TypeError, ValueError: as ``distill``; a ``make_student`` that makes no new models; an
            optimizer or schedule of one student; terms that do not fit the later generations.
    """
    count("born_again: generations", generations)
    check_maker("born_again", make_student)
    for name in sorted({"optimizer", "schedule"} & set(options)):
        raise TypeError(
            f"born_again: {name} is for one student, and these are {generations}; give "
            f"make_{name}=…"
        )
    teachers = teacher_list(teacher)
    options["terms"] = checked_terms(options.get("terms"))
    born: list[Module] = []
    for number in range(1, generations + 1):
        student = make_student()
        if not isinstance(student, Module):
            raise TypeError(
                f"born_again: make_student must make a model, it made a {type(student).__name__}"
            )
        if any(student is other for other in (*teachers, *born)):
            raise ValueError("born_again: make_student gave the same model twice")
        if number == 1 < generations:
            _check_later(student, options["terms"])
        optimizer = make_optimizer(student)
        schedule = None if make_schedule is None else make_schedule(optimizer)
        if checkpoint is not None:
            options["checkpoint"] = _numbered(checkpoint, number)
        given = {**options, "epochs": epochs, "optimizer": optimizer, "schedule": schedule}
        born.append(distill(born[-1:] or teachers, student, data, **given))
        options.pop("teacher_weights", None)  # they are those of the first generation
    return born


def check_maker(verb: str, make_student: Any) -> None:
    """Raise where ``make_student`` is a model, or nothing that can be called."""
    if isinstance(make_student, Module) or not callable(make_student):
        raise TypeError(
            f"{verb}: make_student is a function that makes a new model, such as "
            f"models.ArticleCNN, got {type(make_student).__name__}"
        )


def _check_later(student: Module, terms: list[Term]) -> None:
    """Now, rather than when the first generation is trained."""
    try:
        DistillationObjective(teacher=student, terms=terms)
    except ValueError as error:
        raise ValueError(
            f"born_again: a later generation has the one before it as its only teacher: {error}"
        ) from error


def _numbered(path: Any, number: int) -> Path:
    path = Path(path)
    return path.with_name(f"{path.stem}-{number}{path.suffix}")
