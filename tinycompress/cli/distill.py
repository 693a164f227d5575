"""``tinycompress distill``: a small network that learns from a large one, or from several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import tinycompress as tc
from tinycompress import models, nn, random
from tinycompress.backend import to_numpy
from tinycompress.cli import common, distillation as asked, options, output
from tinycompress.cli.options import ModelName, OptimizerName, ScheduleName
from tinycompress.cli.recipe import CLIP_NORM, make_optimizer, make_schedule
from tinycompress.compress.distill import (
    Ensemble,
    correct_bias,
    distill as distill_model,
    distillation_report,
)
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.distill.objective import teacher_shares
from tinycompress.compress.prune import GradualPruning
from tinycompress.data import Dataset
from tinycompress.format import load, save
from tinycompress.students import student_within_budget

CALIBRATE = 512  # images from which the ranges of activations start


@common.command
def distill(
    teacher: asked.Teacher,
    student: asked.Student = None,
    out: options.OutFile = Path("student.tcz"),
    temperature: Annotated[
        float, typer.Option(metavar="X", help="Above 0; softens what both networks answer.")
    ] = 4.0,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="X", help="Weight of the teacher; 1 − alpha of the labels.", min=0, max=1
        ),
    ] = 0.9,
    epochs: Annotated[
        int, typer.Option(metavar="N", help="Passes over the training images.", min=1)
    ] = 5,
    lr: Annotated[float, typer.Option(metavar="X", help="Largest learning rate.", min=0.0)] = 0.1,
    batch_size: options.BatchSize = 128,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone", help="Train it without the teacher too, and show the gap that was closed."
        ),
    ] = False,
    teacher_weight: asked.TeacherWeight = None,
    hint: asked.HintOption = None,
    attention: asked.AttentionOption = None,
    relations: asked.RelationsOption = None,
    matching: asked.Matching = 0.0,
    decoupled: asked.DecoupledOption = 0.0,
    budget_bytes: asked.BudgetBytes = None,
    budget_parameters: asked.BudgetParameters = None,
    bits: asked.Bits = None,
    sparsity: asked.Sparsity = None,
    without: asked.Without = None,
    correct: asked.CorrectBias = False,
    few_labels: asked.FewLabels = None,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Train a student on a teacher's softened outputs and on the labels."""
    for file in teacher:
        common.check_writable(out, source=file)
    _check(temperature, alpha, teacher, teacher_weight, sparsity)
    _check_images(without, correct, few_labels, alone, decoupled)
    terms = asked.terms_of(
        hint, attention, relations, matching, decoupled, temperature, len(teacher)
    )
    given = {"budget_bytes": budget_bytes, "budget_parameters": budget_parameters}
    budgets: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if student is not None and budgets:
        raise typer.BadParameter("give a student or a budget, not both", param_hint="--student")
    with common.usage("--lr"):
        make_optimizer(nn.Linear(1, 1), OptimizerName.sgd, lr, 0.0)
    masters = [load(file) for file in teacher]
    train_set, test_set = common.load_data(dataset, data_dir, full)
    shown = asked.transfer_set(train_set, without, few_labels, seed)
    tc.manual_seed(seed)
    if budgets:
        pupil = student_within_budget(masters, train_set, **budgets)
    else:
        pupil = models.create((student or ModelName.tiny_cnn).value)
    if bits is not None:
        config = tc.QuantConfig(bits=bits, activations=8)
        pupil = tc.prepare_qat(pupil, config, train_set.take(min(CALIBRATE, len(train_set))))

    start = random.get_state()

    def learn(shown: Dataset, **loss: Any) -> nn.Module:
        """A student from the same start, by the same recipe, of these images and this loss."""
        random.set_state(start)
        rule = make_optimizer(pupil, OptimizerName.sgd, lr, 0.0)
        trained = distill_model(
            masters,
            pupil,
            shown,
            epochs=epochs,
            teacher_weights=teacher_weight,
            optimizer=rule,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            clip_grad_norm=CLIP_NORM,
            callbacks=[] if sparsity is None else [GradualPruning(sparsity)],
            progress=output.show_progress(),
            **loss,
            **make_schedule(ScheduleName.one_cycle, rule, shown, epochs, batch_size),
        )
        if without and correct:
            trained = correct_bias(trained, train_set, shares=_shares(train_set, without))
        return trained if bits is None else tc.convert(trained)

    trained = learn(shown, temperature=temperature, alpha=alpha, terms=terms)
    save(trained, out)
    other = learn(asked.labelled(shown), alpha=0.0) if alone else None
    _show(Ensemble(masters, teacher_weight), other, trained, teacher[0], out, test_set,
          workers, as_json)  # fmt: skip


def _check(
    temperature: float,
    alpha: float,
    teachers: list[Path],
    weights: list[float] | None,
    sparsity: float | None,
) -> None:
    """What can be said of the options before anything is read."""
    with common.usage("--temperature, --alpha"):
        check_weights(temperature, alpha)
    with common.usage("--teacher-weight"):
        teacher_shares(weights, len(teachers))
    with common.usage("--sparsity"):
        if sparsity is not None:
            GradualPruning(sparsity)


def _check_images(
    without: list[int] | None, correct: bool, few: int | None, alone: bool, decoupled: float
) -> None:
    """Which options of the transfer set go together, and with what."""
    if correct and not without:
        raise typer.BadParameter("is for --without CLASS", param_hint="--correct-bias")
    if few is not None and decoupled:
        raise typer.BadParameter("needs the label of every image", param_hint="--decoupled")
    if few == 0 and alone:
        raise typer.BadParameter("without labels nobody learns alone", param_hint="--alone")


def _shares(data: Dataset, classes: list[int]) -> dict[int, float]:
    labels = to_numpy(data.labels)
    return {c: float(np.mean(labels == c)) for c in classes}


def _show(
    master: nn.Module,
    alone: nn.Module | None,
    trained: nn.Module,
    before: Path,
    after: Path,
    data: Dataset,
    workers: int | None,
    as_json: bool,
) -> None:
    """Both files, measured; and what the teacher was worth."""
    other = trained if alone is None else alone
    report = distillation_report(master, other, trained, data, workers=workers)
    grade = report.distilled[0]
    more: dict[str, Any] = {
        "agreement": grade.agreement,
        "calibration_error": grade.calibration_error,
    }
    if alone is not None:
        more["report"] = report.to_dict()
    common.show_change(before, after, data, workers, as_json, more)
    if not as_json and alone is not None:
        output.say()
        output.say(str(report))
