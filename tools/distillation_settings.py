"""Which students learn from which teachers for ``tools/distillation_results.py``, and how.

``hinton-…`` are the networks of Hinton, Vinyals & Dean 2015, section 3: a teacher of 2 × 1200
hidden units with dropout, max-norm and images shifted by up to two pixels, and a student of
2 × 800 without any of it. ``cnn-…`` are convolutional students that LeNet-5 teaches, of the family
in ``compress/distill/family.py``; ``phi`` says how large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from experiments import SELECTION_SEED, train_one_cycle

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.compress.distill import (
    correct_bias,
    expected_calibration_error,
    without_classes,
)
from tinycompress.data import Dataset, RandomShift, batch_count
from tinycompress.train import MaxNorm, Workers, fit, predict

How = Mapping[str, Any]
"""What was chosen: a rate ``lr``, ``epochs``, and what else a setting may vary."""

LENET5 = "lenet-5"
SHIFT = 2
"""By up to how many pixels images are shifted for teachers; students see them as they are."""

LIMIT = 3.5
"""Of the length of the weights into a unit of Hinton's teacher."""

BATCH = 256  # images to an update, where a setting does not say otherwise
MISSING = 3


def hinton_teacher(pixels: float, hidden: float) -> nn.Module:
    """784-1200-1200-10 with dropout of these shares of the pixels and of the hidden units."""
    return nn.Sequential(
        nn.Flatten(), nn.Dropout(pixels),
        nn.Linear(784, 1200), nn.ReLU(), nn.Dropout(hidden),
        nn.Linear(1200, 1200), nn.ReLU(), nn.Dropout(hidden),
        nn.Linear(1200, 10),
    )  # fmt: skip


def hinton_student() -> nn.Module:
    """784-800-800-10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 800), nn.ReLU(),
        nn.Linear(800, 800), nn.ReLU(),
        nn.Linear(800, 10),
    )  # fmt: skip


def cnn_student(phi: float) -> nn.Module:
    return tc.student_family([phi])[0].make()


@dataclass
class Work:
    """What a run has: data, workers, and where trained networks are kept.

    Attributes:
        train, held: images to train on, and to measure on.
        kept: folder of trained networks.
        at_most: epochs of anything.
        choices: setting → what was chosen.
    """

    train: Dataset
    held: Dataset
    kept: Path
    team: Workers
    at_most: int = 1000
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)

    def best(self, name: str) -> How:
        return self.choices.get(name, SETTINGS[name].candidates[0])

    def epochs(self, how: How) -> int:
        return min(self.at_most, how["epochs"])

    def trained(self, name: str, seed: int, how: How | None = None) -> nn.Module:
        """The network of this setting and seed: trained once, and kept for all who need it."""
        how = self.best(name) if how is None else how
        part = "selection" if seed == SELECTION_SEED else "final"
        said = "-".join(str(value) for value in how.values())
        path = self.kept / f"{name}-{part}-{len(self.train)}-{self.epochs(how)}-{said}-{seed}.tcz"
        if not path.exists():
            random.manual_seed(seed)
            tc.save(SETTINGS[name].make(self, seed, how), path)
        return tc.load(path)


@dataclass(frozen=True)
class Setting:
    """One network.

    Attributes:
        what: in words.
        make: ``(work, seed, how) -> model``.
        candidates: to choose from; the first is taken where nothing was chosen.
        seeds: how many are reported.
        teacher: the setting of its teacher.
        alone: the setting of the same student without a teacher.
        seconds: about what an epoch takes on two cores.
        short: epochs that hyperparameters are chosen by, at most.
    """

    what: str
    make: Callable[[Work, int, How], nn.Module]
    candidates: tuple[How, ...]
    seeds: int = 3
    teacher: str | None = None
    alone: str | None = None
    seconds: float = 4.0
    short: int = 1000


# ------------------------------------------------------------------------------- Hinton's networks


def regularised_teacher(work: Work, seed: int, how: How) -> nn.Module:
    """With dropout, max-norm and shifted images."""
    model, epochs = hinton_teacher(*how["dropout"]), work.epochs(how)
    rule, schedule = one_cycle(model, work.train, how, epochs)
    fit(
        model, work.train, epochs, rule, schedule=schedule, schedule_every="step",
        batch_size=batch(how), augment=RandomShift(SHIFT), callbacks=[MaxNorm(LIMIT)],
        seed=seed, workers=work.team,
    )  # fmt: skip
    return model


def hinton_alone(work: Work, seed: int, how: How) -> nn.Module:
    """With nothing but the images as they are, and their labels."""
    model, epochs = hinton_student(), work.epochs(how)
    rule, schedule = one_cycle(model, work.train, how, epochs)
    fit(
        model, work.train, epochs, rule, schedule=schedule, schedule_every="step",
        batch_size=batch(how), seed=seed, workers=work.team,
    )  # fmt: skip
    return model


def hinton_distilled(
    work: Work, seed: int, how: How, without: int | None = None, shift: int = 0
) -> nn.Module:
    """From the same images as they are, and what the teacher of this seed says of them."""
    data = work.train if without is None else without_classes(work.train, [without])
    model, epochs = hinton_student(), work.epochs(how)
    rule, schedule = one_cycle(model, data, how, epochs)
    return tc.distill(
        work.trained("hinton-teacher", seed), model, data,
        temperature=how["temperature"], alpha=how["alpha"], epochs=epochs,
        optimizer=rule, schedule=schedule, schedule_every="step",
        batch_size=batch(how), augment=shifted(shift), seed=seed, workers=work.team,
    )  # fmt: skip


def hinton_shifted(work: Work, seed: int, how: How) -> nn.Module:
    """From images that are shifted as the teacher's were, and what it says of each."""
    return hinton_distilled(work, seed, how, shift=SHIFT)


