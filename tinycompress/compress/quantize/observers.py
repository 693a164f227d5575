"""Observers: they see the activations of some data and say which range to quantize.

===================  ==================================================================
"minmax"             from the smallest number to the largest
"moving_average"     the mean, over the examples, of each example's smallest and largest
"percentile"         leaves out 0.01% at each end
"kl"                 keeps the shape of the distribution (TensorRT)
"mse"                has the smallest squared error
===================  ==================================================================

The last three look at a histogram (``histogram.py``, ``clipping.py``). Every range includes 0.

What an observer says does not depend on the order of the data nor on how they were cut into
batches, to the bit. For the minimum and the maximum that is plain. Histograms can be merged
exactly, see there. A moving average over *batches* cannot be like that: the largest number of a
batch grows with the batch. So here it is taken over *examples* (entries along the first axis), and
summed exactly (``exact_sum.py``). In training older examples should count less: with ``window=n``
the past weighs as n examples at most, which is an exponential moving average. It then depends on
the order of the steps, as it should, but still not on how a step was cut into shards.

An observer is a module: what it has seen are buffers, which move and are copied and stored with the
layer that owns it; inside a training step it notes and merges as batch norm does (``nn/notes.py``).

Traps: "nothing seen yet" must not be told from ``lo == hi == 0``, which a batch of zeros gives as
well, but by a count. An observer that saw nothing has no range, and saying 1 (as others do, with a
warning) hides a layer that was never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, to_device, to_numpy
from tinycompress.compress.quantize.affine import check_floats, choose_qparams, min_max
from tinycompress.compress.quantize.clipping import least_divergence, least_error, percentile
from tinycompress.compress.quantize.exact_sum import EXPONENTS, exact_parts, exact_value
from tinycompress.compress.quantize.histogram import (
    NO_EXPONENT,
    SIDE,
    Histogram,
    histogram_of,
    joined,
)
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.nn.skeleton import new_array
from tinycompress.tensor import as_array

Seen = tuple[np.ndarray, ...]
"""What some data left behind: host arrays, one for each buffer, in the same order."""


class Observer(nn.Module):
    """What observers have in common.

    Args:
        target: the codes of the activations, an :class:`IntegerRange` (or its fields).
        scheme: "affine" or "symmetric".
        label: the layer's name, for errors.

    Subclasses register their buffers and say in three functions of host arrays what one array adds
    (``seen``), how that is added (``_add``), and what range follows (``_range``).
    """

    def __init__(
        self,
        target: IntegerRange | Mapping[str, Any],
        scheme: str = "affine",
        label: str = "this layer",
    ) -> None:
        super().__init__()
        self.target = target if isinstance(target, IntegerRange) else IntegerRange(**target)
        self.scheme, self.label = scheme, label
        self.register_buffer("count", new_array((1,), 0, np.int64))

    # ---------------------------------------------------------------------------------- seeing

    def seen(self, x: Array) -> Seen:
        """What ``x`` adds; the observer itself stays as it is.

        Raises:
            ValueError: ``x`` is empty, or holds NaN or infinity; the layer is named.
        """
        raise NotImplementedError

    def observe(self, x: Any) -> None:
        """See an array or tensor (N, ...) at once, even inside a training step."""
        self.merge([self.seen(as_array(x))])

    def forward(self, x: Any) -> Any:
        """``x`` itself. What it was is noted, and merged at the end of a training step."""
        self.note(self.seen(as_array(x)))
        return x

    def merge(self, notes: list[Seen]) -> None:
        """Add what :meth:`seen` gave, or the :attr:`state` of another observer of this kind."""
        state = self.state
        for note in notes:
            state = self._add(state, note)
        device = self.device
        for name, array in zip(list(self._buffers), self._after(state), strict=True):
            setattr(self, name, to_device(np.asarray(array), device))

    @property
    def state(self) -> Seen:
        """All that was seen, as host arrays."""
        return tuple(to_numpy(buffer) for buffer in self._buffers.values())

    def _add(self, state: Seen, note: Seen) -> Seen:
        raise NotImplementedError

    def _after(self, state: Seen) -> Seen:
        """The state at the end of a step."""
        return state

    # ---------------------------------------------------------------------------------- saying

    def range(self) -> tuple[float, float]:
        """(lo, hi) with lo ≤ 0 ≤ hi.

        Raises:
            RuntimeError: nothing was seen; the layer is named.
        """
        state = self.state
        if not int(state[0][0]):
            raise RuntimeError(
                f"{self.label}: no data were seen, so there is no range to quantize. Run the model "
                "on calibration data first; if you did, this layer was not called"
            )
        return self._range(state)

    def _range(self, state: Seen) -> tuple[float, float]:
        raise NotImplementedError

    def qparams(self, dtype: Any = np.float32) -> tuple[Array, Array]:
        """Scale and zero point (1) for :meth:`range`, on the host: see ``choose_qparams``."""
        lo, hi = self.range()
        return choose_qparams(lo, hi, self.target, self.scheme, dtype, self.label)

    def config(self) -> dict[str, Any]:
        return {"target": asdict(self.target), "scheme": self.scheme, "label": self.label}


class MinMaxObserver(Observer):
    """From the smallest number to the largest: nothing is clipped, one outlier decides."""

    low: Array
    high: Array

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("low", new_array((1,), 0, np.float64))
        self.register_buffer("high", new_array((1,), 0, np.float64))

    def seen(self, x: Array) -> Seen:
        low, high = (to_numpy(end) for end in min_max(x, name=self.label))
        return np.array([x.size], np.int64), low, high

    def _add(self, state: Seen, note: Seen) -> Seen:
        return state[0] + note[0], np.minimum(state[1], note[1]), np.maximum(state[2], note[2])

    def _range(self, state: Seen) -> tuple[float, float]:
        return float(state[1][0]), float(state[2][0])


class MovingAverageObserver(Observer):
    """From the mean smallest number of an example to the mean largest one.

    Args:
        window: how many examples the past may weigh at most (None: every example counts the same).
    """

    parts: Array

    def __init__(self, *args: Any, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ValueError(f"window must be None or a whole number ≥ 1, got {window!r}")
        self.window = window
        self.register_buffer("parts", new_array((2, EXPONENTS), 0, np.int64))

    def seen(self, x: Array) -> Seen:
        check_floats(x, self.label)
        low, high = (to_numpy(end) for end in min_max(x, axis=0, name=self.label))
        ends = np.minimum(low, 0.0), np.maximum(high, 0.0)
        return np.array([len(x)], np.int64), np.stack([exact_parts(end) for end in ends])

    def _add(self, state: Seen, note: Seen) -> Seen:
        return state[0] + note[0], state[1] + note[1]

    def _after(self, state: Seen) -> Seen:
        count, parts = state
        if self.window is None or int(count[0]) <= self.window:
            return state
        return np.array([self.window], np.int64), parts * self.window // count

    def _range(self, state: Seen) -> tuple[float, float]:
        count = int(state[0][0])
        lo, hi = (float(exact_value(parts) / count) for parts in state[1])
        return lo, hi

    def config(self) -> dict[str, Any]:
        return {**super().config(), "window": self.window}


class HistogramObserver(Observer):
    """Keeps a histogram; subclasses say which range they take for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("low", new_array((1,), 0, np.float64))
        self.register_buffer("high", new_array((1,), 0, np.float64))
        self.register_buffer("exponent", new_array((1,), NO_EXPONENT, np.int64))
        self.register_buffer("bins", new_array((2 * SIDE,), 0, np.int64))

    def seen(self, x: Array) -> Seen:
        return tuple(histogram_of(x, self.label))

    def _add(self, state: Seen, note: Seen) -> Seen:
        return tuple(joined(Histogram(*state), Histogram(*note)))

    def _range(self, state: Seen) -> tuple[float, float]:
        return self._of_histogram(Histogram(*state))

    def _of_histogram(self, h: Histogram) -> tuple[float, float]:
        raise NotImplementedError


