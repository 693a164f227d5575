"""Distillation: a small student learns from what trained teachers answer.

Read ``losses.py`` (the formula), ``terms.py`` (how several losses are one; skip the losses it names
at first), ``objective.py`` (how it gets into training), ``learning.py`` (the verb ``distill``) and
``agreement.py`` (what came of it). Then, each by itself:

* further losses (``matching.py``, ``decoupled.py``, ``hints.py``, ``attention.py``,
  ``relations.py``), and what those that look at layers need (``taps.py``, ``adapters.py``);
* other loops (``ensemble.py``, ``born_again.py``, ``mutual.py``);
* missing labels (``transfer.py``, ``bias.py``);
* students by rule (``family.py``);
* how much a teacher was worth (``report.py``, ``calibration.py``).
"""

from tinycompress.compress.distill.adapters import learned_adapters as learned_adapters
from tinycompress.compress.distill.agreement import Comparison as Comparison, compare as compare
from tinycompress.compress.distill.attention import (
    attention_transfer_loss as attention_transfer_loss,
)
from tinycompress.compress.distill.bias import correct_bias as correct_bias
from tinycompress.compress.distill.born_again import born_again as born_again
from tinycompress.compress.distill.calibration import (
    expected_calibration_error as expected_calibration_error,
    reliability as reliability,
)
from tinycompress.compress.distill.decoupled import decoupled_loss as decoupled_loss
from tinycompress.compress.distill.ensemble import Ensemble as Ensemble
from tinycompress.compress.distill.family import (
    FamilyMember as FamilyMember,
    Scale as Scale,
    largest_within as largest_within,
    scaled_student as scaled_student,
    student_family as student_family,
)
from tinycompress.compress.distill.hints import hint_loss as hint_loss
from tinycompress.compress.distill.learning import distill as distill
from tinycompress.compress.distill.losses import (
    distillation_loss as distillation_loss,
    label_loss as label_loss,
    soft_target_loss as soft_target_loss,
)
from tinycompress.compress.distill.matching import logit_matching_loss as logit_matching_loss
from tinycompress.compress.distill.mutual import (
    MutualObjective as MutualObjective,
    mutual_learning as mutual_learning,
)
from tinycompress.compress.distill.objective import (
    DistillationObjective as DistillationObjective,
    with_teacher_logits as with_teacher_logits,
)
from tinycompress.compress.distill.relations import (
    relational_angle_loss as relational_angle_loss,
    relational_distance_loss as relational_distance_loss,
)
from tinycompress.compress.distill.report import (
    DistillationReport as DistillationReport,
    Grade as Grade,
    distillation_report as distillation_report,
    distillation_trial as distillation_trial,
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
from tinycompress.compress.distill.transfer import (
    few_labels as few_labels,
    joined as joined,
    unlabelled as unlabelled,
    without_classes as without_classes,
)
