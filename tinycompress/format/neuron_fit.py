"""The encoder's part: which neighbours foretell a mask and the sides of its values, and how well.

First, the distances at which two weights of a row are kept more often than by chance: all of them
at once, by autocorrelation. Then a logistic regression, by Newton's method (iteratively
reweighted least squares), on all weights that were kept and some of the others. Neighbours that
do not pay for their bytes are dropped, and the weights rounded. What comes out need not be the best
there is: whatever is in the file, the decoder does the same with it. Read ``neuron.py`` before.
"""

from __future__ import annotations

import numpy as np

from tinycompress.format.neuron import LOGIT, Neuron, log_of
from tinycompress.format.sides import Sides

CANDIDATES = 12  # neighbours that are tried
FARTHEST = 128
SAMPLE = 1 << 16  # weights that were not kept, to learn from
WORTH = 33.0  # (weight / its standard error)² of a neighbour that saves 3 bytes
ROUNDS = 6


def fit_neuron(mask: np.ndarray) -> Neuron:
    """The neuron for a mask (rows, columns) with at least one weight."""
    kept = mask[mask.any(1)]
    fit, lags = _Fit(kept), _candidates(kept)
    weights, errors = fit.weights(lags)
    chosen = [lag for lag, z in zip(lags, (weights / errors)[3:], strict=True) if z * z > WORTH]
    if len(chosen) < len(lags):
        weights, _ = fit.weights(chosen)
    bias, column, row, *rest = _rounded(weights)
    return Neuron(bias, column, row, tuple(zip(chosen, rest, strict=True)))


def _candidates(kept: np.ndarray) -> list[int]:
    """The distances at which weights are kept together most surely more often than by chance."""
    rows, columns = kept.shape
    together = _autocorrelation(kept.astype(np.float64), 2 * columns)
    expected = rows * _autocorrelation(kept.mean(0, keepdims=True), 2 * columns) + 1e-9
    excess = together * np.log(np.maximum(together, 1) / expected) - (together - expected)
    score = np.where(together > expected, excess, 0)[1 : min(columns, FARTHEST + 1)]
    best = np.argsort(-np.round(score, 3), kind="stable")[:CANDIDATES]
    return [int(i) + 1 for i in best if score[i] > 0]


def _autocorrelation(rows: np.ndarray, width: int) -> np.ndarray:
    """Σ over rows of Σⱼ x[j] · x[j + d], for each d."""
    spectrum = (np.abs(np.fft.rfft(rows, width)) ** 2).sum(0)
    return np.round(np.fft.irfft(spectrum, width), 6)


class _Fit:
    """Logistic regressions of one mask, from different neighbours.

    Rows and columns without any weight are left out. ``places`` are the weights to learn from: all
    that were kept, and of the others so many that each stands for ``importance`` of them.
    """

    def __init__(self, kept: np.ndarray) -> None:
        self.kept, self.live = kept, np.flatnonzero(kept.any(0))
        part = kept[:, self.live]
        self.share = min(max(part.mean(), 1e-4), 1 - 1e-4)
        self.counts = np.cumsum(part, 1) - part
        columns = np.cumsum(part, 0) - part
        average = 4 * columns.sum(1, keepdims=True) // len(self.live)
        self.ratios = (log_of(4 * columns) - log_of(average)) / LOGIT
        step = part.size // SAMPLE + 1
        mixed = (np.arange(part.size) * 40503 >> 4) % step == 0
        self.places = np.flatnonzero(part.ravel() | mixed)
        self.answers = part.ravel()[self.places].astype(np.float64)
        self.importance = np.where(self.answers > 0, 1.0, step)

    def weights(self, lags: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(weights, their standard errors): bias, column, row, and one for each lag."""
        guess = [np.log(self.share / (1 - self.share)), 0.5, 0.8] + [1.0] * len(lags)
        weights = errors = np.array(guess)
        x = np.ones((len(self.places), len(weights)))
        x[:, 1] = self.ratios.ravel()[self.places]
        rows, columns = np.divmod(self.places, len(self.live))
        columns = self.live[columns]
        for i, lag in enumerate(lags):
            x[:, 3 + i] = np.where(columns >= lag, self.kept[rows, columns - lag], 0)
        for _ in range(ROUNDS):
            x[:, 2] = self._row_ratios(weights)
            weights, errors = _newton(x, self.answers, self.importance, weights)
        return weights, errors

    def _row_ratios(self, weights: np.ndarray) -> np.ndarray:
        """ln((b + 1) / (B + 1)) for each place."""
        chances = 1 / (1 + np.exp(-weights[0] - weights[1] * self.ratios))
        expected = np.cumsum(chances, 1) - chances
        return np.log((self.counts + 1) / (expected + 1)).ravel()[self.places]


def _newton(
    x: np.ndarray, y: np.ndarray, importance: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One step towards the most probable weights, which are thought to be of the order of 1."""
    chance = 1 / (1 + np.exp(-np.clip(x @ weights, -20, 20)))
    slope = x.T @ (importance * (y - chance)) - 0.25 * weights
    bend = (x * (importance * chance * (1 - chance))[:, None]).T @ x + 0.25 * np.eye(len(weights))
    step = np.clip(np.linalg.solve(bend, slope), -1, 1)
    return weights + step, np.sqrt(np.diag(np.linalg.inv(bend)))


def _rounded(weights: np.ndarray) -> list[int]:
    return np.clip(np.rint(16 * weights), -128, 127).astype(int).tolist()


# -------------------------------------------------------------------------------------- the sides


def fit_sides(kept: np.ndarray, values: np.ndarray, span: int, lags: list[int]) -> Sides:
    """How to write ``values`` (0 … span − 1), those where ``kept`` (rows, columns) is true."""
    grid = np.full(kept.shape, -1)
    grid[kept] = values
    pivot = _pivot(grid, span, lags)
    side = np.where(grid < 0, 0, np.where(grid >= pivot, 1, -1))
    r, j = np.nonzero(kept)
    x = np.ones((len(r), 1 + len(lags)))
    for i, lag in enumerate(lags):
        x[:, 1 + i] = np.where(j >= lag, side[r, j - lag], 0)
    y = (side[kept] > 0).astype(np.float64)
    weights = np.zeros(1 + len(lags))
    for _ in range(ROUNDS):
        weights, _ = _newton(x, y, np.ones(len(r)), weights)
    bias, *rest = _rounded(weights)
    return Sides(span, pivot, bias, tuple(zip(lags, rest, strict=True)))


def _pivot(grid: np.ndarray, span: int, lags: list[int]) -> int:
    """Where neighbours are most often on the same side; 0, so that there is one, without any."""
    if not lags:
        return 0
    lag = lags[0]
    here, before = grid[:, lag:], grid[:, :-lag]
    both = (here >= 0) & (before >= 0)
    a, b = here[both], before[both]
    pivots = np.unique(a)[1:]
    if not len(pivots):
        return 0
    if len(pivots) > 64:
        pivots = pivots[:: len(pivots) // 64]
    agreement = [np.mean((a >= p) == (b >= p)) - _by_chance(a >= p, b >= p) for p in pivots]
    return int(pivots[int(np.argmax(np.round(agreement, 9)))])


def _by_chance(a: np.ndarray, b: np.ndarray) -> float:
    return a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
