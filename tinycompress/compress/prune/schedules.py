"""How much to prune when: sparsity as a pure function of progress t, from 0 to 1.

With ``initial`` s_i and ``final`` s_f, and 1 − s the density (the share of weights that is left):

    linear         s_t = s_i + (s_f − s_i) t
    cubic          s_t = s_f + (s_i − s_f) (1 − t)³       much while there is much, then slower
    exponential    1 − s_t = (1 − s_i)^(1−t) (1 − s_f)^t  the same share of what is left each time

Cubic: Zhu & Gupta 2017, arXiv:1710.01878. Exponential is what Han et al. 2015 (arXiv:1506.02626)
and the lottery ticket (arXiv:1803.03635) do when they prune a fifth of the rest in every round. To
prune in n rounds, training in between::

    for k in range(1, n + 1):
        model = prune(model, cubic(k / n, 0.9))
        fit(model, train, epochs=1, optimizer=SGD(model.parameters(), lr=0.05))
"""

from __future__ import annotations


def linear(t: float, final: float, initial: float = 0.0) -> float:
    """The same number of weights in every unit of time.

    Args:
        t: progress, 0 … 1.
        final: sparsity at t = 1, below 1.
        initial: sparsity at t = 0, at most ``final``.

    Returns:
        The sparsity at t, between ``initial`` and ``final``; at t = 1 exactly ``final``.

    Raises:
        ValueError: a number out of its range.
    """
    _check(t, final, initial)
    if t == 1:
        return final  # initial + (final − initial) may be off in the last place
    return _between(initial, initial + (final - initial) * t, final)


def cubic(t: float, final: float, initial: float = 0.0) -> float:
    """Fast at first, level at the end. Arguments and errors are those of :func:`linear`."""
    _check(t, final, initial)
    return _between(initial, final + (initial - final) * (1 - t) ** 3, final)


def exponential(t: float, final: float, initial: float = 0.0) -> float:
    """The density falls by the same factor in every unit of time. As :func:`linear`."""
    _check(t, final, initial)
    if t == 1:
        return final  # the power below may be off in the last place
    return _between(initial, 1 - (1 - initial) ** (1 - t) * (1 - final) ** t, final)


def _check(t: float, final: float, initial: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"progress t must lie in [0, 1], got {t!r}")
    if not 0 <= initial <= final < 1:
        raise ValueError(
            f"sparsities must be 0 ≤ initial ≤ final < 1, got initial={initial!r} and "
            f"final={final!r}"
        )


def _between(initial: float, sparsity: float, final: float) -> float:
    """Rounding must not lead out of the range."""
    return min(max(sparsity, initial), final)
