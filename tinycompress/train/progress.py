"""A progress bar for training, on standard error: loss, accuracy, images per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinycompress.train.callbacks import Callback

if TYPE_CHECKING:
    from tinycompress.train.run import Run


class ProgressBar(Callback):
    """One bar for the whole run. ``fit(progress=True)`` adds it.

    On a GPU the numbers are read every ``every`` steps only, since reading waits for the device.
    """

    only_looks = True

    def __init__(
        self, label: str = "train", every: int = 10, console: Console | None = None
    ) -> None:
        self.label, self.every = label, every
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )

    def on_fit_begin(self, run: Run) -> None:
        total = run.epochs * run.steps_per_epoch
        self.task = self.progress.add_task(
            self.label, total=total, completed=run.step, numbers="", visible=True
        )
        self.progress.start()

    def on_step_end(self, run: Run) -> None:
        if run.step % self.every and run.batch != run.steps_per_epoch:
            return
        seen = run.seen
        accuracy = "" if seen.accuracy is None else f"accuracy {seen.accuracy:6.2%}  "
        numbers = f"loss {seen.loss:.4f}  {accuracy}{seen.images_per_second:,.0f} images/s"
        label = f"{self.label} epoch {run.epoch + 1}/{run.epochs}"
        self.progress.update(self.task, completed=run.step, description=label, numbers=numbers)

    def close(self, run: Run) -> None:
        self.progress.stop()
