"""Optimizers and learning rate schedules.

In the order in which to read them: ``optimizer.py`` (what all share), ``sgd.py``, ``rmsprop.py``,
``adam.py``, ``flat.py``, ``clip.py``; then ``schedules.py``, ``one_cycle.py``, ``plateau.py``.
Update rules, names and defaults are torch's.
"""

from tinycompress.optim.adam import Adam, AdamW
from tinycompress.optim.clip import clip_grad_norm_
from tinycompress.optim.flat import FlatBuffer
from tinycompress.optim.one_cycle import OneCycleLR
from tinycompress.optim.optimizer import Optimizer
from tinycompress.optim.plateau import ReduceLROnPlateau
from tinycompress.optim.rmsprop import RMSprop
from tinycompress.optim.schedules import (
    CosineAnnealingLR,
    LinearLR,
    Schedule,
    SequentialLR,
    StepLR,
)
from tinycompress.optim.sgd import SGD

__all__ = [
    "Optimizer", "SGD", "RMSprop", "Adam", "AdamW",
    "clip_grad_norm_", "FlatBuffer",
    "Schedule", "StepLR", "LinearLR", "CosineAnnealingLR", "SequentialLR", "OneCycleLR",
    "ReduceLROnPlateau",
]  # fmt: skip
