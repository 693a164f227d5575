"""What is pruned as a whole: single weights, n of every m, kernels, rows.

With a weight seen as a matrix of *units* × the weights of each, every structure but one is a
reshape, and pruning is the same for all (``selection.py``):

    structure   of w (O, I, kh, kw) or (O, I)      unit                 units        weights each
    "weight"    any layer                          one weight           all          1
    "kernel"    convolutions                       w[o, i, :, :]        O·I          kh·kw
    "row"       any layer                          w[o, ...]            O            I·kh·kw

"row" is a row of the weight as the matrix (O, I·kh·kw) that a convolution multiplies by. Its bias
stays, so its output is a constant; "channel" (``channels.py``) takes that as well.

"n:m" (Mishra et al. 2021, arXiv:2104.08378; Zhou et al. 2021, arXiv:2102.04010) keeps n of every m
consecutive weights along the input axis, at each position of a kernel::

    w (O, I, kh, kw) -> (O, kh, kw, I) -> (O, kh, kw, I/m, m)      2:4 of each (·, m) keeps 2

which is what hardware for it asks for, and what it multiplies along. Where m does not divide I, the
last group is filled with zeros to m, as such hardware would, and these are among those that go: of
the r weights left over min(n, r) stay. So a first convolution with one input channel stays whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

UNITS = {"weight": "weights", "kernel": "kernels", "row": "rows"}
PADDING, GONE, ZERO, RANKED = range(4)  # the order in which weights of a group of m go


@dataclass(frozen=True)
class Structure:
    """A structure by its name: "weight", "kernel", "row", or n and m of "n:m"."""

    name: str
    n: int = 0
    m: int = 0

    @property
    def sparsity(self) -> float | None:
        """``1 − n/m``, the one share that n:m prunes; None for the others."""
        return 1 - self.n / self.m if self.m else None

    @property
    def units(self) -> str:
        """What the units are called."""
        return UNITS.get(self.name, "weights")

    def prunes(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape has such units: only convolutions have kernels."""
        return self.name != "kernel" or len(shape) == 4

    def count(self, shape: tuple[int, ...]) -> int:
        """How many units a weight of this shape has."""
        axes = {"kernel": shape[:2], "row": shape[:1]}.get(self.name, shape)
        return int(np.prod(axes))

    def rows(self, array: np.ndarray) -> np.ndarray:
        """The array as (units, weights of each), in the order of the units."""
        return array.reshape(self.count(array.shape), -1)

    def spread(self, keep: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The mask of a weight from one truth for each of its units."""
        size = int(np.prod(shape)) // keep.size
        return np.repeat(keep, size).reshape(shape)


def parse_structure(structure: str) -> Structure:
    """The structure behind a name such as "kernel" or "2:4".

    Raises:
        ValueError: an unknown name, or numbers other than 0 < n < m.
        TypeError: no string.
    """
    if not isinstance(structure, str):
        raise TypeError(f"structure must be a string, got {structure!r}")
    if structure in UNITS:
        return Structure(structure)
    numbers = re.fullmatch(r"([0-9]+):([0-9]+)", structure)
    if numbers is None:
        raise ValueError(
            f"structure must be one of {', '.join(map(repr, UNITS))}, 'channel', or n:m such as "
            f"'2:4', got {structure!r}"
        )
    n, m = int(numbers[1]), int(numbers[2])
    if not 0 < n < m:
        raise ValueError(
            f"structure {structure!r} keeps n of every m weights and needs 0 < n < m, such as '2:4'"
        )
    return Structure(structure, n, m)


def keep_n_of_m(
    scores: np.ndarray, w: np.ndarray, mask: np.ndarray | None, n: int, m: int
) -> np.ndarray:
    """The n most important of every m consecutive weights along axis 1.

    As in ``selection.py`` those pruned before go first, then zeros, then the others by score, and
    of equals the one with the lower index. What was pruned stays so; a group may then keep fewer.

    Args:
        scores, w: of shape (O, I) or (O, I, kh, kw).
        mask: the mask that is there, True where a weight is kept, or None.
        n, m: 0 < n < m.

    Returns:
        A boolean array of the same shape, True where the weight is kept.
    """
    tiers = np.where(w != 0, np.int8(RANKED), np.int8(ZERO))
    if mask is not None:
        tiers[~mask] = GONE
    score_groups, tier_groups = _groups(scores, m, 0.0), _groups(tiers, m, PADDING)
    order = np.lexsort((score_groups, tier_groups), axis=-1)  # stable, so lower indices go first
    keep = np.ones(order.shape, dtype=bool)
    np.put_along_axis(keep, order[..., : m - n], False, axis=-1)
    keep &= tier_groups > GONE
    O, I, *kernel = w.shape
    inputs_last = keep.reshape(O, *kernel, -1)[..., :I]
    return np.ascontiguousarray(np.moveaxis(inputs_last, -1, 1))


def _groups(array: np.ndarray, m: int, padding: float) -> np.ndarray:
    """(O, I, kh, kw) -> (O, kh, kw, groups, m), the last group filled up with ``padding``."""
    inputs_last = np.moveaxis(array, 1, -1)  # (O, kh, kw, I)
    missing = -inputs_last.shape[-1] % m
    widths = [(0, 0)] * (inputs_last.ndim - 1) + [(0, missing)]
    padded = np.pad(inputs_last, widths, constant_values=padding)
    return padded.reshape(*padded.shape[:-1], -1, m)
