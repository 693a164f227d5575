"""Looking numbers up in a table: many places share few numbers, and their derivatives add up."""

from __future__ import annotations

import numpy as np

from tinycompress.backend import Array, array_module
from tinycompress.ops.elementwise import Result


def gather(codebook: Array, codes: Array) -> Result:
    """``w[i] = c[codes[i]]``, where ``c`` is 0 followed by the codebook (K).

    ``dL/dc[k] = Σ g[i] over the members of k, the places i with codes[i] = k`` (Han et al. 2016,
    arXiv:1510.00149, equation 3). The zero has no derivative: it stays 0. Sums are made in float64.
    """
    xp = array_module(codebook)
    table = xp.concatenate([xp.zeros(1, codebook.dtype), codebook])
    size = table.size

    def d_codebook(g: Array) -> Array:
        if xp is np:
            flat = codes.ravel()
            places = np.flatnonzero(flat != 0)  # few weights of a pruned layer
            sums = np.bincount(flat[places], g.ravel()[places], minlength=size)
        else:  # bincount would wait for the device
            sums = xp.zeros(size, np.float64)
            xp.add.at(sums, codes, g.astype(np.float64))
        return sums[1:].astype(codebook.dtype)

    return table.take(codes), (d_codebook, None)
