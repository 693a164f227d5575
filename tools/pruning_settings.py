"""Which networks are pruned for ``tools/pruning_results.py``, how, and what there is to choose.

A network that is pruned gradually starts from the dense one of the same seed; one that is pruned
at initialisation (SNIP) starts from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import SELECTION_SEED, train_one_cycle

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.compress import prune
from tinycompress.data import Dataset, RandomShift
from tinycompress.train import Callback, Workers, evaluate, fit

How = Mapping[str, Any]
"""What was chosen: a rate ``lr``, and what else a setting may vary."""

LENET300, LENET5, ARTICLE = "lenet-300-100", "lenet-5", "article-cnn"
SECONDS = {LENET300: 2.0, LENET5: 6.5, ARTICLE: 5.0}
"""About what an epoch of 60,000 images takes on two cores, to say how long a run will be."""

SHIFT = {LENET300: 1, LENET5: 2, ARTICLE: 2}
"""By up to how many pixels training images are shifted, for dense and pruned networks alike."""

SNIP_BATCH = 128
RANKED_ON = 1024
"""How many training images derivatives are taken on, to rank weights or channels."""


@dataclass
class Work:
    """What a run has: data, workers, and where dense models are kept.

    Attributes:
        train, held: images to train on, and to measure on.
        dense: folder of dense models.
        quick: one epoch of everything.
        choices: setting → what was chosen.
    """

    train: Dataset
    held: Dataset
    dense: Path
    team: Workers
    quick: bool = False
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)

    def best(self, name: str) -> How:
        return self.choices.get(name, SETTINGS[name].candidates[0])

    def epochs(self, count: int) -> int:
        return 1 if self.quick else count

    def fit(
        self,
        kind: str,
        model: nn.Module,
        how: How,
        seed: int,
        callbacks: Sequence[Callback] = (),
    ) -> nn.Module:
        """Adam (or, with ``how["decay"]``, SGD) with one cycle, in place."""
        epochs = self.epochs(how["epochs"])
        train_one_cycle(
            model, self.train, epochs, how["lr"], seed, self.team,
            shift=how.get("shift", SHIFT[kind]), weight_decay=how.get("decay"),
            callbacks=callbacks,
        )  # fmt: skip
        return model

    def trained(self, kind: str, seed: int, how: How | None = None) -> nn.Module:
        """The dense model of this seed: trained once, and kept for all settings."""
        how = self.best(f"{kind}-dense") if how is None else how
        part = "selection" if seed == SELECTION_SEED else "final"
        run = f"{len(self.train)}x{self.epochs(how['epochs'])}-{how['lr']}"
        path = self.dense / f"{kind}-{part}-{run}-seed{seed}.tcz"
        if not path.exists():
            random.manual_seed(seed)
            tc.save(self.fit(kind, models.create(kind), how, seed), path)
        return tc.load(path).train()

    def some(self, count: int = RANKED_ON) -> Dataset:
        return self.train.take(min(count, len(self.train)))

    def error(self, model: nn.Module) -> float:
        return round(evaluate(model, self.held, workers=self.team).error, 4)


Made = tuple[nn.Module, dict[str, Any]]  # the model, and what else there is to say of it


@dataclass(frozen=True)
class Setting:
    """One way to prune one network.

    Attributes:
        model: its name.
        what: in words.
        make: ``(work, seed, how, **part) -> (model, what else there is to say)``.
        candidates: to choose from; the first is taken where nothing was chosen.
        seeds: how many are reported.
        parts: what a seed consists of, where that is more than one network.
        tuning: the parts that hyperparameters are chosen by.
        epochs: of training, ``(how, part) -> number``, to say how long it will take.
    """

    model: str
    what: str
    make: Callable[..., Made]
    candidates: tuple[How, ...]
    seeds: int = 5
    parts: tuple[dict[str, Any], ...] = ({},)
    tuning: tuple[dict[str, Any], ...] = ({},)
    epochs: Callable[[How, Mapping[str, Any]], float] = lambda how, part: how["epochs"]


# ---------------------------------------------------------------------------- single weights


def dense(kind: str) -> Callable[..., Made]:
    return lambda work, seed, how: (work.trained(kind, seed, how), {})


def gradual(kind: str, sparsity: float) -> Callable[..., Made]:
    """Of the dense network by magnitude, cubic, over the first part of another run."""

    def make(work: Work, seed: int, how: How) -> Made:
        model = work.trained(kind, seed)
        ramp = prune.GradualPruning(sparsity, end=how["end"])
        return work.fit(kind, model, how, seed + 1000, [ramp]), {}

    return make


def longer(kind: str) -> Callable[..., Made]:
    """The dense network, trained again as long as a pruned one."""

    def make(work: Work, seed: int, how: How) -> Made:
        return work.fit(kind, work.trained(kind, seed), how, seed + 1000), {}

    return make


def snip(kind: str, sparsity: float) -> Callable[..., Made]:
    """Before training, on one batch; then trained.

    With ``how["xavier"]`` the initial weights have the variance of Glorot & Bengio 2010, as SNIP's
    authors advise, so that no layer is preferred for the size of its gradients.
    """

    def make(work: Work, seed: int, how: How) -> Made:
        random.manual_seed(seed)
        model = models.create(kind)
        if how.get("xavier"):
            for layer in model.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.xavier_normal_(layer.weight)
                    nn.init.zeros_(layer.bias)
        model = tc.prune(model, sparsity, "snip", data=work.some(SNIP_BATCH), seed=seed)
        return work.fit(kind, model, how, seed), {}

    return make


CRITERIA = ("magnitude", "taylor", "gradient", "movement", "snip", "random")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def by_criterion(work: Work, seed: int, how: How, criterion: str, sparsity: float) -> Made:
    """The dense network in one shot and trained again; SNIP and movement have their own times."""
    if criterion == "snip":
        return snip(LENET300, sparsity)(work, seed, work.best(f"{LENET300}-dense"))
    model = work.trained(LENET300, seed)
    if criterion == "movement":
        moving = prune.MovementPruning(sparsity, end=0.5)
        return work.fit(LENET300, model, how, seed + 1000, [moving]), {}
    data = None if criterion in ("magnitude", "random") else work.some()
    model = tc.prune(model, sparsity, criterion, data=data, seed=seed)
    before = work.error(model)
    return work.fit(LENET300, model, how, seed + 1000), {"error before training again": before}


# -------------------------------------------------------------------------- lottery tickets


ANEW = "error of a new initialisation"


def lottery(sparsity: float) -> Callable[..., Made]:
    """Iterative magnitude pruning with rewinding, and the ticket's masks on other weights.

    All are trained alike, for as long as in each round: Adam at one rate. The ticket begins at the
    step that it was rewound to, the new initialisation at step 0.
    """

    def make(work: Work, seed: int, how: How) -> Made:
        epochs = work.epochs(how["epochs"])
        options = {"augment": RandomShift(SHIFT[LENET300]), "workers": work.team}

        def optimizer(parameters: list[nn.Parameter]) -> optim.Optimizer:
            return optim.Adam(parameters, lr=how["lr"])

        def trained(model: nn.Module, callbacks: Sequence[Callback] = ()) -> nn.Module:
            rule = optimizer(list(model.parameters()))
            fit(model, work.train, epochs, rule, callbacks=callbacks, seed=seed, **options)
            return model

        random.manual_seed(seed)
        ticket = prune.lottery_ticket(
            models.create(LENET300), sparsity, how["rounds"], work.train, epochs,
            rewind_step=1 if work.quick else how["rewind"],
            optimizer=optimizer, seed=seed, **options,
        )  # fmt: skip
        random.manual_seed(seed + 2000)
        control = trained(ticket.on(models.create(LENET300)))
        winner = trained(ticket.model.copy(), [prune.StartAt(ticket.rewind_step)])
        other = work.error(control)
        more = round(work.error(winner) - other, 4)
        return winner, {ANEW: other, f"more than the {ANEW}": more}

    return make


# ------------------------------------------------------------------------------- channels


def half_of_the_channels(work: Work, seed: int, how: How) -> Made:
    """Removed by magnitude or Taylor's criterion, and trained again."""
    model = work.trained(ARTICLE, seed)
    small = tc.remove_channels(model, 0.5, how["importance"], data=work.some())
    before = work.error(small)
    counts = [nn.summary(m, (1, 28, 28)).macs for m in (model, small)]
    more = {"error before training again": before, "macs": counts[1], "dense macs": counts[0]}
    return work.fit(ARTICLE, small, how, seed + 1000), more


