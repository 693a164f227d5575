"""QuantConfig: how a model is to be quantized, checked once and then only read.

One config describes the whole model. Where a layer needs something else, ``overrides`` says so::

    config = QuantConfig(bits=4, activations=8)
    config.replace(overrides={
        "fc2": config.replace(bits=8),   # by name
        "features.*": None,              # by pattern: these stay in floats
        nn.Linear: QuantConfig(bits=3),  # by class
    })

The first that fits a layer counts (:meth:`QuantConfig.for_layer`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from tinycompress.compress.quantize.affine import SCHEMES
from tinycompress.compress.quantize.ranges import IntegerRange, check_bits

GRANULARITIES = ("per_channel", "per_tensor", "per_group")
OBSERVERS = ("minmax", "moving_average", "percentile", "kl", "mse")
WEIGHT_OBSERVERS = ("minmax", "mse")

_OF_WEIGHTS = ("bits", "scheme", "granularity", "group_size", "weight_observer")
_ALWAYS_WRITTEN = ("bits", "scheme", "granularity")

Overrides = tuple[tuple[str, "QuantConfig | None"], ...]


@dataclass(frozen=True, repr=False)
class QuantConfig:
    """How to quantize a model, or one layer of it.

    Args:
        bits: 1 to 16 for each weight. 2 is ternary with the symmetric scheme; 1 is
            ``sign(w)·mean|w|`` and needs the symmetric scheme.
        scheme: of weights: "symmetric" (zero point 0, codes as far below 0 as above) or "affine"
            (unsigned codes from the smallest weight to the largest).
        granularity: of weights: "per_channel" (a scale for each output channel), "per_tensor"
            (one), or "per_group" (one for each ``group_size`` weights of a channel).
        group_size: how many weights share a scale, for "per_group" only. The last group of a
            channel may be shorter.
        activations: 2 to 16 bits for each activation, which then is a code too, so that layers
            compute in integers; None: activations are floats. Layers that compute in integers need
            symmetric weights, per channel or per tensor.
        activation_scheme: "affine" (unsigned codes, the better choice after ReLU) or "symmetric".
        observer: how the range of activations is found: one of ``OBSERVERS``, see
            ``observers.py``.
        weight_observer: the same for weights: "minmax", or "mse" (the clipped range with the
            smallest squared error).
        dynamic: take the range of activations from each example as it comes, instead of from
            calibration data. ``activations`` is then 8 unless given.
        learn_step: let training learn the scales (``prepare_qat``).
        overrides: other configs for some layers: a mapping, or pairs, from a dotted name, a
            pattern (``fnmatch``: ``"features.*"``) or a class (or its name) to a config, or to
            None: leave these layers in floats. The first that fits a layer counts. Where such a
            config has no ``activations``, all that concerns activations is as in this one. Kept as
            a tuple of pairs.
        percentile: which percentage of activations the "percentile" observer keeps.

    Raises:
        ValueError: names the field, what it was and what it may be.
    """

    bits: int = 8
    scheme: str = "symmetric"
    granularity: str = "per_channel"
    group_size: int | None = None
    activations: int | None = None
    activation_scheme: str = "affine"
    observer: str = "minmax"
    weight_observer: str = "minmax"
    dynamic: bool = False
    learn_step: bool = False
    overrides: Any = ()
    percentile: float = 99.99

    def __post_init__(self) -> None:
        check_bits(self.bits)
        _check_choice("scheme", self.scheme, SCHEMES)
        _check_choice("granularity", self.granularity, GRANULARITIES)
        _check_choice("activation_scheme", self.activation_scheme, SCHEMES)
        _check_choice("observer", self.observer, OBSERVERS)
        _check_choice("weight_observer", self.weight_observer, WEIGHT_OBSERVERS)
        if self.bits == 1 and self.scheme != "symmetric":
            raise ValueError(
                f'bits=1 means sign(w)·mean|w|, which is scheme="symmetric", got {self.scheme!r}'
            )
        self._check_group_size()
        self._check_activations()
        object.__setattr__(self, "overrides", self._checked_overrides())

    def _check_group_size(self) -> None:
        size = self.group_size
        if (self.granularity == "per_group") != (size is not None):
            raise ValueError(
                'granularity="per_group" and group_size go together, got '
                f"granularity={self.granularity!r}, group_size={size!r}"
            )
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"group_size must be a whole number ≥ 1, got {size!r}")

    def _check_activations(self) -> None:
        for field in ("dynamic", "learn_step"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field} must be True or False, got {getattr(self, field)!r}")
        part = self.percentile
        if not isinstance(part, int | float) or isinstance(part, bool) or not 50 < part <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {part!r}")
        if self.dynamic and self.learn_step:
            raise ValueError("dynamic and learn_step exclude each other: there is no step to learn")
        if self.dynamic and self.activations is None:
            object.__setattr__(self, "activations", 8)
        bits = self.activations
        if bits is None:
            return
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
            raise ValueError(
                f"activations must be None or a whole number of bits from 2 to 16, got {bits!r}"
            )
        if self.scheme != "symmetric" or self.granularity == "per_group":
            raise ValueError(
                "layers with quantized activations compute in integers, and their weights must be "
                'scheme="symmetric" and granularity="per_channel" or "per_tensor", got '
                f"scheme={self.scheme!r}, granularity={self.granularity!r}"
            )

    # ------------------------------------------------------------------------------ overrides

    def _checked_overrides(self) -> Overrides:
        given: Any = self.overrides
        if not isinstance(given, Mapping | tuple | list):
            raise ValueError(f"overrides must be a mapping or pairs, got {given!r}")
        pairs = []
        for pair in given.items() if isinstance(given, Mapping) else given:
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise ValueError(
                    f"overrides must be a mapping or pairs of name and config, got {pair!r}"
                )
            key, config = pair
            key = key.__name__ if isinstance(key, type) else key
            if not isinstance(key, str):
                raise ValueError(f"overrides: a layer's name or class was expected, got {key!r}")
            if config is not None:
                self._merged(key, config)
            pairs.append((key, config))
        return tuple(pairs)

    def _merged(self, key: str, config: Any) -> QuantConfig:
        """``config`` for the layers of ``key``: what it does not say of activations, self says."""
        if not isinstance(config, QuantConfig):
            raise ValueError(
                f"overrides[{key!r}] must be a QuantConfig, or None to leave the layer in floats, "
                f"got {config!r}"
            )
        if config.overrides:
            raise ValueError(f"overrides[{key!r}] has overrides of its own; say all in one place")
        if config.activations is None:
            own = {name: getattr(config, name) for name in _OF_WEIGHTS}
            try:
                return replace(self, overrides=(), **own)
            except ValueError as error:
                raise ValueError(f"overrides[{key!r}]: {error}") from None
        if self.activations is None or config.dynamic != self.dynamic:
            raise ValueError(
                f"overrides[{key!r}] has activations={config.activations}, dynamic="
                f"{config.dynamic}, and the whole model activations={self.activations}, dynamic="
                f"{self.dynamic}; whether activations are codes is decided for the whole model"
            )
        return config

    def for_layer(self, name: str, layer: Any) -> QuantConfig | None:
        """The config of one layer, without overrides; None: the layer stays in floats.

        Args:
            name: the layer's dotted name in the model, "" for the model itself.
            layer: the layer; its class and their parents can be named in ``overrides``.
        """
        for key, config in self.overrides:
            if _fits(key, name, layer):
                return None if config is None else self._merged(key, config)
        return replace(self, overrides=()) if self.overrides else self

    def unused_overrides(self, layers: Iterable[tuple[str, Any]]) -> list[str]:
        """The keys of ``overrides`` that fit none of these (name, layer): most likely mistakes."""
        layers = list(layers)
        return [k for k, _ in self.overrides if not any(_fits(k, n, each) for n, each in layers)]

    # ---------------------------------------------------------------------------------- reading

    @property
    def target(self) -> IntegerRange:
        """The codes of a weight: signed and narrow, or unsigned for the affine scheme."""
        symmetric = self.scheme == "symmetric"
        return IntegerRange(self.bits, signed=symmetric, narrow=symmetric)

    @property
    def activation_target(self) -> IntegerRange:
        """The codes of an activation: unsigned, or signed and narrow for the symmetric scheme."""
        if self.activations is None:
            raise ValueError("this config leaves activations in floats: activations is None")
        symmetric = self.activation_scheme == "symmetric"
        return IntegerRange(self.activations, signed=symmetric, narrow=symmetric)

    @property
    def axis(self) -> int | None:
        """The axis of a weight along which scales differ: output channels, or none."""
        return None if self.granularity == "per_tensor" else 0

    def replace(self, **changes: Any) -> QuantConfig:
        """The same with some fields changed."""
        return replace(self, **changes)

    def __repr__(self) -> str:
        """The bits, and what is not default."""
        values = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        shown = [f"{n}={v!r}" for n, v, default in values if n == "bits" or v != default]
        return f"QuantConfig({', '.join(shown)})"

    # ------------------------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for files. Bits, scheme and granularity, and what is not default."""
        values = asdict(replace(self, overrides=()))
        default = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        written = {k: v for k, v in values.items() if k in _ALWAYS_WRITTEN or v != default[k]}
        if self.overrides:
            written["overrides"] = [[k, c and c.to_dict()] for k, c in self.overrides]
        return written

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantConfig:
        """What :meth:`to_dict` wrote; fields that are missing have their defaults."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"QuantConfig has no field {unknown[0]!r}; it has {', '.join(known)}")
        read = dict(values)
        if isinstance(read.get("overrides"), list | tuple):
            read["overrides"] = [_read_override(pair) for pair in read["overrides"]]
        return cls(**read)


def _read_override(pair: Any) -> Any:
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Mapping)):
        return pair
    return pair[0], QuantConfig.from_dict(pair[1])


def _fits(key: str, name: str, layer: Any) -> bool:
    """Whether ``key`` is the name of this layer, a pattern of it, or the name of its class."""
    classes = (kind.__name__ for kind in type(layer).__mro__)
    return key == name or fnmatchcase(name, key) or key in classes


def _check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}")


def without_learned_steps(config: QuantConfig) -> QuantConfig:
    """The same without ``learn_step``, in its overrides too: what can be had without training."""
    others = [(key, own and own.replace(learn_step=False)) for key, own in config.overrides]
    return config.replace(learn_step=False, overrides=others)