def without_threes(work: Work, seed: int, how: How) -> nn.Module:
    return hinton_distilled(work, seed, how, MISSING)


def corrected(work: Work, seed: int, how: How) -> nn.Module:
    """The student that never saw a 3, with a bias with which it names 3s as often as they come.

    How often: their share of the training labels. Chosen on the training images, whose labels are
    not looked at.
    """
    share = float(np.mean(work.train.labels == MISSING))
    student = work.trained("hinton-without-3", seed)
    return correct_bias(student, work.train, shares={MISSING: share}, workers=work.team)


def one_cycle(
    model: nn.Module, data: Dataset, how: How, epochs: int
) -> tuple[optim.Optimizer, optim.OneCycleLR]:
    rule: optim.Optimizer = optim.Adam(model.parameters(), lr=how["lr"])
    if "momentum" in how:
        rule = optim.SGD(model.parameters(), lr=how["lr"], momentum=how["momentum"])
    steps = epochs * batch_count(data, batch(how))
    return rule, optim.OneCycleLR(rule, max_lr=how["lr"], total_steps=steps)


def batch(how: How) -> int:
    return int(how.get("batch", BATCH))


# ------------------------------------------------------------------------- convolutional students


def lenet5(work: Work, seed: int, how: How) -> nn.Module:
    return train_one_cycle(
        models.create(LENET5), work.train, work.epochs(how), how["lr"], seed, work.team
    )


def cnn_alone(phi: float, shift: int = 0) -> Callable[[Work, int, How], nn.Module]:
    """From labels; images are shifted by up to ``shift`` pixels."""

    def make(work: Work, seed: int, how: How) -> nn.Module:
        model, epochs = cnn_student(phi), work.epochs(how)
        rule, schedule = one_cycle(model, work.train, how, epochs)
        fit(
            model, work.train, epochs, rule, schedule=schedule, schedule_every="step",
            batch_size=batch(how), augment=shifted(shift), seed=seed, workers=work.team,
        )  # fmt: skip
        return model

    return make


