"""The weights behind a mask that may change: dense W, mask T, and the model holds W ∘ T.

Where pruning may be taken back, somebody must remember what a pruned weight was. The model computes
with ``w = W ∘ T`` forwards and backwards, so its gradient is that by the masked weight, for pruned
weights too, and the optimizer moves ``w``. After each of its steps the dense weights follow::

    W <- W + (w_after − w_before)      where T: w_after;  elsewhere: W + w_after, for w_before was 0
    w <- W ∘ T

Where the parameter has T as its mask, the optimizer leaves pruned weights at 0, and no W of theirs
moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, copy_of, device_of, on_device, to_device


class DenseWeights:
    """W and T of some layers.

    Args:
        parameters: layer → its weight, which holds W ∘ T.
        state: of :meth:`state_dict`; None for W as it is now and nothing pruned.

    Attributes:
        dense: layer → W.
        kept: layer → T, boolean.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], state: Mapping[str, Any] | None = None
    ) -> None:
        self.parameters = dict(parameters)
        self.dense: dict[str, Array] = {}
        self.kept: dict[str, Array] = {}
        for name, p in self.parameters.items():
            device = device_of(p.data)
            if state is None:
                self.dense[name] = copy_of(p.data)
                self.kept[name] = to_device(np.ones(p.shape, bool), device)
            else:
                self.dense[name] = to_device(state[f"dense.{name}"].copy(), device)
                self.kept[name] = to_device(state[f"kept.{name}"].copy(), device)

    def follow(self) -> None:
        """After an optimizer's step: let W follow what moved, and the model hold W ∘ T again."""
        for name, p in self.parameters.items():
            dense, kept = self.dense[name], self.kept[name]
            with on_device(p.data):
                dense *= ~kept
                dense += p.data
                p.data *= kept

    def set_kept(self, masks: Mapping[str, np.ndarray]) -> None:
        """A new T for these layers; weights that come back are what W says."""
        for name, mask in masks.items():
            p = self.parameters[name]
            self.kept[name] = to_device(mask.copy(), device_of(p.data))
            with on_device(p.data):
                p.data[...] = self.dense[name]
                p.data[~self.kept[name]] = 0

    def state_dict(self) -> dict[str, Array]:
        """``dense.<layer>`` and ``kept.<layer>``."""
        return {f"dense.{name}": w for name, w in self.dense.items()} | {
            f"kept.{name}": t for name, t in self.kept.items()
        }
