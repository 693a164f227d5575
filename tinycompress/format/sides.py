"""The values of the weights that were kept: on which side, foretold by neighbours; and how far.

In a trained layer a weight has the sign of its neighbours: a stroke of the pen goes over several
pixels. For codes of a codebook, which is sorted, the sign is the side of a *pivot* in the middle.
So a value is written as its side, whose probability is that of a logistic regression,

    logit = bias + lag₁ · s₁ + lag₂ · s₂ + …    sᵢ = 1 or −1, the side of the weight lᵢ before
                                                in the row, and 0 if there was none

and then its distance from the pivot, by an adaptive model for each side. The arithmetic is that of
``neuron.py``, which is to be read before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinycompress.format.adaptive import AdaptiveNumber, Coder
from tinycompress.format.neuron import REACH, probability_list


@dataclass(frozen=True)
class Sides:
    """Weights in 1/16, each from −128 to 127, and what the values are.

    Attributes:
        span: values are 0 … span − 1.
        pivot: the least value of the upper side.
        bias, lags: of the logistic regression; ``lags`` are pairs (distance, weight).
    """

    span: int
    pivot: int
    bias: int
    lags: tuple[tuple[int, int], ...]


def code_values(coder: Coder, sides: Sides, kept: np.ndarray, values: list[int]) -> list[int]:
    """The values where ``kept`` (rows, columns) is true, in row-major order.

    Written by an encoder, read by a decoder, which ignores ``values`` but for their number.
    """
    lower = AdaptiveNumber(max(sides.pivot - 1, 0).bit_length())
    upper = AdaptiveNumber(max(sides.span - sides.pivot - 1, 0).bit_length())
    table, given, found = probability_list(), iter(values), []
    lags = [(lag, 16 * weight) for lag, weight in sides.lags]
    blank = [REACH + 16 * sides.bias] * (kept.shape[1] + max((lag for lag, _ in lags), default=0))
    for row in kept:
        logit = blank.copy()
        for j in np.flatnonzero(row).tolist():
            value = next(given)
            above = _code_side(coder, sides, table[logit[j]], value)
            if above:
                found.append(sides.pivot + upper.code(coder, value - sides.pivot))
            else:
                found.append(sides.pivot - 1 - lower.code(coder, sides.pivot - 1 - value))
            for lag, weight in lags:
                logit[j + lag] += weight if above else -weight
    return found


def _code_side(coder: Coder, sides: Sides, chance: int, value: int) -> bool:
    if not 0 < sides.pivot < sides.span:
        return sides.pivot == 0  # there is one side only
    return bool(coder.bit(chance, value >= sides.pivot))
