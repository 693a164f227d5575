"""A mask, bit by bit, each foretold by a neuron: the network that codes a network.

Pruning leaves patterns. Some outputs keep many weights and some inputs matter to everyone; and a
weight whose neighbour was kept, the pixel to its left or the one above, is often kept itself. So
the probability that a weight was kept, given all that come before it in row-major order, is that
of a logistic regression with few inputs:

    logit = bias + column · ln((a + 1) / (A + 1))     a weights kept in this column so far,
                                                      A in an average one
                 + row · ln((b + 1) / (B + 1))        b weights kept in this row so far, B expected
                                                      from bias and column alone
                 + lag₁ · [kept l₁ before] + …        … in the same row

A range coder then spends −log₂ of that probability. The weights of the neuron stand in the file,
a byte each; the encoder has fitted them (``neuron_fit.py``), the decoder need not learn. Rows and
columns without any weight are told beforehand and left out.

Both sides must get the same probabilities to the bit. So everything here is in whole numbers:
weights in 1/16, logits in 1/256, probabilities in 1/65536, logarithms and the sigmoid from tables
whose entries, rounded, are the same with any arithmetic. Read ``range_coder.py`` before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from tinycompress.format.adaptive import AdaptiveBit, Coder
from tinycompress.format.range_coder import BITS, WHOLE

LOGIT = 256  # units of a logit
STEADY = 11 * LOGIT  # a logit beyond which probabilities stay as they are: 1/65536
REACH = 1 << 16  # of the table: more than a bias, a row and all lags can add up to
COUNTS = 1 << 16  # of the table of logarithms; what is larger is taken as its end


@dataclass(frozen=True)
class Neuron:
    """Weights in 1/16, each from −128 to 127; ``lags`` are pairs (distance, weight)."""

    bias: int
    column: int
    row: int
    lags: tuple[tuple[int, int], ...]


@cache
def probabilities() -> np.ndarray:
    """65536 / (1 + e^(−z)) for logits z from −``REACH`` to ``REACH``, rounded, from 1 to 65535."""
    logits = np.clip(np.arange(-REACH, REACH + 1), -STEADY, STEADY) / LOGIT
    return np.clip(np.rint(WHOLE / (1 + np.exp(-logits))), 1, WHOLE - 1).astype(np.int64)


@cache
def logarithms() -> np.ndarray:
    """256 · ln n, rounded, for n from 1; that of 0 is not used."""
    return np.rint(LOGIT * np.log(np.maximum(np.arange(COUNTS), 1))).astype(np.int64)


@cache
def probability_list() -> list[int]:
    return probabilities().tolist()


@cache
def logarithm_list() -> list[int]:
    return logarithms().tolist()


def log_of(quarters: np.ndarray) -> np.ndarray:
    """256 · (ln(c + 1) + ln 4), of counts c in quarters: 4c, so that a mean keeps its fraction.

    The constant is gone where two are compared.
    """
    return logarithms()[np.minimum(quarters + 4, COUNTS - 1)]


def column_logits(neuron: Neuron, counts: np.ndarray) -> np.ndarray:
    """bias + column · ln(…) for each column in which any weight was kept.

    Args:
        counts: of weights kept so far, by column.
    """
    average = 4 * counts.sum() // len(counts)
    ratios = log_of(4 * counts) - log_of(average)
    return np.clip(16 * neuron.bias + (neuron.column * ratios >> 4), -STEADY, STEADY)


def code_mask(
    coder: Coder, neuron: Neuron, rows: np.ndarray, columns: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """The mask, written by an encoder or read by a decoder, which ignores what is given.

    Args:
        rows, columns: numbers of those that hold any weight, ascending, from :func:`code_flags`.
        mask: bool, (rows, columns) with the dead ones; the result is of this shape.
    """
    kept = np.zeros_like(mask)
    counts = np.zeros(len(columns), np.int64)
    for r in rows.tolist() if len(columns) else ():
        logits = column_logits(neuron, counts)
        kept[r] = _code_row(coder, neuron, logits, columns, mask[r])
        counts += kept[r, columns]
    return kept


def code_flags(coder: Coder, flags: np.ndarray) -> np.ndarray:
    """Which flags are set; a flag is often as the one before. Written or read, as the mask."""
    models, before = (AdaptiveBit(), AdaptiveBit()), 1
    found: list[int] = []
    for i, flag in enumerate(flags.tolist()):
        before = models[before].code(coder, flag)
        if before:
            found.append(i)
    return np.array(found, np.int64)


def _code_row(
    coder: Coder, neuron: Neuron, logits: np.ndarray, columns: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """One row of the mask; ``logits`` are those of ``columns``, before it is known."""
    chances = probabilities()[logits + REACH]
    expected = log_of(np.cumsum(chances) - chances >> BITS - 2)
    places = np.full(len(mask) + max((lag for lag, _ in neuron.lags), default=0), REACH)
    places[columns] += logits - (neuron.row * expected >> 4)
    logit, table, bits = places.tolist(), probability_list(), mask.tolist()
    lags = [(lag, 16 * weight) for lag, weight in neuron.lags]
    logs, kept = logarithm_list(), []
    row = neuron.row * logs[4] >> 4
    for j in columns.tolist():
        if coder.bit(table[logit[j] + row], bits[j]):
            kept.append(j)
            row = neuron.row * logs[min(4 * len(kept) + 4, COUNTS - 1)] >> 4
            for lag, weight in lags:
                logit[j + lag] += weight
    found = np.zeros(len(mask), bool)
    found[kept] = True
    return found
