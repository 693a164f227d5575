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
from tinycompress.nn import Identity, Module, ModuleList
from tinycompress.tensor import Tensor

MEANS = ("logits", "probabilities")
TINY = 1e-30  # a probability that float32 can hold; its logarithm is finite
MOST = 1_000  # models in a file, which costs little to ask for that many


class Ensemble(Module):
    """Models that answer as one: images → (N, K) logits.

    Args:
        models: at least one, with the same classes. They are held, not copied. None: as many empty
            places as there are weights, which the reader of a file fills.
        weights: ≥ 0, one for each, divided by their sum; None: alike.
        mean: "logits" or "probabilities".

    Raises:
        TypeError, ValueError: no models, weights that do not fit, another mean; when it is called,
            models with other numbers of classes.
    """

    def __init__(
        self,
        models: Sequence[Module] | None,
        weights: Sequence[float] | None = None,
        mean: str = "logits",
    ) -> None:
        super().__init__()
        if mean not in MEANS:
            raise ValueError(f"Ensemble: mean must be one of {', '.join(MEANS)}, got {mean!r}")
        members = teacher_list(_places(weights) if models is None else models)
        self.weights, self.mean = teacher_shares(weights, len(members)), mean
        self.given = [1.0] * len(members) if weights is None else [float(w) for w in weights]
        self.members = ModuleList(members)

    def forward(self, x: Any) -> Tensor:
        total: Any = None
        for weight, member in zip(self.weights, self.members, strict=True):
            z = member(x)
            if total is not None and z.shape != total.shape:
                raise ValueError(
                    "Ensemble: all models must tell the same classes apart, got outputs of "
                    f"{total.shape} and {z.shape}"
                )
            part = weight * (z if self.mean == "logits" else F.softmax(z, axis=1))
            total = part if total is None else total + part
        return total if self.mean == "logits" else total.clamp(min=TINY).log()

    def config(self) -> dict[str, Any]:
        """What a file says of it, beside its models; ``students.py`` lets files name the class."""
        return {"models": None, "weights": self.given, "mean": self.mean}


def _places(weights: Sequence[float] | None) -> list[Module]:
    if weights is None or len(weights) > MOST:
        raise ValueError(f"Ensemble: without models there must be 1 to {MOST:,} weights")
    return [Identity() for _ in weights]
