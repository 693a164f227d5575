"""Which whole numbers a code may be: ``qmin … qmax`` by bits and signedness.

==============  ==================  ==============
unsigned        0                   2ᵇ − 1
signed          −2ᵇ⁻¹               2ᵇ⁻¹ − 1
signed, narrow  −(2ᵇ⁻¹ − 1)         2ᵇ⁻¹ − 1
==============  ==================  ==============

Narrow gives up one code so that the range is symmetric: then −w is quantized to minus the code of
w. At 2 bits it is ternary, {−1, 0, 1}; at 1 bit nothing is left of it, see ``binary.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_BITS = 16


@dataclass(frozen=True)
class IntegerRange:
    """The codes of ``bits`` bits.

    Args:
        bits: 2 to 16.
        signed: whether codes lie on both sides of 0.
        narrow: drop the lowest signed code.
    """

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.bits == 1:
            raise ValueError(
                "1 bit has no integer range with a zero in it: 1-bit weights are sign(w)·mean|w| "
                "(binarize), everything else needs at least 2 bits"
            )
        if self.narrow and not self.signed:
            raise ValueError("only a signed range can be narrow")

    @property
    def qmin(self) -> int:
        return -(1 << (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def qmax(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest integer type that holds every code."""
        return np.dtype(f"{'int' if self.signed else 'uint'}{8 if self.bits <= 8 else 16}")


def check_bits(bits: int) -> None:
    """Raise ValueError unless ``bits`` is a whole number from 1 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be a whole number from 1 to {MAX_BITS}, got {bits!r}")
