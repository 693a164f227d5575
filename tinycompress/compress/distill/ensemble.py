"""An ensemble: several models that answer as one, and so can be one teacher.

Two means of what they say, with weights w_i that add up to 1:

    mean="logits"         z = Σ w_i z_i              the geometric mean of their probabilities
    mean="probabilities"  z = ln Σ w_i softmax(z_i)  the arithmetic mean

Hinton, Vinyals & Dean 2015 (section 2) name both. The mean of logits is the default because it goes
with every temperature: softmax(z / T) is the geometric mean of the members' *softened*
probabilities. The mean of probabilities is taken at T = 1, and softening it afterwards shows little
of what the members thought of unlikely classes; a student of it is better given the members
themselves, ``distill([a, b, c], …)``, whose softened probabilities are averaged at the temperature
of the loss (``objective.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinycompress import functional as F
from tinycompress.compress.distill.objective import teacher_list, teacher_shares
from tinycompress.nn import Module, ModuleList
from tinycompress.tensor import Tensor

MEANS = ("logits", "probabilities")
TINY = 1e-30  # a probability that float32 can hold; its logarithm is finite


class Ensemble(Module):
    """Models that answer as one: images → (N, K) logits.

    Args:
        models: at least one, with the same classes. They are held, not copied.
        weights: ≥ 0, one for each, divided by their sum; None: alike.
        mean: "logits" or "probabilities".

    Raises:
        TypeError, ValueError: no models, weights that do not fit, another mean.
    """

    def __init__(
        self,
        models: Sequence[Module],
        weights: Sequence[float] | None = None,
        mean: str = "logits",
    ) -> None:
        super().__init__()
        if mean not in MEANS:
            raise ValueError(f"Ensemble: mean must be one of {', '.join(MEANS)}, got {mean!r}")
        members = teacher_list(models)
        self.weights, self.mean = teacher_shares(weights, len(members)), mean
        self.members = ModuleList(members)

    def forward(self, x: Any) -> Tensor:
        total: Any = None
        for weight, member in zip(self.weights, self.members, strict=True):
            z = member(x)
            part = weight * (z if self.mean == "logits" else F.softmax(z, axis=1))
            total = part if total is None else total + part
        return total if self.mean == "logits" else total.clamp(min=TINY).log()
