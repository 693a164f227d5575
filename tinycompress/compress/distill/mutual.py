"""Mutual learning: no teacher at all; several students learn together, each from the others.

    L_k = CE(z_k, y) + weight / (M − 1) · Σ_{l ≠ k} T² · KL(p_l ‖ p_k)

Each is drawn towards what its M − 1 peers answer, which are constants to it. They start from other
weights and are wrong about other images, and what they agree on is more often right. Zhang et al.
2018, arXiv:1706.00384, equations 1 to 9 (T = 1, weight = 1).

The sum of all L_k has, by the weights of model k, the derivative of L_k alone. So a cohort is
trained like one model, by one call of ``fit``, and all members take a step at the same time, from
the same answers. (The paper updates them in turn, each seeing the others' latest step.)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinycompress import optim
from tinycompress.compress.distill.ensemble import Ensemble
from tinycompress.compress.distill.learning import asked_once, check_targets
from tinycompress.compress.distill.losses import check_weights, label_loss, soft_target_loss
from tinycompress.compress.distill.objective import teacher_list
from tinycompress.data import Dataset
from tinycompress.graph import no_grad
from tinycompress.nn import Module
from tinycompress.optim.checks import non_negative
from tinycompress.tensor import Tensor
from tinycompress.train.fit import fit


@dataclass(frozen=True)
class MutualObjective:
    """``objective(cohort, images, labels) -> (Σ L_k, mean logits)`` for an :class:`Ensemble`.

    Args:
        temperature: T > 0 of what peers answer.
        weight: ≥ 0, of the peers beside the labels.

    Raises:
        ValueError: a number out of range.
    """

    temperature: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weights(self.temperature, 1.0)
        non_negative("mutual learning: weight", self.weight)

    def __call__(
        self, cohort: Module, images: Any, labels: Any, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        logits = [member(images) for member in cohort.members]
        total: Any = None
        for k, z in enumerate(logits):
            loss = label_loss(z, labels)
            for peer in (*logits[:k], *logits[k + 1 :]):
                share = self.weight / (len(logits) - 1)
                loss = loss + soft_target_loss(z, peer, self.temperature, share)
            total = loss if total is None else total + loss
        with no_grad():
            return total, sum(logits[1:], start=logits[0]) / len(logits)


def mutual_learning(
    models: Sequence[Module],
    data: Dataset,
    *,
    epochs: int,
    temperature: float = 1.0,
    weight: float = 1.0,
    optimizer: optim.Optimizer | None = None,
    schedule: Any = None,
    **fit_options: Any,
) -> list[Module]:
    """Trained copies of ``models``, in their order, which learned from the labels and each other.

    Args:
        models: two or more with the same classes, of any architectures, with weights of their own.
        data: images and labels; rows of targets that are zeros (``transfer.py``) leave the peers.
        epochs, temperature, weight: see the top of this file.
        optimizer: over the parameters of all models:
            ``optim.SGD([p for m in models for p in m.parameters()], lr=0.05)``; None for Adam.
        schedule: made for it; both are copied together with the models.
        fit_options: whatever else ``fit`` takes. In the history, accuracy is that of the ensemble.

    Raises:
        TypeError, ValueError: fewer than two models, or the same one twice; models of other
            classes, or that do not take the images; data without labels, or with targets that are
            no shares; a number out of range.
    """
    if "objective" in fit_options:
        raise TypeError("mutual_learning brings its own objective; for another one, use fit")
    objective = MutualObjective(temperature, weight)
    if not isinstance(data, Dataset) or len(data.arrays) < 2:
        raise ValueError(
            f"mutual_learning: data must be a tc.data.Dataset with labels, got {data!r:.80}; where "
            "all or some are missing, make it with unlabelled, few_labels or joined"
        )
    members = teacher_list(models)
    if len(members) < 2 or len({id(m) for m in members}) < len(members):
        raise ValueError("mutual_learning needs two models or more, each another object")
    check_targets("mutual_learning", data, _check_classes(members, data))
    cohort, optimizer, schedule = copy.deepcopy((Ensemble(members), optimizer, schedule))
    fit(cohort, data, epochs, optimizer, objective=objective, schedule=schedule, **fit_options)
    return list(cohort.members)


def _check_classes(models: Sequence[Module], data: Dataset) -> int:
    """Ask all for one image; how many classes."""
    found = [
        asked_once(f"mutual_learning: model {k}", model, data).shape[1]
        for k, model in enumerate(models)
    ]
    if len(set(found)) > 1:
        raise ValueError(f"mutual_learning: the models tell {found} classes apart; make these one")
    return found[0]