def cnn_distilled(phi: float, shift: int = 0) -> Callable[[Work, int, How], nn.Module]:
    """From the LeNet-5 of the same seed, which answers once for each image, or for each that was
    shifted."""

    def make(work: Work, seed: int, how: How) -> nn.Module:
        model, epochs = cnn_student(phi), work.epochs(how)
        rule, schedule = one_cycle(model, work.train, how, epochs)
        return tc.distill(
            work.trained("cnn-teacher", seed), model, work.train,
            temperature=how["temperature"], alpha=how["alpha"], epochs=epochs,
            optimizer=rule, schedule=schedule, schedule_every="step",
            batch_size=batch(how), augment=shifted(shift), seed=seed, workers=work.team,
        )  # fmt: skip

    return make


def shifted(shift: int) -> RandomShift | None:
    return RandomShift(shift) if shift else None


# --------------------------------------------------------------------------------- the settings


def rates(epochs: int, *lrs: float, **more: Any) -> tuple[How, ...]:
    return tuple({"lr": lr, "epochs": epochs, **more} for lr in lrs)


def softened(epochs: int, lrs: tuple[float, ...], temperatures: tuple[float, ...]) -> Any:
    return tuple(how for T in temperatures for how in rates(epochs, *lrs, temperature=T, alpha=0.9))


PHIS = (-4, -6, -8, -12, -16)
HEADLINE = -4
"""The convolutional student of the headline: 16,026 parameters, a 27th of LeNet-5's 431,080."""

TEACHER_EPOCHS, HINTON_EPOCHS, TAUGHT_EPOCHS, CNN_EPOCHS = 100, 30, 80, 24
HINTON_SHORT = 15
ALONE = (*rates(CNN_EPOCHS, 1.6e-2), *rates(12, 8e-3, 1.6e-2))
TAUGHT = (
    *softened(CNN_EPOCHS, (1.6e-2,), (2.0, 4.0)),
    *softened(12, (1.6e-2,), (2.0,)),
    *softened(12, (8e-3,), (4.0,)),
)
SHIFTED = {
    -4: (rates(12, 1.6e-2), softened(12, (1.6e-2,), (2.0,))),
    -8: (rates(12, 8e-3, 4e-3, 1.6e-2), softened(12, (8e-3,), (4.0, 2.0, 8.0))),
}
"""What was tried on shifted images, and given up by what the images that are held out said."""

