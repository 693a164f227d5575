"""Students by rule: one number scales depth, width and resolution together.

    depth = α^φ,    width = β^φ,    resolution = γ^φ,       α · β² · γ² ≈ 2

A convolution's multiplications grow in proportion to its depth, and to the square of its width and
of its resolution; so φ + 1 costs about twice as many as φ. EfficientNet (Tan & Le 2019,
arXiv:1905.11946, equation 3) found α = 1.2, β = 1.1, γ = 1.15 best on ImageNet, and scaled a small
network up. A student is scaled down: φ is 0, −1, −2 … from a network of about the article's size.

What is scaled is the article's plan: two stages of 3×3 convolutions with ReLU, each ended by 2×2
pooling, and a linear layer. Depth is convolutions a stage, width is channels, and resolution is the
grid to which images are averaged at the door (``nn.AdaptiveAvgPool2d``). All three are rounded, so
small students cost somewhat more or less than the rule says; their real costs are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from tinycompress import nn
from tinycompress.nn import Module
from tinycompress.nn.summary import summary
from tinycompress.optim.checks import count, positive

DEPTH, WIDTH, RESOLUTION = 1.2, 1.1, 1.15
LEAST_RESOLUTION = 4  # two poolings leave one position
PHIS = tuple(range(0, -25, -1))
MOST_PHI = 100  # twice as much work so many times


@dataclass(frozen=True)
class Scale:
    """The base network and the three factors.

    Args:
        depth, width, resolution: of the network at φ = 0: convolutions a stage, channels of the
            first stage (the second has twice as many), and positions along an axis.
        alpha, beta, gamma: by what depth, width and resolution grow with φ.

    Raises:
        ValueError: α · β² · γ² outside 1.8 … 2.2, so that φ + 1 would not double the cost; a size
            below 1, or a resolution below 4.
    """

    depth: int = 2
    width: int = 32
    resolution: int = 28
    alpha: float = DEPTH
    beta: float = WIDTH
    gamma: float = RESOLUTION

    def __post_init__(self) -> None:
        for name in ("depth", "width", "resolution"):
            count(f"Scale: {name}", getattr(self, name))
        for name in ("alpha", "beta", "gamma"):
            positive(f"Scale: {name}", getattr(self, name))
        if self.resolution < LEAST_RESOLUTION:
            raise ValueError(f"Scale: resolution must be ≥ {LEAST_RESOLUTION}")
        growth = self.alpha * self.beta**2 * self.gamma**2
        if not 1.8 <= growth <= 2.2:
            raise ValueError(
                f"Scale: alpha · beta² · gamma² must be about 2 (1.8 … 2.2), got {growth:.3g}"
            )

    def at(self, phi: float) -> tuple[int, int, int]:
        """(depth, width, resolution) at φ, rounded; at least 1, 1 and 4."""
        if isinstance(phi, bool) or not isinstance(phi, Real):
            raise TypeError(f"Scale: phi must be a number, got {phi!r}")
        if not abs(phi) <= MOST_PHI:
            raise ValueError(
                f"Scale: phi must be a finite number, −{MOST_PHI} … {MOST_PHI}, got {phi!r}"
            )
        return (
            max(1, round(self.depth * self.alpha**phi)),
            max(1, round(self.width * self.beta**phi)),
            max(LEAST_RESOLUTION, round(self.resolution * self.gamma**phi)),
        )


@dataclass(frozen=True)
class FamilyMember:
    """One student of the family, and what it costs.

    Attributes:
        phi: the compound coefficient.
        depth, width, resolution: of the network.
        parameters: weights and biases.
        macs: multiply–accumulate operations for one image.
        bytes: size of its .tcz file; None where nobody measured it (``tc.student_family`` does).
        image_shape, classes: what it is made for.
    """

    phi: float
    depth: int
    width: int
    resolution: int
    parameters: int
    macs: int
    bytes: int | None
    image_shape: tuple[int, int, int]
    classes: int

    def make(self) -> nn.Sequential:
        """This student with new initial weights."""
        return scaled_student(
            self.depth, self.width, self.resolution, self.image_shape, self.classes
        )


def scaled_student(
    depth: int,
    width: int,
    resolution: int,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
) -> nn.Sequential:
    """(N, C, H, W) images → (N, classes) logits; the plan at the top of this file.

    Raises:
        TypeError, ValueError: a size that is no whole number ≥ 1; a resolution below 4, or above
            that of the images.
    """
    channels, h, w = checked_shape(image_shape)
    for name, value in (("depth", depth), ("width", width), ("classes", classes)):
        count(f"scaled_student: {name}", value)
    count("scaled_student: resolution", resolution, least=LEAST_RESOLUTION)
    if resolution > min(h, w):
        raise ValueError(
            f"scaled_student: resolution {resolution} is above that of images of {image_shape}"
        )
    layers: dict[str, Module] = {}
    if (h, w) != (resolution, resolution):
        layers["resize"] = nn.AdaptiveAvgPool2d(resolution)  # -> (N, C, r, r)
    for stage, outputs in enumerate((width, 2 * width), 1):
        for place in range(1, depth + 1):
            name = f"{stage}_{place}"
            layers[f"conv{name}"] = nn.Conv2d(channels, outputs, 3, padding=1)
            layers[f"relu{name}"] = nn.ReLU()
            channels = outputs
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    side = resolution // 2 // 2
    layers["flatten"] = nn.Flatten()  # (N, 2·width, r/4, r/4) -> (N, …)
    layers["fc"] = nn.Linear(channels * side * side, classes)
    return nn.Sequential(layers)


def checked_shape(image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W), or a ``ValueError``."""
    if len(image_shape) != 3 or min(image_shape[1:]) < LEAST_RESOLUTION:
        raise ValueError(
            f"students by rule are for images (C, H, W) of {LEAST_RESOLUTION}×{LEAST_RESOLUTION} "
            f"pixels or more, got {tuple(image_shape)}"
        )
    channels, h, w = image_shape
    return channels, h, w


