"""The options that say how to quantize, and the config that they make."""

from __future__ import annotations

from typing import Annotated

import typer

from tinycompress import nn
from tinycompress.cli import common
from tinycompress.cli.options import (
    GranularityName,
    ObserverName,
    SchemeName,
    WeightObserverName,
    choices,
)
from tinycompress.compress.quantize import QuantConfig

WEIGHTS, ACTIVATIONS = "Weights", "Activations"

Bits = Annotated[
    int,
    typer.Option(metavar="N", help="Of each weight.", min=1, max=16, rich_help_panel=WEIGHTS),
]
Scheme = Annotated[
    SchemeName,
    typer.Option(
        metavar="NAME",
        help="Codes on both sides of 0 (symmetric), or from the least weight on (affine).",
        rich_help_panel=WEIGHTS,
    ),
]
Granularity = Annotated[
    GranularityName,
    typer.Option(
        metavar="NAME",
        help=f"What has a scale of its own: {choices(GranularityName)}.",
        rich_help_panel=WEIGHTS,
    ),
]
GroupSize = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Weights in a group, with per_group.", min=1, rich_help_panel=WEIGHTS
    ),
]
WeightObserver = Annotated[
    WeightObserverName,
    typer.Option(
        metavar="NAME",
        help="Their range: all of it (minmax), or the part that has the least error (mse).",
        rich_help_panel=WEIGHTS,
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER=BITS",
        help="Other bits for a layer, for all that fit a pattern (conv*), or of a class (Linear); "
        "LAYER=float leaves it as it is. May be repeated; the first that fits counts.",
        rich_help_panel=WEIGHTS,
    ),
]
Activations = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Bits of each activation, so that the model computes in integers.",
        min=2,
        max=16,
        show_default="activations stay floats",
        rich_help_panel=ACTIVATIONS,
    ),
]
ActivationScheme = Annotated[
    SchemeName,
    typer.Option(
        metavar="NAME",
        help="As for weights; activations are seldom below 0.",
        rich_help_panel=ACTIVATIONS,
    ),
]
Observer = Annotated[
    ObserverName,
    typer.Option(
        metavar="NAME",
        help=f"How their range is found: {choices(ObserverName)}.",
        rich_help_panel=ACTIVATIONS,
    ),
]
Percentile = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="How many percent of them the observer percentile keeps.",
        rich_help_panel=ACTIVATIONS,
    ),
]
Calibrate = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Training images from which ranges, rounding and biases are found.",
        min=1,
        rich_help_panel=ACTIVATIONS,
    ),
]
Dynamic = Annotated[
    bool,
    typer.Option(
        "--dynamic",
        help="Find their range anew for each image, without calibration.",
        rich_help_panel=ACTIVATIONS,
    ),
]


def config_of(
    *,
    bits: int,
    scheme: SchemeName,
    granularity: GranularityName,
    group_size: int | None,
    weight_observer: WeightObserverName,
    override: list[str] | None,
    activations: int | None,
    activation_scheme: SchemeName,
    observer: ObserverName,
    percentile: float,
    dynamic: bool,
    learn_step: bool = False,
) -> QuantConfig:
    """What the options ask for; what contradicts itself is an error of usage."""
    with common.usage("--bits, --scheme, --granularity, --group-size"):
        config = QuantConfig(
            bits, scheme.value, granularity.value, group_size, weight_observer=weight_observer.value
        )
    with common.usage("--percentile"):
        config = config.replace(percentile=percentile)
    with common.usage("--activations, --scheme, --granularity, --dynamic, --learn-step"):
        config = config.replace(
            activations=activations,
            activation_scheme=activation_scheme.value,
            observer=observer.value,
            dynamic=dynamic,
            learn_step=learn_step,
        )
    with common.usage("--override"):
        return config.replace(overrides=[_override(each, config) for each in override or ()])


def _override(text: str, config: QuantConfig) -> tuple[str, QuantConfig | None]:
    name, equals, value = text.rpartition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is not LAYER=BITS, such as fc2=8 or conv*=float")
    if value == "float":
        return name, None
    if not value.isdecimal():
        raise ValueError(f"{text!r}: after = stand the bits, 1 to 16, or float")
    return name, config.replace(bits=int(value))


def check_overrides(config: QuantConfig, model: nn.Module) -> None:
    """Refuse the name of a layer that is not there."""
    unused = config.unused_overrides(model.named_modules())
    if unused:
        layers = ", ".join(name for name, _ in model.named_modules() if name)
        raise typer.BadParameter(
            f"{unused[0]!r} fits no layer of this model; it has {layers}", param_hint="--override"
        )
