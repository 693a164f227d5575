"""Gradual pruning: a little at a time while the network is trained, and what is gone stays gone.

Zhu & Gupta 2017, arXiv:1710.01878. The network loses few weights at once and repairs the damage
before the next ones go, and those that are left are ranked anew each time. At each pruning the
sparsity is that of the schedule (``ramp.py``), and of n weights ``round(s·n)`` are zero, as in one
shot (``one_shot.py``): masks only grow.

n:m has one sparsity, so there the structure itself falls, from m:m to n:m, one weight of each group
after the other (Kao et al. 2022, arXiv:2209.07617)::

    k:m is kept, with k = max(n, ⌈m (1 − s_t)⌉)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.amounts import (
    as_patterns,
    check_scope,
    check_seed,
    floors_of,
    pools,
)
from tinycompress.compress.prune.importance import Importance, criterion
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.masks import apply_masks, parameters_of
from tinycompress.compress.prune.one_shot import choose_masks
from tinycompress.compress.prune.ramp import Ramp, Schedule
from tinycompress.compress.prune.structure import Structure, parse_structure
from tinycompress.data import Dataset
from tinycompress.train.objective import Objective

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class GradualPruning(Ramp):
    """Prune during ``fit``: ``fit(model, train, 10, callbacks=[GradualPruning(0.95)])``.

    The model's own weights are zeroed and masked, in place. After the run ``sparsity`` of them are
    zero, exactly, as :func:`tinycompress.prune` counts; a run that ends before is an error.

    Args:
        sparsity: the share of weights to be zero in the end, 0 ≤ s < 1; or a share for each layer
            by name or pattern, the others being left alone. With a structure n:m leave it out.
        schedule: "cubic", "linear", "exponential", or a function (t, final, initial) -> sparsity
            of progress t, 0 … 1. Where it asks for less than is pruned already, nothing is done.
        begin: where to begin: a number of updates, or as a float a share of the run.
        end: where to end, likewise; the rest of the run repairs.
        every: updates between two prunings; None for a hundredth of ``end − begin``.
        initial: the sparsity at ``begin``.
        importance, scope, structure, skip, keep_at_least, data, objective, seed: as for
            :func:`tinycompress.prune`; what must stay must leave room for the target. With criteria
            that look at derivatives, each pruning goes through ``data`` once.

    Raises:
        ValueError: an argument out of range; when the run begins, an unknown layer or criterion,
            or an ``end`` after the run's last step.
        TypeError: an argument of another type.
        RuntimeError: at the end of a run that was stopped before ``end``.
    """

    settings = ("importance", "scope", "structure", "skip", "keep_at_least", "seed")

    def __init__(
        self,
        sparsity: float | Mapping[str, float] | None = None,
        *,
        schedule: str | Schedule = "cubic",
        begin: float = 0,
        end: float = 0.75,
        every: int | None = None,
        importance: str | Importance = "magnitude",
        scope: str = "global",
        structure: str = "weight",
        skip: str | Iterable[str] = (),
        keep_at_least: float | Mapping[str, float] = 1,
        data: Dataset | None = None,
        objective: Objective | None = None,
        seed: int = 0,
        initial: float = 0.0,
    ) -> None:
        self._unit = None if structure == "channel" else parse_structure(structure)
        if self._unit is None or not self._unit.m:
            if sparsity is None:
                raise ValueError("GradualPruning needs a sparsity, such as 0.9")
        elif sparsity is None:
            sparsity = self._unit.sparsity
        super().__init__(sparsity, schedule, begin, end, every, initial)
        check_scope(scope)
        check_seed(seed)
        self.importance, self.scope, self.structure = importance, scope, structure
        self.skip = as_patterns("skip", skip)
        self.keep_at_least, self.data, self.objective = keep_at_least, data, objective
        self.seed = seed

    def check(self, run: Run) -> None:
        self.check_model(run.model)

    def check_model(self, model: nn.Module) -> None:
        """Raise where this model cannot be pruned to the target; it is only read."""
        self._check_criterion()
        choose_masks(model, self.amounts(1.0), "magnitude", **self._options(self.structure))
        if self._unit is not None and not self._unit.m:
            refuse_floors(self, model, self._unit)

    def _check_criterion(self) -> None:
        if self._unit is not None and not callable(self.importance):
            looks = criterion(self.importance, self.seed).gradients in ("required", "batch")
            if looks and self.data is None:
                raise ValueError(
                    f"GradualPruning: importance {self.importance!r} looks at the derivative of "
                    "the loss: give data=, a Dataset of images and labels to take it on"
                )

    def on_fit_end(self, run: Run) -> None:
        super().on_fit_end(run)
        self.refuse_short(run.model)

    def refuse_short(self, model: nn.Module, t: float = 1.0) -> None:
        """Raise where the masks of ``model`` do not reach what is asked for at progress t."""
        amounts, structure = self._asked(t)
        if structure is not None:
            options = self._options(structure) | {"or_more": True}
            masks = choose_masks(model, amounts, "magnitude", **options)
            refuse_lost(self, model, masks)

    def prune_to(self, run: Run, t: float, step: int) -> None:
        self.prune(run.model, t)

    def prune(self, model: nn.Module, t: float) -> None:
        """Prune ``model`` in place as at progress t, 0 … 1."""
        amounts, structure = self._asked(t)
        if structure is None:
            return
        options = self._options(structure) | {"objective": self.objective, "seed": self.seed}
        options["or_more"] = True
        apply_masks(model, choose_masks(model, amounts, self.importance, **options))

    def _options(self, structure: str | None) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "structure": structure,
            "skip": self.skip,
            "keep_at_least": self.keep_at_least,
            "data": self.data,
        }

    def _asked(self, t: float) -> tuple[Any, str | None]:
        """The sparsity and the structure at progress t; None where nothing is to be pruned yet."""
        amounts = self.amounts(t)
        unit = self._unit
        if unit is not None and unit.m:
            share = max(amounts.values()) if isinstance(amounts, Mapping) else amounts
            k = max(unit.n, math.ceil(unit.m * (1 - share) - 1e-9))
            if isinstance(amounts, Mapping):
                amounts = dict.fromkeys(amounts, 1 - k / unit.m)
            else:
                amounts = None
            return amounts, f"{k}:{unit.m}" if k < unit.m else None
        return amounts, self.structure


def refuse_floors(ramp: Any, model: nn.Module, unit: Structure) -> None:
    """Raise where so much is to stay that the target of ``ramp`` cannot be reached."""
    weights = prunable_weights(model, ramp.skip)
    sizes = {name: unit.count(p.shape) for name, p in weights.items() if unit.prunes(p.shape)}
    floors = floors_of(ramp.keep_at_least, sizes, units=unit.units)
    for names, count in pools(sizes, ramp.amounts(1.0), ramp.scope):
        units, stay = (sum(of[n] for n in names) for of in (sizes, floors))
        if units - count < stay:
            raise ValueError(
                f"{type(ramp).__name__}: of the {units:,} {unit.units} of {', '.join(names)} "
                f"{units - count:,} are to be left at the end, and keep_at_least="
                f"{ramp.keep_at_least!r} wants {stay:,}; ask for less sparsity, or keep less"
            )


def refuse_lost(ramp: Any, model: nn.Module, masks: Mapping[str, Any]) -> None:
    """Raise where pruning to the target once more would prune what has no mask."""
    here = parameters_of(model, masks)
    for name, mask in masks.items():
        has = here[name].mask
        missing = int((~mask).sum()) - (0 if has is None else int((~to_numpy(has)).sum()))
        if missing > 0:
            raise RuntimeError(
                f"{type(ramp).__name__}: {missing:,} weights of {name!r} that were pruned have no "
                "mask at the end of the run; something took their mask off"
            )