def student_family(
    phis: Iterable[float] = PHIS,
    *,
    scale: Scale | None = None,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    file_size: Callable[[Module], int] | None = None,
) -> list[FamilyMember]:
    """The members at these φ, each network once, in the order given.

    Args:
        phis: compound coefficients; negative ones are smaller than the base.
        scale: base and factors; None: :class:`Scale` as it is.
        image_shape: (C, H, W) of the images.
        classes: how many logits.
        file_size: the bytes of a model's file; None: not measured.

    Raises:
        ValueError: a resolution above that of the images, which would invent pixels; images that
            are none, or of fewer than 4×4 pixels.
    """
    checked_shape(image_shape)
    scale = Scale() if scale is None else scale
    if not isinstance(scale, Scale):
        raise TypeError(f"student_family: scale must be a Scale, got {scale!r}")
    if not isinstance(phis, Iterable):
        raise TypeError(f"student_family: phis must be numbers in a list, got {phis!r}")
    members: dict[tuple[int, int, int], FamilyMember] = {}
    for phi in phis:
        sizes = scale.at(phi)
        if sizes in members:
            continue
        if sizes[2] > min(image_shape[1:]):
            raise ValueError(
                f"student_family: at phi={phi:g} the resolution is {sizes[2]}, above that of "
                f"images of {image_shape}; use a smaller phi, or Scale(resolution=…)"
            )
        model = scaled_student(*sizes, image_shape, classes)
        costs = summary(model, image_shape)
        size = None if file_size is None else file_size(model)
        members[sizes] = FamilyMember(
            phi, *sizes, costs.parameters, costs.macs, size, image_shape, classes
        )
    return list(members.values())


def largest_within(
    family: Iterable[FamilyMember],
    *,
    budget_bytes: int | None = None,
    budget_parameters: int | None = None,
) -> FamilyMember:
    """The member with most multiplications that keeps within all budgets that are given.

    Raises:
        ValueError: no budget, or none is small enough; the smallest one's cost is named. A budget
            of bytes for a family whose files nobody measured; a family without members.
    """
    budgets: dict[str, Any] = {"bytes": budget_bytes, "parameters": budget_parameters}
    given = {name: budget for name, budget in budgets.items() if budget is not None}
    if not given:
        raise ValueError("give budget_bytes or budget_parameters")
    for name, budget in given.items():
        count(f"budget_{name}", budget)
    members = list(family)
    if not members:
        raise ValueError("largest_within: the family has no members")
    if budget_bytes is not None and any(m.bytes is None for m in members):
        raise ValueError(
            "largest_within: the bytes of this family are not measured; tc.student_family does it"
        )
    fitting = [m for m in members if all(getattr(m, k) <= v for k, v in given.items())]
    if not fitting:
        least = {name: min(getattr(m, name) for m in members) for name in given}
        told = " and ".join(f"{least[k]:,} {k} for a budget of {v:,}" for k, v in given.items())
        raise ValueError(f"no student of the family is small enough: the smallest needs {told}")
    return max(fitting, key=lambda m: (m.macs, m.parameters))
