"""Initial values for weights, under torch's names. Each fills a tensor in place and returns it.

Numbers are drawn on the host by ``generator`` (None: the one that ``tc.manual_seed`` restarts), so
a model starts alike on every device. Fans follow torch: for w (O, C, kh, kw), ``fan_in`` is
C·kh·kw and ``fan_out`` O·kh·kw.
"""

from __future__ import annotations

import math

import numpy as np

from tinycompress.backend import device_of, on_device, to_device
from tinycompress.random import default_generator
from tinycompress.tensor import Tensor

Generator = np.random.Generator | None


def uniform_(t: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> Tensor:
    """Uniform on [a, b)."""
    return _fill(t, _source(generator).uniform(a, b, t.shape))


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator = None) -> Tensor:
    """Normal with this mean and standard deviation."""
    return _fill(t, _source(generator).normal(mean, std, t.shape))


def trunc_normal_(
    t: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator = None,
) -> Tensor:
    """Normal, drawn again until within [a, b]."""
    if not a < b:
        raise ValueError(f"trunc_normal_: needs a < b, got a={a}, b={b}")
    source = _source(generator)
    values = source.normal(mean, std, t.shape)
    for _ in range(1000):
        outside = (values < a) | (values > b)
        if not outside.any():
            return _fill(t, values)
        values[outside] = source.normal(mean, std, int(outside.sum()))
    raise ValueError(f"trunc_normal_: almost nothing of N({mean}, {std}²) lies in [{a}, {b}]")


def constant_(t: Tensor, value: float) -> Tensor:
    """Every value ``value``."""
    return _fill(t, np.full(t.shape, value))


def zeros_(t: Tensor) -> Tensor:
    return constant_(t, 0.0)


def ones_(t: Tensor) -> Tensor:
    return constant_(t, 1.0)


def xavier_uniform_(t: Tensor, gain: float = 1.0, generator: Generator = None) -> Tensor:
    """Uniform with variance ``gain² · 2/(fan_in + fan_out)`` (Glorot & Bengio, AISTATS 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(t)))
    return uniform_(t, -bound, bound, generator)


def xavier_normal_(t: Tensor, gain: float = 1.0, generator: Generator = None) -> Tensor:
    """Normal with variance ``gain² · 2/(fan_in + fan_out)`` (Glorot & Bengio, AISTATS 2010)."""
    return normal_(t, 0.0, gain * math.sqrt(2 / sum(fans(t))), generator)


def kaiming_uniform_(
    t: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Tensor:
    """Uniform with variance ``gain²/fan`` (He et al. 2015, arXiv:1502.01852)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(t, mode))
    return uniform_(t, -bound, bound, generator)


def kaiming_normal_(
    t: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Tensor:
    """Normal with variance ``gain²/fan`` (He et al. 2015, arXiv:1502.01852)."""
    return normal_(t, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(t, mode)), generator)


def orthogonal_(t: Tensor, gain: float = 1.0, generator: Generator = None) -> Tensor:
    """Rows or columns of (O, everything else) orthonormal, times gain (Saxe et al. 2013)."""
    if t.ndim < 2:
        raise ValueError(f"orthogonal_: needs at least two axes, got shape {t.shape}")
    rows, columns = t.shape[0], t.size // t.shape[0]
    q, r = np.linalg.qr(_source(generator).normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
    return _fill(t, gain * (q.T if rows < columns else q).reshape(t.shape))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """How much a nonlinearity shrinks its input, the other way round; torch's table.

    ``param`` is the slope of "leaky_relu" below 0; None means 0.01.
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0,
        "conv2d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
        "selu": 0.75,
    }
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity must be one of {sorted(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def fans(t: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (O, I, ...)."""
    if t.ndim < 2:
        raise ValueError(f"fan_in and fan_out need at least two axes, got shape {t.shape}")
    window = math.prod(t.shape[2:])
    return t.shape[1] * window, t.shape[0] * window


def _fan(t: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", got {mode!r}')
    return fans(t)[0 if mode == "fan_in" else 1]


def _source(generator: Generator) -> np.random.Generator:
    return default_generator() if generator is None else generator


def _fill(t: Tensor, values: np.ndarray) -> Tensor:
    with on_device(t.data):
        t.data[...] = to_device(values.astype(t.dtype), device_of(t.data))
    return t
