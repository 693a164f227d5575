"""The options that say how to prune, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from tinycompress import nn
from tinycompress.cli import common
from tinycompress.cli.options import ImportanceName, ScopeName, choices
from tinycompress.compress.prune import (
    DynamicSurgery,
    GradualPruning,
    MovementPruning,
    channel_sets,
)
from tinycompress.compress.prune.amounts import check_sparsity
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.structure import parse_structure
from tinycompress.data import Dataset
from tinycompress.train.callbacks import Callback

AMOUNTS, WHAT, WHEN = "How much", "What", "When"
MOVEMENT = ImportanceName.movement
CHANNELS_ONLY = (ImportanceName.batch_norm, ImportanceName.geometric_median)

Importance = Annotated[
    ImportanceName,
    typer.Option(
        metavar="NAME",
        help=f"Ranks them: {choices(ImportanceName)}. movement adds up in training; batch_norm "
        "and geometric_median rank channels.",
        rich_help_panel=WHAT,
    ),
]
Structure = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What goes as a whole: weight, kernel, row, channel (masked; --channels removes "
        "them), or all but n of every m weights, such as 2:4.",
        rich_help_panel=WHAT,
    ),
]
Scope = Annotated[
    ScopeName,
    typer.Option(
        metavar="NAME",
        help="Rank over all layers together (global) or in each (local).",
        rich_help_panel=WHAT,
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        help="Leave this layer alone, or all that fit a pattern (conv*). May be repeated.",
        rich_help_panel=WHAT,
    ),
]
BudgetParameters = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Choose each layer's share so that at most N parameters are left.",
        min=1,
        rich_help_panel=AMOUNTS,
    ),
]
BudgetMacs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The same for the multiplications of one image.",
        min=1,
        rich_help_panel=AMOUNTS,
    ),
]


def shares(option: str, text: str) -> tuple[float, ...]:
    """Numbers such as "0.5,0.9"."""
    with common.usage(option):
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"{text!r} are no shares; give some such as 0.5,0.9") from None
        for value in found:
            check_sparsity("each", value)
        return tuple(sorted(set(found)))


def by_layer(given: list[str] | None, rest: float | None, names: list[str]) -> dict[str, float]:
    """Layer → share from ``LAYER=SHARE``; ``rest`` for all other ``names``."""
    found: dict[str, float] = {}
    with common.usage("--layer"):
        for text in given or ():
            name, equals, value = text.rpartition("=")
            try:
                share = float(value)
            except ValueError:
                equals = ""
            if not name or not equals:
                raise ValueError(f"{text!r} is not LAYER=SHARE, such as fc1=0.9 or conv*=0.5")
            check_sparsity(f"the share of {name!r}", share)
            if name in found:
                raise ValueError(f"{name!r} is given twice, as {found[name]} and as {share}")
            found[name] = share
    if rest is not None:
        found |= {name: rest for name in names if name not in found and not _fits(name, found)}
    return found


def _fits(name: str, patterns: dict[str, float]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_together(
    *,
    structure: str,
    importance: ImportanceName,
    sparsity: float | None,
    layer: list[str] | None,
    channels: float | None,
    budgets: tuple[int | None, int | None],
    schedule: str | None,
    regrow: bool,
    rounds: int | None,
    epochs: int,
) -> None:
    """Refuse options that contradict each other, or would do nothing."""
    removes = channels is not None
    with common.usage("--structure"):
        only = None if structure == "channel" else parse_structure(structure).sparsity
    _refuse("--channels", removes and structure not in ("weight", "channel"),
            f"removes channels; leave out --structure {structure}")  # fmt: skip
    _refuse("--channels", removes and sparsity is not None,
            "is the share of channels; leave out --sparsity")  # fmt: skip
    _refuse("--sparsity", only is not None and sparsity not in (None, only),
            f"--structure {structure} has a sparsity of its own, {only}; leave it out")  # fmt: skip
    given = sum(value is not None for value in budgets)
    _refuse("--budget-macs", given > 1, "and --budget-parameters: one of the two")
    _refuse("--layer", bool(given and layer), "is what a budget chooses; leave out one of them")
    _refuse("--sparsity", bool(given and sparsity is not None),
            "is what a budget chooses; leave out one of them")  # fmt: skip
    grows = {"--schedule": schedule, "--regrow": regrow, "--rounds": rounds}
    grows["--importance movement"] = importance == MOVEMENT
    for option, on in grows.items():
        _refuse(option, bool(on) and not epochs, "prunes in training: give --epochs")
    one_of = [option for option, on in grows.items() if on and option != "--schedule"]
    _refuse(" and ".join(one_of), len(one_of) > 1, "cannot be used together")
    units = structure == "channel" or removes
    _refuse("--regrow", regrow and (structure != "weight" or removes),
            "is for single weights; leave out --structure and --channels")  # fmt: skip
    _refuse("--regrow", regrow and importance != ImportanceName.magnitude,
            "ranks by magnitude; leave out --importance")  # fmt: skip
    _refuse("--rounds", bool(rounds) and units, "is not for channels; use --schedule")
    _refuse("--importance", importance == MOVEMENT and only is not None,
            "movement ranks weights, kernels and rows")  # fmt: skip
    check_ranking(importance, "channel" if units else structure)


def check_ranking(importance: ImportanceName, structure: str) -> None:
    """Refuse a criterion that does not rank what is pruned."""
    channels = structure == "channel"
    _refuse("--importance", importance == MOVEMENT and channels,
            "movement ranks weights, kernels and rows")  # fmt: skip
    _refuse("--importance", importance in CHANNELS_ONLY and not channels,
            f"{importance.value} ranks channels: give --channels")  # fmt: skip


def as_options(shares: Mapping[str, float]) -> str:
    """What a budget chose, to be read or given to ``prune``."""
    return "chosen: " + " ".join(f"--layer {name}={share:g}" for name, share in shares.items())


def _refuse(option: str, wrong: bool, why: str) -> None:
    if wrong:
        raise typer.BadParameter(why, param_hint=option)


def callback(
    amount: Any, importance: ImportanceName, schedule: str | None, regrow: bool, options: Any
) -> Callback:
    """What prunes while the model is trained."""
    when: dict[str, Any] = {"schedule": schedule or "cubic"}
    if regrow:
        chosen = {k: options[k] for k in ("scope", "skip", "seed")}
        return DynamicSurgery(amount, **when, **chosen)
    if importance == MOVEMENT:
        chosen = {k: options[k] for k in ("scope", "skip", "structure")}
        return MovementPruning(amount, **when, **chosen)
    return GradualPruning(amount, importance=importance.value, **when, **options)


def prunable(model: nn.Module, structure: str, few: Dataset, skip: list[str]) -> list[str]:
    """The layers that --layer may name, for the others to get --sparsity or --channels."""
    if structure == "channel":
        return [name for names in channel_sets(model, few, skip) for name in names]
    unit = parse_structure(structure)
    return [name for name, p in prunable_weights(model, skip).items() if unit.prunes(p.shape)]
