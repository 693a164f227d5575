"""Max-norm: no unit's incoming weights may be longer than a limit.

After each update every row w_o of a weight, the weights that lead into unit (or filter) o, is
brought back to the ball of radius c:

    w_o ← w_o · min(1, c / ‖w_o‖₂)

Dropout wants large learning rates, at which weights grow without end; with the limit they cannot.
Hinton et al. 2012, arXiv:1207.0580; Srivastava et al. 2014, JMLR 15, section 5.1. Biases are left
alone, and zeros of a pruning mask stay zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from tinycompress import nn
from tinycompress.backend import array_module, on_device
from tinycompress.optim.checks import positive
from tinycompress.train.callbacks import Callback

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class MaxNorm(Callback):
    """``fit(model, train, 10, callbacks=[MaxNorm(3.0)])``, for linear and convolutional layers.

    Args:
        limit: c > 0, the greatest length of the weights into one unit.
        skip: names of layers, or patterns (``fnmatch``), that are left alone.

    Raises:
        ValueError: a limit that is no finite number > 0; when the run begins, a name in ``skip``
            that fits no such layer, or no layer that is left.
    """

    only_looks = True  # numbers of parameters move in place, which workers share

    def __init__(self, limit: float, skip: str | Iterable[str] = ()) -> None:
        self.limit = positive("MaxNorm: limit", limit)
        self.skip = [skip] if isinstance(skip, str) else list(skip)
        self._weights: list[nn.Parameter] = []

    def on_fit_begin(self, run: Run) -> None:
        layers = {
            name: layer
            for name, layer in run.model.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        for pattern in self.skip:
            if not any(fnmatchcase(name, pattern) for name in layers):
                raise ValueError(
                    f"MaxNorm: skip={pattern!r} fits no linear or convolutional layer; there are "
                    f"{', '.join(layers) or 'none'}"
                )
        self._weights = [
            layer.weight
            for name, layer in layers.items()
            if not any(fnmatchcase(name, pattern) for pattern in self.skip)
        ]
        if not self._weights:
            raise ValueError("MaxNorm: there is no linear or convolutional layer to limit")

    def on_step_end(self, run: Run) -> None:
        for weight in self._weights:
            limit_norms(weight, self.limit)

    def close(self, run: Run) -> None:
        self._weights = []


def limit_norms(weight: nn.Parameter, limit: float) -> None:
    """Shorten, in place, the rows (O, ...) of ``weight`` that are longer than ``limit``."""
    w = weight.data
    with on_device(w), np.errstate(all="ignore"):  # where infinite, the run says so itself
        xp = array_module(w)
        square = (w * w).sum(axis=tuple(range(1, w.ndim)), keepdims=True)  # (O, ...) -> (O, 1, …)
        w *= xp.minimum(1, limit / xp.sqrt(xp.maximum(square, np.finfo(w.dtype).tiny)))