class PercentileObserver(HistogramObserver):
    """Leaves out ``100 − percent`` percent of the numbers at each end, zeros not counted."""

    def __init__(self, *args: Any, percent: float = 99.99, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.percent = percent

    def _of_histogram(self, h: Histogram) -> tuple[float, float]:
        return percentile(h, self.scheme, self.percent)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "percent": self.percent}


class DivergenceObserver(HistogramObserver):
    """Keeps the shape of the distribution: TensorRT's entropy calibration."""

    def _of_histogram(self, h: Histogram) -> tuple[float, float]:
        return least_divergence(h, self.target, self.scheme)


class ErrorObserver(HistogramObserver):
    """Has the smallest squared error."""

    def _of_histogram(self, h: Histogram) -> tuple[float, float]:
        return least_error(h, self.target, self.scheme)


KINDS: dict[str, type[Observer]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "kl": DivergenceObserver,
    "mse": ErrorObserver,
}


def make_observer(
    name: str,
    target: IntegerRange,
    scheme: str = "affine",
    label: str = "this layer",
    *,
    percent: float = 99.99,
    window: int | None = None,
) -> Observer:
    """The observer called ``name`` (see the table above).

    Args:
        name: one of ``config.OBSERVERS``.
        target, scheme: how the activations will be quantized.
        label: the layer's name, for errors.
        percent: for "percentile".
        window: for "moving_average"; give it in training.
    """
    if name not in KINDS:
        raise ValueError(f"observer must be one of {', '.join(KINDS)}, got {name!r}")
    own: dict[str, Any] = {"percentile": {"percent": percent}, "moving_average": {"window": window}}
    return KINDS[name](target, scheme, label, **own.get(name, {}))
