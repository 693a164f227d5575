"""Mixed precision: each layer its own number of bits, so that the whole fits into a size budget.

Bits are worth more in some layers than in others, and cost more in some than in others. For layer l
and b bits let ``d[l, b]`` be how far the model's answers move when that layer alone has b bits (the
divergence of ``../answers.py``: never negative and smooth, where accuracy is a staircase and the
loss may fall by chance), and ``n[l, b]`` its bytes. Wanted is::

    the choice of b for each l with the smallest Σ d[l, b],  among those with Σ n[l, b] ≤ budget

The choice is exact (``../knapsack.py``). That damages add up is an assumption (Dong et al. 2019,
arXiv:1911.03852, choose by a sum like this one); they nearly do while they are small. At two or
three bits they do not, so the sum only says where to begin. The whole model is then measured with
this choice, with the same bits everywhere, and with what lies one step beside the better of them
(one layer wider, another one narrower), as long as that makes it better.

Bytes are those of the *file*. What a layer adds to it can be measured on the layer alone; what is
left over (the architecture, the lengths) follows from one whole model. In the end the chosen model
is made and its file measured, and where it is too large by a few bytes, the choice is made again
with as many fewer. How large a file is, is known one floor above: the function comes as an argument
(``tinycompress/budget.py`` has :func:`tinycompress.mixed_precision`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rich.table import Table

from tinycompress import nn
from tinycompress.compress.answers import team_of
from tinycompress.compress.knapsack import Option, best_sum
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.registry import REPLACEMENTS
from tinycompress.compress.quantize.sensitivity import Bench, LayerSensitivity
from tinycompress.data import Dataset
from tinycompress.tables import as_text, table_of
from tinycompress.train import Workers

ROUNDS, NEAR = 8, 24
"""How many steps aside at most, and how many models are measured at each."""


@dataclass(frozen=True)
class Width:
    """One layer at one width: what it would cost, and what it would save.

    Attributes:
        name: of the layer.
        bits: of each weight.
        bytes: of this layer in the file.
        divergence, drop, weight_snr_db: see :class:`~.sensitivity.LayerSensitivity`.
        chosen: whether this is the width that the layer gets.
    """

    name: str
    bits: int
    bytes: int
    divergence: float
    drop: float
    weight_snr_db: float
    chosen: bool = False


@dataclass(frozen=True)
class MixedPrecision:
    """What was chosen, and from what; ``str()`` is a table.

    Attributes:
        config: for :func:`tinycompress.quantize`: the bits of each layer are its overrides.
        bits: the same by the layer's name.
        bytes: size of the file, measured, of the model quantized so.
        budget_bytes: what it had to fit into.
        widths: every layer at every width.
        together: the model with the chosen widths, measured on ``data``.
    """

    config: QuantConfig
    bits: Mapping[str, int]
    bytes: int
    budget_bytes: int
    widths: tuple[Width, ...]
    together: LayerSensitivity

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON values."""
        return {**asdict(self), "config": self.config.to_dict()}

    def table(self) -> Table:
        """A row for each layer: its bytes and damage at each width, the chosen one in brackets."""
        names = list(self.bits)
        columns = sorted({w.bits for w in self.widths})
        found = {(w.name, w.bits): w for w in self.widths}
        rows = []
        for name in names:
            cells = [_cell(found.get((name, b))) for b in columns]
            rows.append([name or "(model)", f"{self.bits[name]}", *cells])
        total = f"{self.bytes:,} of {self.budget_bytes:,} bytes"
        rows.append([total, "", *[""] * len(columns)])
        return table_of(("layer", "bits", *(f"{b} bits" for b in columns)), rows)

    def __str__(self) -> str:
        return as_text(self.table())


def _cell(width: Width | None) -> str:
    if width is None:
        return ""
    text = f"{width.bytes:,} B, {width.divergence:.2g}"
    return f"[{text}]" if width.chosen else text


