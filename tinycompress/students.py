"""Students by budget: how large a student's file is, and the largest one that a file may hold.

    for member in tc.student_family():
        print(member.phi, member.parameters, member.macs, member.bytes)
    student = tc.distill(teacher, data=train, budget_bytes=20_000, epochs=5)

The family and its rule are in ``compress/distill/family.py``; here they meet the file format, which
stands above them. The bytes are those of the file that ``tc.save`` would write, float32 weights and
all; quantization and pruning come on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinycompress import nn
from tinycompress.compress.distill import (
    Ensemble,
    FamilyMember,
    Scale,
    distill as distill_into,
    largest_within,
    student_family as family_of,
)
from tinycompress.compress.distill.family import PHIS, checked_shape
from tinycompress.compress.distill.learning import asked_once
from tinycompress.compress.distill.objective import Teachers, teacher_list
from tinycompress.data import Dataset
from tinycompress.format import register, to_bytes

register(Ensemble)  # so that a file can hold several teachers as one


def student_family(
    phis: Iterable[float] = PHIS,
    *,
    scale: Scale | None = None,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
) -> list[FamilyMember]:
    """Students from large to small, with parameters, multiplications and bytes of the file.

    Args:
        phis: compound coefficients, 0 for the base and negative for what is smaller.
        scale: base network and factors; None: a base of about the article's size.
        image_shape: (C, H, W) of the images.
        classes: how many logits.
    """
    return family_of(
        phis, scale=scale, image_shape=image_shape, classes=classes, file_size=file_size
    )


def distill(
    teacher: Teachers,
    student: nn.Module | None = None,
    data: Dataset | None = None,
    *,
    budget_bytes: int | None = None,
    budget_parameters: int | None = None,
    scale: Scale | None = None,
    **options: Any,
) -> nn.Module:
    """A student that learned from ``teacher``: one that is given, or one that a budget allows.

    Args:
        teacher: a trained model, or several.
        student: the student, which is copied; None with a budget.
        data: images and labels.
        budget_bytes: what the student's file may weigh.
        budget_parameters: how many weights and biases it may have.
        scale: of the family that the budget chooses from.
        options: ``epochs``, ``temperature``, ``alpha``, ``terms`` and all else that
            :func:`tinycompress.compress.distill.distill` takes, which does the work.

    Raises:
        TypeError, ValueError: neither student nor budget, or both; a budget below the smallest
            student; ``optimizer`` or ``schedule``, which need a student; ``scale``, which needs a
            budget; and as there.
    """
    budgets = {"budget_bytes": budget_bytes, "budget_parameters": budget_parameters}
    given = {name: value for name, value in budgets.items() if value is not None}
    if not isinstance(data, Dataset):
        raise TypeError(
            f"distill: data must be a tc.data.Dataset, got {type(data).__name__}; without a "
            "student, write data=…"
        )
    if student is None:
        if not given:
            raise TypeError("distill: give a student, or budget_bytes=… or budget_parameters=…")
        if "optimizer" in options or "schedule" in options:
            raise TypeError(
                "distill: an optimizer is made for a student's parameters; make the student first: "
                "student_within_budget(teacher, data, budget_bytes=…)"
            )
        student = student_within_budget(teacher, data, scale=scale, **given)
    elif given:
        raise TypeError(f"distill: give a student or {next(iter(given))}, not both")
    elif scale is not None:
        raise TypeError(
            "distill: scale is of the family that a budget chooses from; no student may be "
            "given beside it"
        )
    return distill_into(teacher, student, data, **options)


def student_within_budget(
    teacher: Teachers,
    data: Dataset,
    *,
    budget_bytes: int | None = None,
    budget_parameters: int | None = None,
    scale: Scale | None = None,
) -> nn.Module:
    """A new student for this teacher and these images: the family's largest within the budget.

    It has the images' dtype; the bytes are those of float32.

    Raises:
        TypeError, ValueError: no budget, or one below the smallest student, whose cost is named;
            images of fewer than 4×4 pixels, or that the teacher does not take.
    """
    if not isinstance(data, Dataset):
        raise TypeError(
            f"student_within_budget: data must be a tc.data.Dataset, got {type(data).__name__}"
        )
    image = data.images[:1]
    first = teacher_list(teacher)[0]
    classes = asked_once("student_within_budget: the teacher", first, data).shape[1]
    shape = checked_shape(tuple(image.shape[1:]))
    base = Scale(resolution=min(28, *shape[1:])) if scale is None else scale
    family = student_family(scale=base, image_shape=shape, classes=classes)
    member = largest_within(family, budget_bytes=budget_bytes, budget_parameters=budget_parameters)
    return member.make().to(image.dtype).to(first.device)


def file_size(model: nn.Module) -> int:
    """The bytes of the file that ``tc.save`` would write."""
    return len(to_bytes(model))
