"""Pruning: weights that matter little become 0 and stay 0.

In this order: ``importance.py`` (which matter little), ``structure.py`` (what goes as a whole),
``selection.py`` (how many go), ``masks.py`` (how they stay 0) and ``one_shot.py``, which is those
together; pruning in training (``schedules.py``, ``ramp.py``, ``gradual.py``, ``surgery.py``,
``movement.py``) and in rounds of it (``iterative.py``, ``lottery.py``); channels (``labels.py`` …
``dependencies.py``, ``channels.py``, ``removal.py``); which layer how much (``sensitivity.py``,
``allocation.py``). ``sparsity.py`` counts what came of it. docs/reading.md has every file in its
place.
"""

from tinycompress.compress.prune.allocation import choose_sparsities as choose_sparsities
from tinycompress.compress.prune.channels import (
    channel_masks as channel_masks,
    channel_sets as channel_sets,
)
from tinycompress.compress.prune.dead import empty_dead_units as empty_dead_units
from tinycompress.compress.prune.gradual import GradualPruning as GradualPruning
from tinycompress.compress.prune.importance import (
    gradient as gradient,
    l2 as l2,
    lamp as lamp,
    magnitude as magnitude,
    random as random,
    snip as snip,
    taylor as taylor,
)
from tinycompress.compress.prune.iterative import prune_iteratively as prune_iteratively
from tinycompress.compress.prune.lottery import (
    StartAt as StartAt,
    Ticket as Ticket,
    lottery_ticket as lottery_ticket,
)
from tinycompress.compress.prune.masks import apply_masks as apply_masks, strip as strip
from tinycompress.compress.prune.movement import MovementPruning as MovementPruning
from tinycompress.compress.prune.one_shot import choose_masks as choose_masks, prune as prune
from tinycompress.compress.prune.removal import remove_channels as remove_channels
from tinycompress.compress.prune.schedules import (
    cubic as cubic,
    exponential as exponential,
    linear as linear,
)
from tinycompress.compress.prune.sensitivity import (
    PruneConfig as PruneConfig,
    PrunedLayer as PrunedLayer,
    PruneSensitivity as PruneSensitivity,
)
from tinycompress.compress.prune.sparsity import (
    LayerSparsity as LayerSparsity,
    SparsityReport as SparsityReport,
    sparsity_report as sparsity_report,
)
from tinycompress.compress.prune.surgery import DynamicSurgery as DynamicSurgery