def choose_bits(
    model: nn.Module,
    data: Dataset,
    *,
    budget_bytes: int,
    file_size: Callable[[nn.Module], int],
    candidates: Sequence[int] = (2, 3, 4, 6, 8),
    config: QuantConfig | None = None,
    calibration: Any = None,
    build: Callable[[QuantConfig], nn.Module] | None = None,
    workers: Workers | int | str | None = "auto",
) -> MixedPrecision:
    """Choose the bits of each layer; see :func:`tinycompress.mixed_precision`.

    Args:
        model, data, budget_bytes, candidates, config, calibration, workers: see there.
        file_size: the bytes of a model's file.
        build: makes the model from a config (None: ``tc.quantize``).

    Raises:
        ValueError: the smallest file is larger than the budget (it says how large that is);
            candidates or budget that are not whole numbers; what cannot be quantized.
    """
    candidates = _checked(candidates, budget_bytes)
    config = QuantConfig() if config is None else config
    with team_of(workers) as team:
        bench = Bench(model, config, data, calibration, team)
        make = bench.quantized if build is None else build
        widths = [_widths(bench, n, own, candidates, file_size) for n, own in bench.layers]
        chooser = _Chooser(bench, widths)
        picked = _fitting(chooser, budget_bytes, lambda c: file_size(make(c)))
        together = chooser.measured(picked.widths)
    chosen = {(w.name, w.bits) for w in picked.widths}
    every = (w for row in widths for w in row)
    marked = tuple(_mark(w, (w.name, w.bits) in chosen) for w in every)
    bits = {w.name: w.bits for w in picked.widths}
    return MixedPrecision(picked.config, bits, picked.bytes, budget_bytes, marked, together)


def _checked(candidates: Sequence[int], budget_bytes: int) -> tuple[int, ...]:
    if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes < 1:
        raise ValueError(f"budget_bytes must be a whole number of bytes ≥ 1, got {budget_bytes!r}")
    found = tuple(candidates) if isinstance(candidates, Sequence) else ()
    if not found:
        raise ValueError(f"candidates must be widths such as (2, 4, 8), got {candidates!r}")
    for bits in found:
        QuantConfig(bits)  # says what is wrong
    return tuple(sorted(set(found)))


def _mark(width: Width, chosen: bool) -> Width:
    return Width(**{**asdict(width), "chosen": chosen})


# ----------------------------------------------------------------------------------- measuring


def _widths(
    bench: Bench,
    name: str,
    own: QuantConfig,
    candidates: Sequence[int],
    file_size: Callable[[nn.Module], int],
) -> list[Width]:
    """A layer at each of its widths. One that the config's overrides speak of keeps its own."""
    if own != bench.config.replace(overrides=()):
        candidates = (own.bits,)
    layer = bench.model.get_submodule(name)
    kind: type[QuantizedLayer] = REPLACEMENTS[type(layer)]
    found = []
    for bits in candidates:
        each = own.replace(bits=bits)
        row = bench.alone(name, each)
        plain = each.replace(activations=None, dynamic=False, learn_step=False)
        size = file_size(kind.from_float(layer, plain, name))
        found.append(Width(name, bits, size, row.divergence, row.drop, row.weight_snr_db))
    return found


# ------------------------------------------------------------------------------------ choosing


class _Picked(NamedTuple):
    widths: tuple[Width, ...]
    config: QuantConfig
    bytes: int


