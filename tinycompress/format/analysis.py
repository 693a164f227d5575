"""What Deep Compression's stages cost in a layer: the columns of the paper's tables, counted.

Of a layer of n weights, k are left. Each needs a code and a place:

    bits per weight     b         → Huffman: (bits of all codewords) / k
    bits per place      b · e / k → Huffman: (bits of all codewords) / k

with e entries of the relative index, fillers included (``relative.py``). Nothing is estimated: the
codewords are written, and counted. Tables of codes are not in it; they are in the file, and
``tinycompress info`` shows what that has for the layer, which may be coded in a better way.

Han, Mao and Dally 2016, arXiv:1510.00149, tables 4 and 5.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinycompress.compress.share.report import entropy
from tinycompress.format.huffman import code_lengths
from tinycompress.format.relative import WIDEST, distances


@dataclass(frozen=True)
class LayerCosts:
    """Bits in which the codes of a layer can be written, for each weight that is left.

    Attributes:
        weights, kept: how many there are, and how many are not 0.
        bits: of a code, all of the same length.
        huffman_bits: of a code in Huffman's code, on average.
        width: bits of an entry of the relative index.
        index_bits: of the relative index, fillers included.
        index_huffman_bits: of it in Huffman's code.
        entropy: of the codes: −log₂ of the share of each, on average.
        index_entropy: of a mask in which each weight is left independently of all others, with
            probability p: H(p) / p for each that is.
    """

    weights: int
    kept: int
    bits: int
    huffman_bits: float
    width: int
    index_bits: float
    index_huffman_bits: float
    entropy: float
    index_entropy: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def layer_costs(codes: np.ndarray, width: int | None = None) -> LayerCosts:
    """What the codes of a layer with shared weights cost.

    Args:
        codes: whole numbers of any shape; 0 where a weight was pruned.
        width: bits of an entry of the index, 1 to 12; None: the number with which Huffman's code
            of the index is shortest.

    Raises:
        ValueError: a width out of range.
    """
    if width is not None and not 1 <= width <= WIDEST:
        raise ValueError(f"layer_costs: width must be 1 … {WIDEST}, got {width}")
    kept = codes.ravel() != 0
    symbols = codes.ravel()[kept].astype(np.int64)
    k = max(len(symbols), 1)
    indexes = {b: distances(kept, b) for b in ([width] if width else range(1, WIDEST + 1))}
    sizes = {b: huffman_size(index) for b, index in indexes.items()}
    best = min(sizes, key=lambda b: sizes[b])
    span = len(np.unique(symbols))
    return LayerCosts(
        weights=codes.size,
        kept=len(symbols),
        bits=max(span - 1, 0).bit_length(),
        huffman_bits=huffman_size(symbols) / k,
        width=best,
        index_bits=best * len(indexes[best]) / k,
        index_huffman_bits=sizes[best] / k,
        entropy=entropy(np.bincount(symbols)) / k,
        index_entropy=entropy(np.array([len(symbols), codes.size - len(symbols)])) / k,
    )


def huffman_size(symbols: np.ndarray) -> int:
    """Bits of all codewords of these whole numbers ≥ 0, in their own Huffman code."""
    counts = np.bincount(symbols.astype(np.int64)) if symbols.size else np.zeros(1, np.int64)
    return int((counts * code_lengths(counts)).sum())
