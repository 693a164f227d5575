"""Training: one step (``step.py``), the loop (``run.py``), evaluation, checkpoints.

Read ``objective.py``, ``shards.py``, ``step.py``, then ``run.py`` and ``fit.py``; who computes is
``workers.py`` and ``processes.py``; checkpoints are
``checkpoint.py`` (the file) and ``resume.py`` (what of a run is in it).
"""

from tinycompress.train.callbacks import Callback as Callback, EarlyStopping as EarlyStopping
from tinycompress.train.checkpoint import (
    CheckpointError as CheckpointError,
    read_checkpoint as read_checkpoint,
    restore_checkpoint as restore_checkpoint,
    save_checkpoint as save_checkpoint,
)
from tinycompress.train.diagnose import NonFiniteLossError as NonFiniteLossError
from tinycompress.train.evaluate import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    mean_loss as mean_loss,
    predict as predict,
)
from tinycompress.train.fit import fit as fit
from tinycompress.train.history import Epoch as Epoch, History as History
from tinycompress.train.max_norm import MaxNorm as MaxNorm
from tinycompress.train.objective import Objective as Objective, Supervised as Supervised
from tinycompress.train.processes import WorkerError as WorkerError
from tinycompress.train.progress import ProgressBar as ProgressBar
from tinycompress.train.run import Run as Run
from tinycompress.train.step import StepResult as StepResult, value_and_grad as value_and_grad
from tinycompress.train.workers import Workers as Workers, available_cores as available_cores