class _Chooser:
    """What is measured of whole models, each combination once."""

    def __init__(self, bench: Bench, widths: list[list[Width]]) -> None:
        self.bench, self.widths = bench, widths
        self._measured: dict[tuple[Width, ...], LayerSensitivity] = {}

    def measured(self, choice: tuple[Width, ...]) -> LayerSensitivity:
        if choice not in self._measured:
            self._measured[choice] = self.bench.together(self.config_of(choice))
        return self._measured[choice]

    def damage(self, choice: tuple[Width, ...]) -> tuple[float, int]:
        """Less is better; of equals, the one of fewer bytes."""
        return self.measured(choice).divergence, _bytes(choice)

    def best(self, allowed: int) -> tuple[Width, ...] | None:
        """The best choice that was found in so many bytes; None where nothing fits."""
        by_sum = cheapest(self.widths, allowed)
        if by_sum is None:
            return None
        even = (c for c in self.even() if _bytes(c) <= allowed)
        best = min({by_sum, *even}, key=self.damage)
        for _ in range(ROUNDS):
            near = [c for c in self._beside(best) if _bytes(c) <= allowed]
            near = sorted(near, key=lambda c: sum(w.divergence for w in c))[:NEAR]
            better = min([best, *near], key=self.damage)
            if better == best:
                break
            best = better
        return best

    def even(self) -> Iterator[tuple[Width, ...]]:
        """The same bits in every layer that may have them."""
        for bits in {w.bits for row in self.widths for w in row}:
            choice = [next((w for w in r if w.bits == bits), None) for r in self.widths]
            if all(w is not None or len(r) == 1 for w, r in zip(choice, self.widths, strict=True)):
                yield tuple(w or r[0] for w, r in zip(choice, self.widths, strict=True))

    def _beside(self, choice: tuple[Width, ...]) -> set[tuple[Width, ...]]:
        """One layer a step wider or narrower, and perhaps another one the other way."""
        single: dict[int, set[tuple[Width, ...]]] = {1: set(), -1: set()}
        for step, found in single.items():
            found |= set(self._moved(choice, step))
        both = {each for up in single[1] for each in self._moved(up, -1)}
        return (single[1] | single[-1] | both) - {choice}

    def _moved(self, choice: tuple[Width, ...], step: int) -> Iterator[tuple[Width, ...]]:
        for i, row in enumerate(self.widths):
            position = row.index(choice[i]) + step
            if 0 <= position < len(row):
                yield (*choice[:i], row[position], *choice[i + 1 :])

    def config_of(self, choice: Sequence[Width]) -> QuantConfig:
        """The overrides of the config, after a line for each layer by name."""
        own = dict(self.bench.layers)
        lines = [(w.name, own[w.name].replace(bits=w.bits)) for w in choice]
        others = [pair for pair in self.bench.config.overrides if pair[0] not in own]
        return self.bench.config.replace(overrides=(*lines, *others))


def _bytes(choice: Sequence[Width]) -> int:
    return sum(w.bytes for w in choice)


def _fitting(chooser: _Chooser, budget: int, size: Callable[[QuantConfig], int]) -> _Picked:
    """The best choice whose file, measured, fits; the same bits everywhere are measured, too."""
    least = tuple(min(row, key=lambda w: (w.bytes, w.divergence)) for row in chooser.widths)
    picked = _picked(chooser, least, size)
    if picked.bytes > budget:
        raise ValueError(
            f"budget_bytes={budget:,} is too small: with the fewest bytes that the candidates give "
            f"each layer, the file has {picked.bytes:,}"
        )
    even = [_picked(chooser, choice, size) for choice in chooser.even()]
    fitting = [each for each in even if each.bytes <= budget]
    allowed = _bytes(least) + budget - picked.bytes
    while (best := chooser.best(allowed)) not in (None, least):
        assert best is not None
        new = _picked(chooser, best, size)
        if new.bytes <= budget:
            fitting.append(new)
            break
        allowed = _bytes(best) - (new.bytes - budget)
    return min([picked, *fitting], key=lambda each: chooser.damage(each.widths))


def _picked(
    chooser: _Chooser, choice: tuple[Width, ...], size: Callable[[QuantConfig], int]
) -> _Picked:
    config = chooser.config_of(choice)
    return _Picked(choice, config, size(config))


def cheapest(widths: Sequence[Sequence[Width]], allowed: int) -> tuple[Width, ...] | None:
    """One width of each row with the smallest sum of divergences, in ``allowed`` bytes.

    None where nothing fits. Of equals, the one of fewer bytes.
    """
    return best_sum([[Option(w.bytes, w.divergence, w) for w in row] for row in widths], allowed)