# --------------------------------------------------------------------------- the settings

RATES = (2e-3, 4e-3)


def one_run(epochs: int, rates: Sequence[float] = RATES) -> tuple[How, ...]:
    return tuple({"lr": lr, "epochs": epochs} for lr in rates)


def again(epochs: int, end: float = 0.6) -> tuple[How, ...]:
    return tuple({"lr": lr, "epochs": epochs, "end": end} for lr in RATES)


AS_IN_SNIP = {"shift": 0, "xavier": True}
GRADUALLY = "of the weights, gradually, starting from the dense network"
LONGER = "not pruned, and trained again as long as those that are"

SETTINGS: dict[str, Setting] = {
    f"{LENET300}-dense": Setting(LENET300, "not pruned", dense(LENET300), one_run(12)),
    f"{LENET300}-gradual-92": Setting(
        LENET300, f"92% {GRADUALLY}", gradual(LENET300, 0.92), again(12)
    ),
    f"{LENET300}-gradual-95": Setting(
        LENET300, f"95% {GRADUALLY}", gradual(LENET300, 0.95), [*again(12), *again(30, 0.5)]
    ),
    f"{LENET5}-dense": Setting(LENET5, "not pruned", dense(LENET5), one_run(12)),
    f"{LENET5}-gradual-92": Setting(
        LENET5, f"92% {GRADUALLY}", gradual(LENET5, 0.92), again(10)
    ),
    f"{LENET5}-gradual-99": Setting(
        LENET5, f"99% {GRADUALLY}", gradual(LENET5, 0.99), again(10), seeds=3
    ),
    f"{LENET5}-snip-99": Setting(
        LENET5, "99% of the weights at initialisation (SNIP), then trained",
        snip(LENET5, 0.99),
        (*one_run(12), *({"lr": 2e-2, "epochs": n, **AS_IN_SNIP} for n in (30, 60)),
         *({"lr": 0.1, "epochs": 60, "decay": 5e-4, **AS_IN_SNIP, "shift": n} for n in (0, 1))),
        seeds=3,
    ),
    f"{ARTICLE}-dense": Setting(
        ARTICLE, "not pruned", dense(ARTICLE), one_run(12, RATES[:1]), seeds=3
    ),
    f"{ARTICLE}-half": Setting(
        ARTICLE, "half of the channels of every layer removed, and trained again",
        half_of_the_channels,
        tuple({"lr": 2e-3, "epochs": 8, "importance": name} for name in ("magnitude", "taylor")),
        seeds=3,
    ),
    f"{LENET300}-ticket": Setting(
        LENET300, "a lottery ticket of 96.5%, beside its masks on a new initialisation",
        lottery(0.965), ({"lr": 1.2e-3, "epochs": 4, "rounds": 8, "rewind": 100},),
        epochs=lambda how, part: how["epochs"] * (how["rounds"] + 2),
    ),
    f"{LENET300}-criteria": Setting(
        LENET300, "by each criterion, in one shot, and trained again",
        by_criterion, one_run(3, (1e-3, 2e-3)), seeds=3,
        parts=tuple({"criterion": c, "sparsity": s} for s in SPARSITIES for c in CRITERIA),
        tuning=tuple({"criterion": c, "sparsity": 0.95} for c in ("magnitude", "taylor")),
        epochs=lambda how, part: 12 if part.get("criterion") == "snip" else how["epochs"],
    ),
    f"{LENET300}-dense-again": Setting(
        LENET300, LONGER, longer(LENET300), again(12), seeds=3
    ),
    f"{LENET5}-dense-again": Setting(
        LENET5, LONGER, longer(LENET5), again(10), seeds=3
    ),
}  # fmt: skip
"""In the order in which they are run."""


def dense_of(name: str) -> str | None:
    """The setting that this one is compared with."""
    own = f"{SETTINGS[name].model}-dense"
    return None if own == name else own
