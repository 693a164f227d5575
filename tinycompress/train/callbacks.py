"""Callbacks: what happens around training, hooked in rather than written into the loop.

A callback gets the :class:`~tinycompress.train.run.Run`, on which everything can be read
(``model``, ``optimizer``, ``epoch``, ``step``, ``loss`` …) and ``run.stop()`` be called. What it
must remember over an interruption it returns from ``state_dict``; checkpoints keep it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class Callback:
    """Base class: override what you need.

    Attributes:
        only_looks: True promises that :meth:`on_step_end` changes nothing that training depends on
            (layers, their settings, the objective), so that worker processes need not be checked
            for changes in each step. Numbers of parameters may change in place, and their masks:
            workers see the first, and only optimizers read the second.
    """

    only_looks = False

    def on_fit_begin(self, run: Run) -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_epoch_begin(self, run: Run) -> None:
        """``run.epoch`` is about to start (or to go on, after a resume)."""

    def on_step_end(self, run: Run) -> None:
        """The weights have just been updated; ``run.loss`` is the loss of this step's batch."""

    def on_epoch_end(self, run: Run) -> None:
        """``run.history[-1]`` describes the epoch that ended."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, or after ``run.stop()``; not after an error."""

    def close(self, run: Run) -> None:
        """Whatever way the run ended, in its last moment; release what you hold."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint, by name: JSON values, and arrays on any device."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; arrays come as NumPy's."""


class EarlyStopping(Callback):
    """Stop when the validation loss has not improved for ``patience`` epochs.

    Args:
        patience: epochs without improvement that are tolerated, ≥ 0.
        min_delta: how much lower a loss must be to count as an improvement.

    Raises:
        ValueError: at the end of the first epoch, if the run has nothing to validate on.
    """

    def __init__(self, patience: int = 3, min_delta: float = 0.0) -> None:
        if patience < 0:
            raise ValueError(f"EarlyStopping: patience must be ≥ 0, got {patience}")
        self.patience, self.min_delta = patience, min_delta
        self.best = math.inf
        self.waited = 0

    def on_fit_begin(self, run: Run) -> None:
        if run.step == 0:  # what another run came to is not this one's
            self.best, self.waited = math.inf, 0
        elif self.waited > self.patience:  # resumed: the run ended here before
            run.stop()

    def on_epoch_end(self, run: Run) -> None:
        loss = run.history[-1].val_loss
        if loss is None:
            raise ValueError("EarlyStopping watches the validation loss: give fit(validate=…)")
        if loss < self.best - self.min_delta:  # which NaN never is
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            run.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
