"""Dynamic network surgery: pruned weights may come back.

Guo, Yao & Chen 2016, arXiv:1608.04493. A weight that was cut off too early is a mistake that
gradual pruning cannot mend. Here the dense weights W live on behind the mask (``latent.py``), moved
by gradients as if they were not pruned, and every now and then the mask T is made anew, in layer l
with two thresholds a_l < b_l (equation 3)::

    T = 0 where |W| < a_l,     T = 1 where |W| ≥ b_l,     as it was in between

so that weights near the threshold do not come and go. With a margin m, a_l = (1 − m) θ_l and
b_l = (1 + m) θ_l, and θ_l is

- for ``spread`` = c: ``max(0, mean + c·std)`` of |W| of that layer when surgery begins; or
- for ``sparsity`` = s: the number with which exactly ``round(s·n)`` weights are pruned. With
  ``score = |W| / (1 − m)`` where T = 1 and ``|W| / (1 + m)`` where T = 0, the rule above is
  ``T = (score ≥ θ)``, so θ lies where ranking by score cuts.

T is not made anew at each occasion, but with a probability that falls with the number of steps k
since the beginning, for the network to settle (section 3.3)::

    σ(k) = (1 + gamma·k)^(−power)

At ``end`` T is made for the last time, and becomes the parameters' mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.amounts import (
    as_patterns,
    by_layer,
    check_scope,
    check_seed,
    floors_of,
)
from tinycompress.compress.prune.gradual import refuse_floors, refuse_lost
from tinycompress.compress.prune.latent import DenseWeights
from tinycompress.compress.prune.layers import check_finite
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.one_shot import choose_masks
from tinycompress.compress.prune.ramp import Ramp, Schedule
from tinycompress.compress.prune.selection import lowest
from tinycompress.compress.prune.structure import parse_structure

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class DynamicSurgery(Ramp):
    """Surgery during ``fit``: ``fit(model, train, 10, callbacks=[DynamicSurgery(0.95)])``.

    Give either ``sparsity`` or ``spread``. Until ``end`` the parameters have no masks, though what
    is pruned is zero in every forward and backward pass; from then on they have. Weight decay moves
    weights that are there and not those that are pruned.

    Args:
        sparsity: the share of weights to be zero in the end, exactly; or a share for each layer by
            name or pattern.
        spread: c of the thresholds from mean and deviation, or a number for each layer by name or
            pattern; how much is pruned then follows from the weights.
        margin: m, 0 ≤ m < 1, by how much the thresholds lie apart.
        schedule, begin, end, initial: of the sparsity, as for :class:`~.gradual.GradualPruning`;
            with ``spread`` there is nothing to schedule but begin and end.
        every: updates between two occasions; None for a hundredth of ``end − begin``.
        gamma, power: of the probability σ(k), both ≥ 0.
        scope: whether a sparsity is that of all layers ("global") or of each ("local").
        skip: names or patterns of layers to leave alone.
        keep_at_least: how much of each layer stays, as for :func:`tinycompress.prune`.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range; when the run begins, an unknown layer, a model that
            is pruned already, or an ``end`` after the run's last step.
        TypeError: an argument of another type.
        RuntimeError: at the end of a run that was stopped before ``end``.
    """

    alone = True
    settings = ("spread", "margin", "gamma", "power", "scope", "skip", "keep_at_least", "seed")

    def __init__(
        self,
        sparsity: float | Mapping[str, float] | None = None,
        *,
        spread: float | Mapping[str, float] | None = None,
        margin: float = 0.1,
        schedule: str | Schedule = "cubic",
        begin: float = 0,
        end: float = 0.75,
        every: int | None = None,
        gamma: float = 1e-3,
        power: float = 1.0,
        scope: str = "global",
        skip: str | Iterable[str] = (),
        keep_at_least: float | Mapping[str, float] = 1,
        seed: int = 0,
        initial: float = 0.0,
    ) -> None:
        if (sparsity is None) == (spread is None):
            raise ValueError("DynamicSurgery needs either a sparsity, such as 0.9, or a spread")
        super().__init__(sparsity, schedule, begin, end, every, initial)
        check_scope(scope)
        check_seed(seed)
        _check_number("margin", margin, 1.0)
        _check_number("gamma", gamma)
        _check_number("power", power)
        self.spread = dict(spread) if isinstance(spread, Mapping) else spread
        for value in self.spread.values() if isinstance(self.spread, dict) else [spread or 0.0]:
            _check_number("spread", value, low=-math.inf)
        self.margin, self.gamma, self.power, self.scope = margin, gamma, power, scope
        self.skip = as_patterns("skip", skip)
        self.keep_at_least, self.seed = keep_at_least, seed
        self._weights: DenseWeights | None = None
        self._centres: dict[str, float] = {}  # θ of each layer, with spread
        self._loaded: dict[str, Any] = {}

    # ------------------------------------------------------------------------------- in training

    def check(self, run: Run) -> None:
        weights = self._layers(run.model)
        check_finite(weights)
        refuse_masks(type(self).__name__, weights)
        if self.sparsity is not None:
            self._target(run.model)
            refuse_floors(self, run.model, parse_structure("weight"))
        self._floors(weights)

    def ready(self, run: Run) -> None:
        self._weights, self._centres = DenseWeights(self._layers(run.model)), {}

    def again(self, run: Run) -> None:
        if run.step < self.last:
            self._weights = DenseWeights(self._layers(run.model), self._loaded)

    def on_step_end(self, run: Run) -> None:
        if self._weights is not None:
            self._weights.follow()
        super().on_step_end(run)

    def prune_to(self, run: Run, t: float, step: int) -> None:
        weights = self._weights
        assert weights is not None
        if self.spread is not None and not self._centres:
            self._centres = self._find_centres(weights)
        if step < self.last and not self._is_drawn(step):
            return
        masks = self._by_rank(run.model, t) if self.spread is None else self._by_thresholds()
        weights.set_kept(masks)
        if step == self.last:
            apply_masks(run.model, masks)
            self._weights = None

    def on_fit_end(self, run: Run) -> None:
        super().on_fit_end(run)
        if self.sparsity is not None:
            refuse_lost(self, run.model, self._target(run.model))

    def _target(self, model: nn.Module) -> dict[str, np.ndarray]:
        """What pruning to the target in one shot would leave."""
        return choose_masks(
            model,
            self.amounts(1.0),
            scope=self.scope,
            skip=self.skip,
            keep_at_least=self.keep_at_least,
        )

    # ---------------------------------------------------------------------------------- the mask

    def probability(self, step: int) -> float:
        """σ: that T is made anew, so many updates after the first occasion."""
        return (1 + self.gamma * step) ** -self.power

    def _is_drawn(self, step: int) -> bool:
        """A draw of this step's own, so that a resumed run draws the same."""
        return np.random.default_rng([self.seed, step]).random() < self.probability(
            step - self.first
        )

    def _by_rank(self, model: nn.Module, t: float) -> dict[str, np.ndarray]:
        assert self._weights is not None
        scores = {}
        for name, dense in self._weights.dense.items():
            kept = to_numpy(self._weights.kept[name])
            scores[name] = np.abs(to_numpy(dense).astype(np.float64))
            scores[name] /= np.where(kept, 1 - self.margin, 1 + self.margin)
        return choose_masks(
            model,
            self.amounts(t),
            scores,
            self.scope,
            skip=self.skip,
            keep_at_least=self.keep_at_least,
            regrow=True,
        )

    def _find_centres(self, weights: DenseWeights) -> dict[str, float]:
        spread = self._spreads(weights.parameters)
        sizes = {n: np.abs(to_numpy(w).astype(np.float64)) for n, w in weights.dense.items()}
        return {n: max(0.0, float(w.mean() + spread[n] * w.std())) for n, w in sizes.items()}

    def _by_thresholds(self) -> dict[str, np.ndarray]:
        weights, masks = self._weights, {}
        assert weights is not None
        floors = self._floors(weights.parameters)
        for name, dense in weights.dense.items():
            size, theta = np.abs(to_numpy(dense).astype(np.float64)), self._centres[name]
            kept = to_numpy(weights.kept[name]) & (size >= (1 - self.margin) * theta)
            kept |= size >= (1 + self.margin) * theta
            if kept.sum() < floors[name]:
                kept = ~lowest(size.ravel(), size.size - floors[name]).reshape(size.shape)
            masks[name] = kept
        return masks

    def _floors(self, weights: Mapping[str, nn.Parameter]) -> dict[str, int]:
        return floors_of(self.keep_at_least, {n: p.size for n, p in weights.items()})

    def _spreads(self, names: Iterable[str]) -> dict[str, float]:
        if isinstance(self.spread, dict):
            return by_layer("spread", self.spread, names)
        return dict.fromkeys(names, float(self.spread or 0.0))

    def _layers(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The layers that are operated on."""
        weights = self.layers(model)
        if isinstance(self.spread, dict):
            return {name: weights[name] for name in by_layer("spread", self.spread, weights)}
        return weights

    # ------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        arrays = {} if self._weights is None else self._weights.state_dict()
        return super().state_dict() | {"centres": self._centres} | arrays

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._centres, self._loaded = state["centres"], state


def refuse_masks(who: str, weights: Mapping[str, nn.Parameter]) -> None:
    """Raise where a layer is pruned already."""
    pruned = [name for name, p in weights.items() if p.mask is not None]
    if pruned:
        raise ValueError(
            f"{who}: {', '.join(map(repr, pruned))} have masks already, and here weights come and "
            "go; give the model from before it was pruned, tc.strip(model), or skip these layers"
        )


def _check_number(what: str, value: Any, below: float = math.inf, low: float = 0.0) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not (math.isfinite(value) and low <= float(value) < below):
        bounds = f"at least {low:g}" if below == math.inf else f"at least {low:g}, below {below:g}"
        raise ValueError(
            f"{what} must be {bounds if low == 0 else 'a finite number'}, got {value!r}"
        )
