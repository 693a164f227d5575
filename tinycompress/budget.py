"""``tc.mixed_precision``: bits per layer for a file of a given size.

How the bits are chosen is in ``compress/quantize/mixed.py``; here is what a file weighs, which is
known only above ``format``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import device_of, on_device, to_device
from tinycompress.compress.quantize import QuantConfig
from tinycompress.compress.quantize.integer import IntegerLayer
from tinycompress.compress.quantize.layers import QuantizedLayer
from tinycompress.compress.quantize.mixed import MixedPrecision, choose_bits
from tinycompress.data import Dataset
from tinycompress.format import to_bytes
from tinycompress.train import Workers

CHANCE = 4  # bytes by which another order of the same codes may need more


def mixed_precision(
    model: nn.Module,
    data: Dataset,
    *,
    budget_bytes: int,
    candidates: Sequence[int] = (2, 3, 4, 6, 8),
    config: QuantConfig | None = None,
    calibration: Any = None,
    build: Callable[[QuantConfig], nn.Module] | None = None,
    any_codes: bool = False,
    workers: Workers | int | str | None = "auto",
) -> MixedPrecision:
    """Choose how many bits each layer's weights get, so that the file is as good as can be.

        choice = tc.mixed_precision(model, held_out, budget_bytes=100_000)
        tc.save(tc.quantize(model, choice.config), "small.tcz")      # at most 100,000 bytes

    Args:
        model: a trained model; it is not changed.
        data: images and labels to measure on, not those of the final test. Each layer is measured
            at each width: ``layers · candidates`` evaluations.
        budget_bytes: what the file may weigh, all of it.
        candidates: the widths to choose from, 1 to 16 bits.
        config: everything but the bits (default: ``QuantConfig()``). Layers in its overrides keep
            what these say; None there leaves a layer in floats.
        calibration: for static configs, as in :func:`tinycompress.sensitivity`.
        build: how the model will be made of a config (None: by ``tc.quantize``): say so where
            equalization or adaptive rounding change the codes, so that the size is right.
        any_codes: the budget should hold whatever the codes turn out to be, as after training.
            (Without it, codes that are mostly zeros may take less than their bits.)
        workers: as for :func:`tinycompress.evaluate`.

    Returns:
        The config, what it was chosen from, and the size of the file that was measured.

    Raises:
        ValueError: the budget is smaller than the smallest file, whose size is named; or
            something cannot be quantized.
    """
    return choose_bits(
        model,
        data,
        budget_bytes=budget_bytes,
        file_size=largest_file if any_codes else lambda m: len(to_bytes(m)),
        candidates=candidates,
        config=config,
        calibration=calibration,
        build=build,
        workers=workers,
    )


def largest_file(model: nn.Module) -> int:
    """The bytes of the model's file if its codes were such that nothing shorter can be written.

    These are codes of which each is as frequent as any other, in no order.
    """
    model, layers = model.copy(), 0
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer | IntegerLayer):
            codes, layers = layer.weight_codes, layers + 1
            with on_device(codes):
                every = _every_code(layer.quantization, codes.size).astype(codes.dtype)
                codes[...] = to_device(every.reshape(codes.shape), device_of(codes))
    return len(to_bytes(model)) + CHANCE * layers


def _every_code(q: QuantConfig, count: int) -> np.ndarray:
    """All codes in equal numbers, or as many as there are weights, shuffled."""
    low, high = (0, 1) if q.bits == 1 else (q.target.qmin, q.target.qmax)
    codes = low + np.arange(count) * (high - low + 1) // max(count, 1)
    shuffled = np.random.default_rng(0).permutation(codes)
    return 2 * shuffled - 1 if q.bits == 1 else shuffled