FROM_HINTONS_TEACHER = tuple(
    {"lr": lr, "epochs": epochs, "temperature": T, "alpha": alpha, **more}
    for lr, epochs, T, alpha, more in (
        (4e-3, TAUGHT_EPOCHS, 20.0, 0.9, {}),
        (1e-3, TAUGHT_EPOCHS, 4.0, 0.9, {}),
        (1e-3, TAUGHT_EPOCHS, 8.0, 1.0, {}),
        (1e-3, TAUGHT_EPOCHS, 20.0, 0.9, {}),
        (1e-3, TAUGHT_EPOCHS, 20.0, 1.0, {}),
        (2e-3, TAUGHT_EPOCHS, 20.0, 0.9, {}),
        (2e-3, TAUGHT_EPOCHS, 20.0, 1.0, {}),
        (8e-3, TAUGHT_EPOCHS, 20.0, 0.9, {}),
        (1e-3, 2 * TAUGHT_EPOCHS, 20.0, 0.9, {}),
        (1e-3, TAUGHT_EPOCHS // 2, 20.0, 1.0, {"batch": 64}),
        (3e-3, TAUGHT_EPOCHS // 2, 20.0, 1.0, {"batch": 64}),
        (5e-2, TAUGHT_EPOCHS, 20.0, 0.9, {"momentum": 0.9}),
        (2e-1, TAUGHT_EPOCHS, 20.0, 0.9, {"momentum": 0.9}),
    )
)
"""With a momentum it is SGD, else Adam."""

SETTINGS: dict[str, Setting] = {
    "hinton-teacher": Setting(
        "784-1200-1200-10 with dropout, max-norm and images shifted by up to 2 pixels",
        regularised_teacher,
        (*rates(TEACHER_EPOCHS, 1e-3, 2e-3, dropout=[0.2, 0.5]),
         *(rates(TEACHER_EPOCHS, 1e-3, dropout=d)[0] for d in ([0.0, 0.5], [0.0, 0.3]))),
        seconds=8.0, short=HINTON_SHORT,
    ),
    "hinton-alone": Setting(
        "784-800-800-10 from images and labels, without regularisation",
        hinton_alone, rates(HINTON_EPOCHS, 1e-3, 5e-4), short=HINTON_SHORT,
    ),
    "hinton-alone-long": Setting(
        "the same, trained for as long as with a teacher",
        hinton_alone, rates(TAUGHT_EPOCHS, 1e-3),
    ),
    "hinton-distilled": Setting(
        "784-800-800-10 from the same images, labels and the teacher's logits",
        hinton_distilled, FROM_HINTONS_TEACHER, teacher="hinton-teacher", alone="hinton-alone",
    ),
    "hinton-distilled-shifted": Setting(
        "the same, from images shifted by up to 2 pixels and what the teacher says of these",
        hinton_shifted, FROM_HINTONS_TEACHER,
        teacher="hinton-teacher", alone="hinton-alone", seconds=6.5,
    ),
    "hinton-without-3": Setting(
        "the same, without a single 3 in the transfer set",
        without_threes, FROM_HINTONS_TEACHER,
        teacher="hinton-teacher",
    ),
    "hinton-without-3-corrected": Setting(
        "the same, its bias moved until 3s are named as often as they come",
        corrected, ({"epochs": 0},), teacher="hinton-teacher",
    ),
    "cnn-teacher": Setting(
        "LeNet-5, images shifted by up to 2 pixels", lenet5, rates(12, 2e-3), 5, seconds=6.5,
    ),
    **{
        name: setting
        for phi in PHIS
        for name, setting in {
            f"cnn{phi}-alone": Setting(
                f"the family's student at phi = {phi}, from images as they are and labels",
                cnn_alone(phi), ALONE,
                5 if phi == HEADLINE else 2,
            ),
            f"cnn{phi}-distilled": Setting(
                f"the family's student at phi = {phi}, with LeNet-5 as its teacher",
                cnn_distilled(phi), TAUGHT,
                5 if phi == HEADLINE else 2, "cnn-teacher", f"cnn{phi}-alone",
            ),
        }.items()
    },
    **{
        name: setting
        for phi, (alone, taught) in SHIFTED.items()
        for name, setting in {
            f"cnn{phi}-alone-shifted": Setting(
                "the same, from images shifted by up to 2 pixels",
                cnn_alone(phi, SHIFT), alone, 0,
            ),
            f"cnn{phi}-distilled-shifted": Setting(
                "the same, from images shifted by up to 2 pixels, with LeNet-5 as its teacher",
                cnn_distilled(phi, SHIFT), taught, 0, "cnn-teacher",
            ),
        }.items()
    },
}  # fmt: skip
"""In the order in which they are run. Other phis take what was chosen for the headline's."""

TUNED = {
    f"cnn{phi}-{way}": f"cnn{HEADLINE}-{way}"
    for phi in PHIS
    for way in ("alone", "distilled")
    if phi != HEADLINE
} | {
    "hinton-without-3": "hinton-distilled",
    "hinton-distilled-shifted": "hinton-distilled",
}
"""The setting whose choice is taken, where it is not the own one."""


def graded(work: Work, name: str, seed: int, model: nn.Module) -> dict[str, Any]:
    """What there is to say of a network, beside its teacher and itself without one."""
    labels = work.held.labels
    z = predict(model, work.held.images, workers=work.team)
    said = z.argmax(1)
    wrong = said != labels
    row: dict[str, Any] = {
        "errors": int(wrong.sum()),
        "error": round(100 * float(wrong.mean()), 4),
        "calibration error": round(expected_calibration_error(z, labels), 6),
        "parameters": sum(p.size for p in model.parameters()),
    }
    teacher = SETTINGS[name].teacher
    if teacher:
        master = work.trained(teacher, seed)
        answers = predict(master, work.held.images, workers=work.team).argmax(1)
        row["agreement"] = round(float((answers == said).mean()), 6)
        row["teacher's errors"] = int((answers != labels).sum())
    if "without-3" in name:
        row["errors on 3s"] = int(wrong[labels == MISSING].sum())
        row["3s"] = int((labels == MISSING).sum())
    return row
