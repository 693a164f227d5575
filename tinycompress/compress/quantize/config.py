"""QuantConfig: how weights are to be quantized, checked once and then only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinycompress.compress.quantize.affine import SCHEMES
from tinycompress.compress.quantize.ranges import IntegerRange, check_bits

GRANULARITIES = ("per_channel", "per_tensor", "per_group")


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize the weights of a layer.

    Args:
        bits: 1 to 16 for each weight. 2 is ternary with the symmetric scheme; 1 is
            ``sign(w)·mean|w|`` and needs the symmetric scheme.
        scheme: "symmetric" (zero point 0, codes as far below 0 as above) or "affine" (unsigned
            codes from the smallest weight to the largest).
        granularity: "per_channel" (a scale for each output channel), "per_tensor" (one), or
            "per_group" (one for each ``group_size`` weights of a channel).
        group_size: how many weights share a scale, for "per_group" only. The last group of a
            channel may be shorter.

    Raises:
        ValueError: names the field, what it was and what it may be.
    """

    bits: int = 8
    scheme: str = "symmetric"
    granularity: str = "per_channel"
    group_size: int | None = None

    def __post_init__(self) -> None:
        check_bits(self.bits)
        _check_choice("scheme", self.scheme, SCHEMES)
        _check_choice("granularity", self.granularity, GRANULARITIES)
        if self.bits == 1 and self.scheme != "symmetric":
            raise ValueError(
                f'bits=1 means sign(w)·mean|w|, which is scheme="symmetric", got {self.scheme!r}'
            )
        self._check_group_size()

    def _check_group_size(self) -> None:
        size = self.group_size
        if (self.granularity == "per_group") != (size is not None):
            raise ValueError(
                'granularity="per_group" and group_size go together, got '
                f"granularity={self.granularity!r}, group_size={size!r}"
            )
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"group_size must be a whole number ≥ 1, got {size!r}")

    @property
    def target(self) -> IntegerRange:
        """The codes of a weight: signed and narrow, or unsigned for the affine scheme."""
        symmetric = self.scheme == "symmetric"
        return IntegerRange(self.bits, signed=symmetric, narrow=symmetric)

    @property
    def axis(self) -> int | None:
        """The axis of a weight along which scales differ: output channels, or none."""
        return None if self.granularity == "per_tensor" else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for files; fields that are None are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantConfig:
        """What :meth:`to_dict` wrote; fields that are missing have their defaults."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"QuantConfig has no field {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**values)


def _check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
