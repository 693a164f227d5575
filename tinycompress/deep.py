"""Deep Compression: prune, share weights, code. The whole chain down to the file.

    float       w, 32 bits each
    pruned      most w are 0 and held there; the others are trained on          compress/prune
    emptied     units that this cut off are 0, biases take them over            compress/prune
    shared      w = codebook[code], 2^b numbers for each layer                  compress/share
    fine-tuned  the codebooks are trained:  ∂L/∂c_k = Σ ∂L/∂w over code k
    rounded     codebooks, biases and norms to float16, two bytes each
    the file    codes and places of what is left are entropy-coded              format/

Han, Mao & Dally 2016, arXiv:1510.00149, with gradual pruning (Zhu & Gupta 2017) in the place of
rounds, and a teacher where there is one. Read those folders first; here they follow each other, and
``stages.py`` says what each step cost and gained, in the bytes of the real file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinycompress import nn, optim
from tinycompress.compress.distill.learning import distill
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.distill.objective import Teachers, checked_terms
from tinycompress.compress.prune import GradualPruning, empty_dead_units
from tinycompress.compress.prune.iterative import (
    MakeOptimizer,
    MakeRates,
    check_functions,
    refuse_ramps,
)
from tinycompress.compress.share import round_to_half, share_weights
from tinycompress.compress.share.half import HALF_BITS, check_bias_bits
from tinycompress.data import Dataset, batch_count
from tinycompress.optim.checks import count
from tinycompress.report import check_data
from tinycompress.stages import Compressed, Stage, layers_of, measured
from tinycompress.train import Workers, fit

BATCH_SIZE = 128
OPTIONS = ("batch_size", "augment", "clip_grad_norm", "callbacks", "shard_size", "progress")
TAUGHT = ("terms", "teacher_weights")
"""What else may be said of the trainings, and of those with a teacher."""


def deep_compress(
    model: nn.Module,
    data: Dataset,
    *,
    sparsity: float | Mapping[str, float] | None = 0.9,
    bits: int | Mapping[str, int] = 5,
    epochs: int = 10,
    share_epochs: int = 5,
    init: str = "linear",
    skip: str | Iterable[str] = (),
    pruning: Mapping[str, Any] | None = None,
    teacher: Teachers | None = None,
    temperature: float = 4.0,
    alpha: float = 0.9,
    optimizer: MakeOptimizer | None = None,
    rates: MakeRates | None = None,
    share_optimizer: MakeOptimizer | None = None,
    share_rates: MakeRates | None = None,
    validate: Dataset | None = None,
    half: bool = True,
    bias_bits: int = HALF_BITS,
    report: Callable[[Stage], None] | None = None,
    seed: int = 0,
    workers: Workers | int | None = None,
    **options: Any,
) -> Compressed:
    """Prune ``model`` while it is trained, share what is left, and train that.

    Args:
        model: usually trained, with floats for weights; it is not changed.
        data: images and labels to train on.
        sparsity: the share of weights to be zero, 0 ≤ s < 1, or a share for each layer by name or
            pattern, the others being left dense. None: what is pruned already, and no more.
        bits: of a code, for each weight that is left: as for :func:`tinycompress.share_weights`.
        epochs: of training in which weights are pruned; 0: in one shot, without training.
        share_epochs: of training with shared weights; 0: none.
        init: where the search for codebooks starts: "linear", "density" or "random".
        skip: names or patterns of layers that are neither pruned nor shared.
        pruning: what else ``GradualPruning`` takes, such as ``{"scope": "local", "end": 0.6}``.
        teacher: a trained model, or several: both trainings are then distillation.
        temperature, alpha: of it, as for :func:`tinycompress.distill`.
        optimizer: ``parameters -> optimizer``, for the first training; None for Adam.
        rates: ``optimizer -> schedule of its learning rates``, likewise, moved on as ``fit`` does:
            ``OneCycleLR`` at each update, others at each epoch. None for rates that fall to 0 as
            half a cosine, update by update.
        share_optimizer, share_rates: the same for the second training. A codebook's derivative is
            the sum of many, so that rates for Adam suit, and those for SGD must be small.
        validate: what each stage's error and loss are measured on; None: on nothing.
        half: round what the file keeps as floats to float16.
        bias_bits: how many significant bits of a bias are kept, 1 … 11, the 11 of float16.
        report: called with each stage as soon as it is done.
        seed: of the order of images and of what is drawn at random.
        workers: as for :func:`tinycompress.fit`.
        options: of both trainings: ``batch_size``, ``augment``, ``clip_grad_norm``, ``callbacks``,
            ``shard_size``, ``progress``; with a teacher also ``terms`` and ``teacher_weights``.

    Returns:
        The small model, what each stage was, what each layer costs, and the pruned float model
        (:class:`~.stages.Compressed`).

    Raises:
        TypeError, ValueError: an argument out of range, an unknown layer, a model that has codes
            already. What can be seen in advance is refused before anything is trained.
    """
    sharing: dict[str, Any] = {"init": init, "skip": skip, "seed": seed}
    training = _Training(data, teacher, temperature, alpha, seed, workers, options)
    check_functions(
        "deep_compress",
        optimizer=optimizer,
        rates=rates,
        share_optimizer=share_optimizer,
        share_rates=share_rates,
        report=report,
    )
    _check_lengths(epochs, share_epochs, teacher)
    if validate is not None:
        check_data("deep_compress", validate)
    check_bias_bits("deep_compress", bias_bits)
    if bias_bits != HALF_BITS and not half:
        raise ValueError(f"deep_compress: bias_bits={bias_bits} rounds, and half=False says not to")
    plan = _plan(model, sparsity, pruning, {"data": data, "skip": skip, "seed": seed})
    ahead = share_weights(model, bits, **sharing)  # what these refuse, they refuse now
    if half:
        round_to_half(ahead, bias_bits)

    stages: list[Stage] = []

    def done(name: str, now: nn.Module) -> nn.Module:
        stages.append(measured(name, now, model, validate, workers))
        if report is not None:
            report(stages[-1])
        return now

    done("float", model)
    thin = model.copy()
    if epochs:
        thin = training.run(thin, epochs, optimizer, rates, [] if plan is None else [plan])
    elif plan is not None:
        plan.prune(thin, 1.0)
    done("pruned", thin)
    lean = done("emptied", empty_dead_units(thin, data))
    small = done("shared", share_weights(lean, bits, **sharing))
    if share_epochs:
        small = training.run(small, share_epochs, share_optimizer, share_rates)
        done("fine-tuned", small)
    if half:
        small = done("rounded", round_to_half(small, bias_bits))
    return Compressed(small, tuple(stages), layers_of(small), thin)


def _check_lengths(epochs: int, share_epochs: int, teacher: Teachers | None) -> None:
    count("deep_compress: epochs", epochs, least=0)
    count("deep_compress: share_epochs", share_epochs, least=0)
    if teacher is not None and not (epochs or share_epochs):
        raise ValueError("deep_compress: nothing is trained, so there is nothing to teach")


def _plan(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None,
    pruning: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> GradualPruning | None:
    """What prunes in the first training, and fits this model."""
    if pruning is not None and not isinstance(pruning, Mapping):
        raise TypeError(f"deep_compress: pruning must be a mapping of options, got {pruning!r}")
    if sparsity is None:
        if pruning:
            raise ValueError("deep_compress: pruning={…} says how, and sparsity=None says not")
        return None
    plan = GradualPruning(sparsity, **(options | dict(pruning or {})))
    plan.check_model(model)
    return plan


class _Training:
    """How the model is trained, each of the two times."""

    def __init__(
        self,
        data: Dataset,
        teacher: Teachers | None,
        temperature: float,
        alpha: float,
        seed: int,
        workers: Workers | int | None,
        options: Mapping[str, Any],
    ) -> None:
        check_data("deep_compress", data)
        known = OPTIONS if teacher is None else (*OPTIONS, *TAUGHT)
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(
                f"deep_compress: there is no option {', '.join(map(repr, unknown))}; beside its "
                f"arguments there are {', '.join(OPTIONS)}, and with a teacher {', '.join(TAUGHT)}"
            )
        given = options.get("callbacks", ())
        self.callbacks = list(given) if isinstance(given, Iterable) else given
        refuse_ramps("deep_compress", self.callbacks)
        check_weights(temperature, alpha)
        self.data, self.teacher = data, teacher
        self.batch_size = count(
            "deep_compress: batch_size", options.get("batch_size", BATCH_SIZE), least=1
        )
        own = {"seed": seed, "workers": workers, "batch_size": self.batch_size}
        self.options = {**options, **own}
        if "terms" in options:
            self.options["terms"] = checked_terms(options["terms"])
        if teacher is not None:
            self.options |= {"temperature": temperature, "alpha": alpha}

    def run(
        self,
        model: nn.Module,
        epochs: int,
        optimizer: MakeOptimizer | None,
        rates: MakeRates | None,
        callbacks: Iterable[Any] = (),
    ) -> nn.Module:
        """``model``, trained, in place or as a copy."""
        rule = (optimizer or optim.Adam)(list(model.parameters()))
        how = self.options | {"optimizer": rule, "callbacks": [*callbacks, *self.callbacks]}
        if rates is None:
            steps = epochs * batch_count(self.data, self.batch_size)
            how |= {"schedule": optim.CosineAnnealingLR(rule, steps), "schedule_every": "step"}
        else:
            how["schedule"] = rates(rule)
        if self.teacher is not None:
            return distill(self.teacher, model, self.data, epochs=epochs, **how)
        fit(model, self.data, epochs, **how)
        return model
