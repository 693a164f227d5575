"""Is a derivative right? It is compared with differences of the function, in float64.

A fixed random ``c`` of the output's shape makes one number of it, ``φ(x) = Σ c·f(x)``. Its slope
along a direction ``v`` is measured twice by central differences,

    D(h) = (φ(x + hv) − φ(x − hv)) / 2h = φ'(x)v + h²/6 · φ'''(x)v³ + O(h⁴)

with h and 2h, and the leading error cancels in ``(4 D(h) − D(2h)) / 3``. How far may that be from
the derivative that the engine gives? Two errors are known, so the threshold follows from them:

* roundoff: each φ is off by some roundings of its summands, ``ROUNDINGS · ε · Σ|c·f|``, and the
  difference of two is divided by 2h;
* truncation: ``|D(h) − D(2h)|`` is h²/2 · φ''' and more than what is left, which is O(h⁴).

Near a kink (a ``max``, ``|x|``) the second is large and would excuse anything. So where the
threshold exceeds ``COARSEST`` of the magnitude of the derivative, the check refuses to judge; the
inputs are then to be chosen away from the kink (:func:`spaced`). What passes is right to about one
part in a million of that magnitude; ``test_gradcheck.py`` shows that smaller errors than these are
found.

One random direction (as in autograd's ``check_vjp``) sees every component at once; for small inputs
each component is looked at by itself as well.
"""

from collections.abc import Callable, Iterator

import numpy as np

import tinycompress as tc

STEP = 1e-5
ROUNDINGS = 100
COARSEST = 1e-6
EACH_COMPONENT_UP_TO = 24


def check_gradients(f: Callable[..., tc.Tensor], *arrays: np.ndarray) -> None:
    """Raise AssertionError unless ``f``'s gradients by all ``arrays`` (float64) are right."""
    rng = np.random.default_rng(1)
    before = [a.copy() for a in arrays]
    leaves = [tc.tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    c = rng.normal(size=y.shape)
    gradients = tc.grad(y, leaves, c)
    for a, kept, leaf, g in zip(arrays, before, leaves, gradients, strict=True):
        assert (g.shape, g.dtype) == (a.shape, np.float64)
        np.testing.assert_array_equal(leaf.data, kept, "the function changed its input")

    def phi(step: float, direction: list[np.ndarray]) -> float:
        moved = [tc.Tensor(a + step * v) for a, v in zip(arrays, direction, strict=True)]
        with tc.no_grad():
            return float((f(*moved).data * c).sum())

    magnitude = float(np.abs(y.data * c).sum())
    for direction in _directions(arrays, rng):
        terms = [g * v for g, v in zip(gradients, direction, strict=True)]
        _compare(phi, direction, terms, magnitude)


def _compare(
    phi: Callable[..., float],
    direction: list[np.ndarray],
    terms: list[np.ndarray],
    magnitude: float,
) -> None:
    once, twice = ((phi(h, direction) - phi(-h, direction)) / (2 * h) for h in (STEP, 2 * STEP))
    roundoff = ROUNDINGS * np.finfo(float).eps * magnitude / STEP
    allowed = roundoff + abs(once - twice)
    coarsest = COARSEST * (magnitude + sum(float(np.abs(t).sum()) for t in terms))
    if not allowed <= coarsest:
        raise NotSmoothError(f"slopes {once} and {twice}: too near to a kink, or not finite")
    measured, given = (4 * once - twice) / 3, sum(float(t.sum()) for t in terms)
    assert abs(measured - given) <= allowed, (
        f"the derivative is {given}, differences give {measured} ± {allowed:.1e}"
    )


class NotSmoothError(AssertionError):
    """The function has a kink within the step, so that differences say nothing."""


def _directions(
    arrays: tuple[np.ndarray, ...], rng: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """One random direction, and for small inputs every axis."""
    yield [rng.normal(size=a.shape) for a in arrays]
    if sum(a.size for a in arrays) <= EACH_COMPONENT_UP_TO:
        for k, a in enumerate(arrays):
            for place in np.ndindex(a.shape):
                axis = [np.zeros(b.shape) for b in arrays]
                axis[k][place] = 1.0
                yield axis


# ------------------------------------------------------------------------------------ inputs


def spaced(rng: np.random.Generator, *shape: int, gap: float = 0.05) -> np.ndarray:
    """Random values, all at least ``gap/2`` from each other and from 0: no ties, no kinks near."""
    n = int(np.prod(shape))
    values = (np.arange(n) - n // 2 + 0.5) * gap + rng.uniform(-gap / 4, gap / 4, n)
    return rng.permutation(values).reshape(shape)


def laid_out(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """The same array, its axes lying in memory in this order, outermost first."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
