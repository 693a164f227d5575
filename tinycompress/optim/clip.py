"""Gradient clipping: a step may be at most so long, in the direction it has.

    g ← g · min(1, max_norm / ‖g‖),    ‖g‖ over the gradients of all parameters together

Pascanu, Mikolov, Bengio 2012, algorithm 1, https://arxiv.org/abs/1211.5063. One odd batch then
cannot throw the weights far away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinycompress.backend import Array, array_module, check_same_device, on_device, to_numpy
from tinycompress.nn import Parameter
from tinycompress.optim.checks import non_negative
from tinycompress.optim.parameters import parameter_list


def clip_grad_norm_(
    parameters: Iterable[Parameter] | Parameter,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale the gradients, in place, so that their common norm is at most ``max_norm``.

    Parameters without a gradient do not count; nor do the pruned weights of a masked parameter,
    which no step moves. A norm that is infinite or NaN leaves the gradients as they are (scaling
    would make them zero or NaN): the caller sees it in the result.

    Args:
        parameters: ``model.parameters()`` or one parameter.
        max_norm: the greatest norm that is let through, ≥ 0.
        norm_type: p of the p-norm, > 0; ``math.inf`` for the largest magnitude.
        error_if_nonfinite: raise when the norm is infinite or NaN.

    Returns:
        The norm before clipping.

    Raises:
        TypeError, ValueError: no or wrong parameters, arguments out of their range.
        FloatingPointError: the norm is not finite, and ``error_if_nonfinite``.
    """
    max_norm = non_negative("max_norm", max_norm)
    if not norm_type > 0:
        raise ValueError(f"norm_type must be > 0, got {norm_type!r}")
    listed = parameter_list(parameters)
    pairs = [(p.grad, p.mask) for p in listed if p.grad is not None and p.grad.size]
    if not pairs:
        return 0.0
    check_same_device("clip_grad_norm_", *(g for g, _ in pairs))
    with on_device(pairs[0][0]):
        return _clip(pairs, max_norm, float(norm_type), error_if_nonfinite)


def _clip(
    pairs: list[tuple[Array, Array | None]],
    max_norm: float,
    norm_type: float,
    error_if_nonfinite: bool,
) -> float:
    """The work: ``pairs`` are gradients and masks, ``g *= factor`` changes the former in place."""
    total = _total_norm([g if mask is None else g * mask for g, mask in pairs], norm_type)
    if not math.isfinite(total):
        if error_if_nonfinite:
            raise FloatingPointError(
                f"the norm of the gradients is {total}: the loss overflowed, or a lower learning "
                "rate is needed; tc.detect_anomaly() finds the operation"
            )
        return total
    factor = max_norm / (total + 1e-6)  # torch's guard against a norm of zero
    if factor < 1:
        for g, _ in pairs:
            g *= factor
    return total


def _total_norm(grads: list[Array], norm_type: float) -> float:
    """The norm of all numbers together, from a sum (or maximum) over each array."""
    xp = array_module(grads[0])
    parts = to_numpy(xp.stack([_part(g, norm_type) for g in grads]))  # one wait for a GPU
    if norm_type == math.inf:
        return float(parts.max())
    return float(parts.sum(dtype="float64") ** (1.0 / norm_type))


def _part(g: Array, norm_type: float) -> Array:
    """Σ|g|^p, whose p-th root is the norm; for p = ∞ the largest magnitude."""
    xp = array_module(g)
    if norm_type == math.inf:
        return xp.max(xp.abs(g))
    return xp.sum(g * g if norm_type == 2.0 else xp.abs(g) ** norm_type)
