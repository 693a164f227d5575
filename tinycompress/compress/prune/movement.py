"""Movement pruning: weights go that training moves towards zero, not those that are small.

Sanh, Wolf & Rush 2020, arXiv:2005.07683. Every weight has a score that adds up, over the steps of
training, what a gradient step does to its size::

    S <- S − W ∘ ∂L/∂w          > 0 where the step moves W away from zero

It is the gradient of the scores themselves, if the mask were trained with a straight-through
estimator. The form here is the *hard* one, the top v of the scores: at each pruning the weights
with the highest scores are kept, as many as the schedule says, and all others are zero. (The soft
form, a threshold on S with a penalty, has no exact sparsity.)

The gradient is that by the masked weight w = W ∘ T and pruned weights have one too, so their scores
go on, and a weight may come back, with the value it had (``latent.py``). As in the paper a pruned W
does not move: T is the parameter's mask at all times. Made for fine-tuning, where weights that were
large before are not those that the new task needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tinycompress.backend import Array, array_module, device_of, on_device, to_device, to_numpy
from tinycompress.compress.prune.amounts import as_patterns, check_scope
from tinycompress.compress.prune.gradual import refuse_floors, refuse_lost
from tinycompress.compress.prune.latent import DenseWeights
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.masks import apply_masks
from tinycompress.compress.prune.one_shot import choose_masks
from tinycompress.compress.prune.ramp import Ramp, Schedule
from tinycompress.compress.prune.structure import parse_structure
from tinycompress.compress.prune.surgery import refuse_masks

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class MovementPruning(Ramp):
    """Prune by movement during ``fit``: ``fit(…, callbacks=[MovementPruning(0.9)])``.

    Args:
        sparsity, schedule, begin, end, every, initial: as for :class:`~.gradual.GradualPruning`.
        scope: "global" ranks the scores of all layers together, "local" each layer's.
        structure: "weight", "kernel" or "row"; a unit's score is the sum of its weights'.
        skip, keep_at_least: as for :func:`tinycompress.prune`.

    Raises:
        ValueError: an argument out of range; when the run begins, an unknown layer, a model that
            is pruned already, or an ``end`` after the run's last step.
        TypeError: an argument of another type.
        RuntimeError: at the end of a run that was stopped before ``end``.
    """

    alone = True
    settings = ("scope", "structure", "skip", "keep_at_least")

    def __init__(
        self,
        sparsity: float | Mapping[str, float],
        *,
        schedule: str | Schedule = "cubic",
        begin: float = 0,
        end: float = 0.75,
        every: int | None = None,
        scope: str = "global",
        structure: str = "weight",
        skip: str | Iterable[str] = (),
        keep_at_least: float | Mapping[str, float] = 1,
        initial: float = 0.0,
    ) -> None:
        if sparsity is None:
            raise ValueError("MovementPruning needs a sparsity, such as 0.9")
        super().__init__(sparsity, schedule, begin, end, every, initial)
        check_scope(scope)
        self._unit = None if structure == "channel" else parse_structure(structure)
        if self._unit is None or self._unit.m:
            raise ValueError(
                f"MovementPruning: structure must be 'weight', 'kernel' or 'row', got {structure!r}"
            )
        self.scope, self.structure, self.keep_at_least = scope, structure, keep_at_least
        self.skip = as_patterns("skip", skip)
        self._weights: DenseWeights | None = None
        self._scores: dict[str, Array] = {}
        self._loaded: dict[str, Any] = {}

    def check(self, run: Run) -> None:
        if self.last == 0 or (self.first == 0 and self.initial):
            raise ValueError(
                "MovementPruning: before the first update nothing has moved; give initial=0, or "
                "begin and end later"
            )
        masks = self._choose(run, 1.0, "magnitude")
        if run.step == 0:
            layers = prunable_weights(run.model, self.skip)
            refuse_masks(type(self).__name__, {name: layers[name] for name in masks})
        assert self._unit is not None
        refuse_floors(self, run.model, self._unit)

    def ready(self, run: Run) -> None:
        self._start(run, None)

    def again(self, run: Run) -> None:
        if run.step < self.last:
            self._start(run, self._loaded)

    def _start(self, run: Run, state: Mapping[str, Any] | None) -> None:
        layers = prunable_weights(run.model, self.skip)
        names = list(self._choose(run, 1.0, "magnitude"))
        self._weights = DenseWeights({name: layers[name] for name in names}, state)
        self._scores = {}
        for name, w in self._weights.dense.items():
            with on_device(w):
                zeros = array_module(w).zeros_like(w)
            self._scores[name] = (
                zeros if state is None else to_device(state[f"score.{name}"], device_of(w))
            )

    def on_step_end(self, run: Run) -> None:
        if self._weights is not None:
            for name, p in self._weights.parameters.items():
                if p.grad is not None:  # W is still what the gradient was taken at
                    with on_device(p.data):
                        self._scores[name] -= self._weights.dense[name] * p.grad
            self._weights.follow()
        super().on_step_end(run)

    def prune_to(self, run: Run, t: float, step: int) -> None:
        assert self._weights is not None
        masks = self._choose(run, t, {n: to_numpy(s) for n, s in self._scores.items()})
        self._weights.set_kept(masks)
        apply_masks(run.model, masks)
        if step == self.last:
            self._weights, self._scores = None, {}

    def _choose(self, run: Run, t: float, importance: Any) -> dict[str, Any]:
        return choose_masks(
            run.model,
            self.amounts(t),
            importance,
            self.scope,
            structure=self.structure,
            skip=self.skip,
            keep_at_least=self.keep_at_least,
            regrow=True,
        )

    def on_fit_end(self, run: Run) -> None:
        super().on_fit_end(run)
        options: dict[str, Any] = {"structure": self.structure, "skip": self.skip}
        options |= {"scope": self.scope, "keep_at_least": self.keep_at_least}
        refuse_lost(self, run.model, choose_masks(run.model, self.amounts(1.0), **options))

    def state_dict(self) -> dict[str, Any]:
        arrays = {} if self._weights is None else self._weights.state_dict()
        scores = {f"score.{name}": s for name, s in self._scores.items()}
        return super().state_dict() | arrays | scores

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._loaded = state
