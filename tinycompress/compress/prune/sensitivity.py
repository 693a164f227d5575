"""Which layers can be pruned how far: each is pruned alone, and the whole model's answers measured.

All other layers stay as they are, and nothing is trained. (Li et al. 2017, arXiv:1608.08710, § 3.2,
plot these curves for channels, Han et al. 2015, arXiv:1506.02626, figure 6, for weights.) What is
measured is in ``../answers.py``. What layers lose one by one adds up only roughly: the last rows
prune all of them by the same share. ``allocation.py`` chooses per-layer amounts by these numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rich.table import Table

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.answers import Reference, check_labels, team_of
from tinycompress.compress.prune.amounts import as_patterns, check_seed, check_sparsity
from tinycompress.compress.prune.channels import Options, channel_sets, choose_channels, masks_of
from tinycompress.compress.prune.costs import Costs, costs_of_channels, costs_of_weights
from tinycompress.compress.prune.dependencies import follow
from tinycompress.compress.prune.importance import Importance
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.one_shot import choose_masks
from tinycompress.compress.prune.structure import parse_structure
from tinycompress.data import Dataset
from tinycompress.tables import as_text, table_of
from tinycompress.train import Workers
from tinycompress.train.objective import Objective

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
GRADIENT_IMAGES = 512
"""How many of the images derivatives are taken on, unless others are given."""
Masks = Mapping[str, Any]


@dataclass(frozen=True)
class PruneConfig:
    """How :func:`tinycompress.sensitivity` prunes a layer.

    Attributes:
        sparsities: the shares to try, each 0 < s < 1, in rising order; None for 50, 70, 80, 90 and
            95%, or the one share of a structure n:m.
        importance, structure, skip, keep_at_least, objective, seed: as for
            :func:`tinycompress.prune`. With "channel", layers whose channels are tied together are
            pruned together.

    Raises:
        ValueError: a sparsity out of range or given twice, an unknown structure.
        TypeError: a sparsity that is no number.
    """

    sparsities: Sequence[float] | None = None
    importance: str | Importance = "magnitude"
    structure: str = "weight"
    skip: str | Iterable[str] = ()
    keep_at_least: float | Mapping[str, float] = 1
    objective: Objective | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        only = None if self.structure == "channel" else parse_structure(self.structure).sparsity
        given = self.sparsities
        if given is None:
            given = SPARSITIES if only is None else (only,)
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise ValueError(f"sparsities must be shares such as (0.5, 0.9), got {given!r}")
        for value in given:
            check_sparsity("each of sparsities", value)
        if sorted(set(given)) != list(given) or given[0] == 0:
            raise ValueError(
                f"sparsities must be above 0, in rising order and each once, got {given!r}"
            )
        object.__setattr__(self, "sparsities", tuple(float(value) for value in given))
        object.__setattr__(self, "skip", as_patterns("skip", self.skip))
        check_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values; a criterion of your own by its name."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "objective"}
        if callable(self.importance):
            found["importance"] = getattr(self.importance, "__name__", repr(self.importance))
        return found


@dataclass(frozen=True)
class PrunedLayer:
    """What it costs to prune one layer by one share.

    Attributes:
        name: dotted name; of several that are tied, the first. Of the last rows "all layers".
        layers: all their names.
        kind: class of the layer, or of the model.
        sparsity: the share that was asked for.
        zeros, weights: how many of how many weights are zero then, counted.
        accuracy, loss: of the model with this layer pruned.
        drop: what the accuracy lost, in points (percent of the images); negative for a gain.
        loss_increase: what the loss gained.
        divergence: how far its answers are from the unpruned model's, in nats; see ``answers.py``.
    """

    name: str
    layers: tuple[str, ...]
    kind: str
    sparsity: float
    zeros: int
    weights: int
    accuracy: float
    drop: float
    loss: float
    loss_increase: float
    divergence: float


@dataclass(frozen=True)
class PruneSensitivity:
    """What pruning costs, layer × sparsity; ``str()`` is a table, ``to_list()`` the rows for
    programs, ``to_dict()`` all of it.

    ``found["fc1"]`` are the rows of one layer, ``found["fc1", 0.9]`` is one of them.

    Attributes:
        images: how many were looked at.
        accuracy, loss: of the model as it is.
        config: how layers were pruned.
        rows: for each layer alone, by each sparsity, in the order of definition.
        together: all layers, by each sparsity.
        start: layer → the share that its masks prune already.
        costs: parameters and MACs that are left with any choice of sparsities.
    """

    images: int
    accuracy: float
    loss: float
    config: PruneConfig
    rows: tuple[PrunedLayer, ...]
    together: tuple[PrunedLayer, ...]
    start: Mapping[str, float]
    costs: Costs = field(repr=False)

    def __iter__(self) -> Iterator[PrunedLayer]:
        return iter(self.rows)

    def by_layer(self) -> dict[str, tuple[PrunedLayer, ...]]:
        """Layer → its rows, in the order of sparsities."""
        names = dict.fromkeys(row.name for row in self.rows)
        return {name: tuple(row for row in self.rows if row.name == name) for name in names}

    def __getitem__(self, key: Any) -> Any:
        name, sparsity = key if isinstance(key, tuple) else (key, None)
        found = tuple(row for row in self.rows if name in row.layers)
        if sparsity is not None:
            found = tuple(row for row in found if row.sparsity == sparsity)
        if not found:
            raise KeyError(
                f"{key!r} was not measured; there are {', '.join(self.by_layer())} at "
                f"{', '.join(map(str, self.config.sparsities or ()))}"
            )
        return found if sparsity is None else found[0]

    def to_list(self) -> list[dict[str, Any]]:
        """The rows as JSON values, those of all layers last."""
        return [asdict(row) for row in (*self.rows, *self.together)]

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON values."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "config": self.config.to_dict(),
            "layers": [asdict(row) for row in self.rows],
            "together": [asdict(row) for row in self.together],
        }

    def table(self) -> Table:
        """Accuracy for each layer (down) and sparsity (across)."""
        sparsities = self.config.sparsities or ()
        head = ("layer", "type", "weights", *(f"{s:.4g}" for s in sparsities))
        whole = (f"{self.accuracy:.2%}",) + ("",) * (len(sparsities) - 1)
        lines = [("not pruned", "", "", *whole)]
        for rows in (*self.by_layer().values(), self.together):
            name = ", ".join(rows[0].layers) or rows[0].name or "(model)"
            values = (f"{row.accuracy:.2%}" for row in rows)
            lines.append((name, rows[0].kind, f"{rows[0].weights:,}", *values))
        return table_of(head, lines, words=2)

    def __str__(self) -> str:
        return as_text(self.table())


def pruning_sensitivity(
    model: nn.Module,
    config: PruneConfig,
    data: Dataset,
    *,
    gradients: Dataset | None = None,
    workers: Workers | int | str | None = "auto",
) -> PruneSensitivity:
    """Prune one layer at a time and measure the model. It is :func:`tinycompress.sensitivity`.

    Args:
        model: a trained model; it is not changed.
        config: by how much, by which criterion and in which structure.
        data: images and labels to measure on, not those of the final test.
        gradients: samples to take derivatives on, for criteria that want them (None: the first 512
            of ``data``).
        workers: as for :func:`tinycompress.evaluate`.

    Raises:
        ValueError: there is nothing to prune, or something cannot be (a layer that is pruned
            further already, say). Nothing was measured then.
    """
    check_labels("sensitivity", data)
    few = data.take(min(GRADIENT_IMAGES, len(data))) if gradients is None else gradients
    kind = _Channels if config.structure == "channel" else _Weights
    pruner = kind(model, config, few)
    shares = config.sparsities or ()
    masks = {(name, s): pruner.masks([name], s) for name in pruner.sets for s in shares}
    everything = {s: pruner.masks(list(pruner.sets), s) for s in shares}
    costs = pruner.costs(tuple(data.images.shape[1:]), masks)
    with team_of(workers) as team:
        reference = Reference("sensitivity", model, data, team)
        rows = [
            _row(model, reference, name, pruner.sets[name], s, m) for (name, s), m in masks.items()
        ]
        every = tuple(layer for layers in pruner.sets.values() for layer in layers)
        last = [_row(model, reference, "all layers", every, s, m) for s, m in everything.items()]
    before = reference.before
    start = {name: pruner.start(name) for name in pruner.sets}
    together = tuple(PrunedLayer(**{**vars(row), "layers": ()}) for row in last)
    return PruneSensitivity(
        len(data), before.accuracy, before.loss, config, tuple(rows), together, start, costs
    )


def _row(
    model: nn.Module,
    reference: Reference,
    name: str,
    layers: tuple[str, ...],
    sparsity: float,
    masks: Masks,
) -> PrunedLayer:
    thin = model.copy()
    apply_masks(thin, masks)
    weights = [to_numpy(thin.get_submodule(layer).weight.data) for layer in layers]
    one = model if name == "all layers" else model.get_submodule(name)
    return PrunedLayer(
        name=name,
        layers=layers,
        kind=type(one).__name__,
        sparsity=sparsity,
        zeros=sum(int((w == 0).sum()) for w in weights),
        weights=sum(w.size for w in weights),
        **reference.costs(reference.of(thin)),
    )


class _Weights:
    """Single weights, kernels, rows, n of m: each layer by itself."""

    def __init__(self, model: nn.Module, config: PruneConfig, few: Dataset) -> None:
        self.model, self.config, self.few = model, config, few
        self.unit = parse_structure(config.structure)
        self.layers = prunable_weights(model, config.skip)
        having = [name for name, p in self.layers.items() if self.unit.prunes(p.shape)]
        self.sets = {name: (name,) for name in having or self.layers}

    def masks(self, names: Sequence[str], sparsity: float) -> Masks:
        c = self.config
        return choose_masks(
            self.model,
            dict.fromkeys(names, sparsity),
            c.importance,
            structure=c.structure,
            skip=c.skip,
            keep_at_least=c.keep_at_least,
            data=self.few,
            objective=c.objective,
            seed=c.seed,
        )

    def costs(self, images: tuple[int, ...], masks: Mapping[tuple[str, float], Masks]) -> Costs:
        kept = {}
        for name in self.sets:
            w = to_numpy(self.layers[name].data) != 0
            own = [masks[name, s][name] for s in self.config.sparsities or ()]
            kept[name] = [int(w.sum()), *(int((w & mask).sum()) for mask in own)]
        return costs_of_weights(self.model, images, kept)

    def start(self, name: str) -> float:
        """The share of units that a mask prunes already."""
        p = self.layers[name]
        if p.mask is None:
            return 0.0
        kept = self.unit.rows(to_numpy(p.mask)).any(axis=1)
        return float(1 - kept.mean())


class _Channels:
    """Channels: each set of layers that are tied together by itself."""

    def __init__(self, model: nn.Module, config: PruneConfig, few: Dataset) -> None:
        self.model, self.config = model, config
        self.found, _ = follow(model, few)
        c = config
        self.options = Options(
            c.importance, "local", few, c.objective, c.skip, c.keep_at_least, c.seed
        )
        sets = channel_sets(model, few, config.skip)
        if not sets:
            raise ValueError(
                f"sensitivity: no channel of {type(model).__name__} can go: all are its inputs or "
                "outputs, cannot be followed, or are skipped"
            )
        self.sets = {names[0]: names for names in sets}
        self.gone: dict[tuple[str, float], set[int]] = {}

    def masks(self, names: Sequence[str], sparsity: float) -> Masks:
        every = [layer for name in names for layer in self.sets[name]]
        amount = dict.fromkeys(every, sparsity)
        gone = choose_channels(self.model, self.found, amount, self.options)
        if len(names) == 1:
            self.gone[names[0], sparsity] = gone
        return masks_of(self.model, self.found, gone)

    def costs(self, images: tuple[int, ...], masks: Mapping[tuple[str, float], Masks]) -> Costs:
        shares = self.config.sparsities or ()
        gone = {name: [set(), *(self.gone[name, s] for s in shares)] for name in self.sets}
        return costs_of_channels(self.model, images, self.found, gone)

    def start(self, name: str) -> float:
        return 0.0
