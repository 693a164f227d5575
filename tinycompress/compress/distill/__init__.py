"""Distillation: a small student learns from what a trained teacher answers.

Read ``losses.py`` (the formula), ``objective.py`` (how it gets into training), ``one_teacher.py``
(the verb ``distill``), ``agreement.py`` (what came of it).
"""

from tinycompress.compress.distill.agreement import Comparison as Comparison, compare as compare
from tinycompress.compress.distill.losses import (
    distillation_loss as distillation_loss,
    soft_target_loss as soft_target_loss,
)
from tinycompress.compress.distill.objective import (
    DistillationObjective as DistillationObjective,
    with_teacher_logits as with_teacher_logits,
)
from tinycompress.compress.distill.one_teacher import distill as distill
