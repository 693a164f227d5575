"""Distillation: a small student learns from what a trained teacher answers.

Read ``losses.py`` (the formula), ``objective.py`` (how it gets into training), ``learning.py``
(the verb ``distill``), ``agreement.py`` (what came of it).
"""

from tinycompress.compress.distill.adapters import learned_adapters as learned_adapters
from tinycompress.compress.distill.agreement import Comparison as Comparison, compare as compare
from tinycompress.compress.distill.attention import (
    attention_transfer_loss as attention_transfer_loss,
)
from tinycompress.compress.distill.decoupled import decoupled_loss as decoupled_loss
from tinycompress.compress.distill.hints import hint_loss as hint_loss
from tinycompress.compress.distill.learning import distill as distill
from tinycompress.compress.distill.losses import (
    distillation_loss as distillation_loss,
    label_loss as label_loss,
    soft_target_loss as soft_target_loss,
)
from tinycompress.compress.distill.matching import logit_matching_loss as logit_matching_loss
from tinycompress.compress.distill.objective import (
    DistillationObjective as DistillationObjective,
    with_teacher_logits as with_teacher_logits,
)
from tinycompress.compress.distill.relations import (
    relational_angle_loss as relational_angle_loss,
    relational_distance_loss as relational_distance_loss,
)
from tinycompress.compress.distill.taps import Taps as Taps
from tinycompress.compress.distill.terms import (
    Attention as Attention,
    Decoupled as Decoupled,
    Hint as Hint,
    Labels as Labels,
    LogitMatching as LogitMatching,
    Relations as Relations,
    SoftTargets as SoftTargets,
    Term as Term,
)
