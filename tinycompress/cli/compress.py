"""``tinycompress compress``: Deep Compression, from a trained model to the smallest file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.cli import common, options, output
from tinycompress.cli.options import InitName, RankingName, ScopeName, choices
from tinycompress.cli.recipe import CLIP_NORM, check_rate, optimizer_for, rates_for
from tinycompress.compress.distill.losses import check_weights
from tinycompress.compress.prune.amounts import by_layer, check_sparsity
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.share.half import HALF_BITS
from tinycompress.compress.share.model import MAX_BITS
from tinycompress.format import load, save
from tinycompress.stages import Stage

Value = TypeVar("Value")
LAYERS, TRAINING, TEACHER = "How small", "Training", "Teacher"


@common.command
def compress(
    context: typer.Context,
    file: options.ModelFile,
    out: options.OutFile = Path("compressed.tcz"),
    sparsity: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Share of the weights that become zero, below 1.",
            min=0.0,
            rich_help_panel=LAYERS,
        ),
    ] = 0.9,
    bits: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Of each weight that is left: a layer has 2^N different ones.",
            min=1,
            max=MAX_BITS,
            rich_help_panel=LAYERS,
        ),
    ] = 5,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=X:N",
            help="Another share and other bits for a layer, or for all that fit a pattern (conv*); "
            "LAYER=X or LAYER=:N says one of the two. May be repeated.",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Leave this layer alone, or all that fit a pattern. May be repeated.",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    keep_zeros: Annotated[
        bool,
        typer.Option(
            "--keep-zeros",
            help="Prune no more than the model already is.",
            rich_help_panel=LAYERS,
        ),
    ] = False,
    scope: Annotated[
        ScopeName,
        typer.Option(
            metavar="NAME",
            help="Rank weights over all layers together (global) or in each (local).",
            rich_help_panel=LAYERS,
        ),
    ] = ScopeName.in_all,
    importance: Annotated[
        RankingName,
        typer.Option(
            metavar="NAME",
            help=f"What tells which weights go first: {choices(RankingName)}; lamp where few are "
            "to be left.",
            rich_help_panel=LAYERS,
        ),
    ] = RankingName.magnitude,
    init: Annotated[
        InitName,
        typer.Option(
            metavar="NAME",
            help=f"Where the search for a layer's weights starts: {choices(InitName)}.",
            rich_help_panel=LAYERS,
        ),
    ] = InitName.linear,
    no_half: Annotated[
        bool,
        typer.Option(
            "--no-half",
            help="Keep codebooks and biases as float32, not float16.",
            rich_help_panel=LAYERS,
        ),
    ] = False,
    bias_bits: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Significant bits that a bias keeps.",
            min=1,
            max=HALF_BITS,
            rich_help_panel=LAYERS,
        ),
    ] = HALF_BITS,
    epochs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Of training in which weights are pruned; 0: all at once.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = 10,
    share_epochs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Of training with shared weights.",
            min=0,
            rich_help_panel=TRAINING,
        ),
    ] = 5,
    lr: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Largest learning rate of the first, of SGD.",
            min=0.0,
            rich_help_panel=TRAINING,
        ),
    ] = 0.05,
    share_lr: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="First rate of the second, of Adam.",
            min=0.0,
            rich_help_panel=TRAINING,
        ),
    ] = 1e-3,
    batch_size: options.BatchSize = 128,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A trained network from which both trainings learn. May be repeated.",
            exists=True,
            dir_okay=False,
            show_default="the labels alone",
            rich_help_panel=TEACHER,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Above 0; softens what both networks answer.",
            rich_help_panel=TEACHER,
        ),
    ] = 4.0,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Weight of the teacher; 1 − alpha of the labels.",
            min=0,
            max=1,
            rich_help_panel=TEACHER,
        ),
    ] = 0.9,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    seed: options.Seed = 0,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Prune a model in training, share its weights, train those, and code the file.

    Deep Compression (Han et al. 2016). Each stage is shown with its error on
    the test images and the bytes of its file; --lr and --epochs are best
    chosen on others.
    """
    common.check_writable(out, source=file)
    for master in teacher or ():
        common.check_writable(out, source=master)
    with common.usage("--sparsity"):
        check_sparsity("it", sparsity)
    with common.usage("--temperature, --alpha"):
        check_weights(temperature, alpha)
    check_rate(lr)
    check_rate(share_lr, "--share-lr")
    given = _by_layer(layer or [])
    if keep_zeros:
        how = ("sparsity", "scope", "importance")
        common.refuse_if_given(
            context, how, "says how to prune, and --keep-zeros says not to; leave it out"
        )
        if given[0]:
            why = "has a share to prune, and --keep-zeros prunes nothing; leave out one of them"
            raise typer.BadParameter(why, param_hint="--layer")
    if no_half:
        common.refuse_if_given(context, ("bias_bits",), "rounds to few bits; leave out --no-half")
    if teacher and not (epochs or share_epochs):
        raise typer.BadParameter("teaches in training: give --epochs", param_hint="--teacher")
    model = load(file)
    masters = [load(path) for path in teacher or ()]
    train_set, test_set = common.load_data(dataset, data_dir, full)
    tc.manual_seed(seed)
    found = tc.deep_compress(
        model,
        train_set,
        sparsity=None if keep_zeros else _for_each(model, sparsity, given[0], skip or []),
        bits=_for_each(model, bits, given[1], skip or []),
        epochs=epochs,
        share_epochs=share_epochs,
        init=init.value,
        skip=tuple(skip or ()),
        pruning=None if keep_zeros else {"scope": scope.value, "importance": importance.value},
        teacher=masters or None,
        temperature=temperature,
        alpha=alpha,
        optimizer=optimizer_for(lr),
        rates=rates_for(train_set, epochs, batch_size) if epochs else None,
        share_optimizer=partial(optim.Adam, lr=share_lr),
        validate=test_set,
        half=not no_half,
        bias_bits=bias_bits,
        report=_tell,
        seed=seed,
        workers=workers,
        batch_size=batch_size,
        clip_grad_norm=CLIP_NORM,
        progress=output.show_progress(),
    )
    save(found.model, out)
    if not as_json:
        output.say(str(found))
        output.say()
    common.show_change(file, out, test_set, workers, as_json, found.to_dict())


def _by_layer(given: list[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Layer or pattern → share, and → bits, from ``LAYER=SHARE:BITS``."""
    shares: dict[str, float] = {}
    bits: dict[str, int] = {}
    with common.usage("--layer"):
        for text in given:
            name, equals, values = text.rpartition("=")
            share, _, width = values.partition(":")
            try:
                numbers = float(share) if share else None, int(width) if width else None
            except ValueError:
                equals = ""
            if not name or not equals or numbers == (None, None):
                raise ValueError(f"{text!r} is not LAYER=SHARE:BITS, such as fc1=0.95:6")
            if (name in shares and share) or (name in bits and width):
                raise ValueError(f"{text!r}: {name!r} is given twice")
            if numbers[0] is not None:
                check_sparsity(f"the share of {name!r}", numbers[0])
                shares[name] = numbers[0]
            if numbers[1] is not None:
                bits[name] = numbers[1]
    return shares, bits


def _for_each(model: nn.Module, rest: Value, own: dict[str, Value], skip: list[str]) -> Any:
    """One value for all layers, or a value for each by name where some have their own."""
    if not own:
        return rest
    names = list(prunable_weights(model, skip))
    with common.usage("--layer"):
        return dict.fromkeys(names, rest) | by_layer("layers", own, names)


def _tell(stage: Stage) -> None:
    """A line for who watches."""
    if output.show_progress():
        output.say_aside(str(stage))
