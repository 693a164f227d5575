"""``tc.prepare_qat``: a copy of a model whose layers train with the codes they will have.

What happens to it, in this order; the original stays as it is:

1. batch norm is folded into the layer before it (``fold.py``);
2. convolutions and linear layers become :class:`~.qat.layers.PreparedLayer`, and where activations
   are codes, ``nn.Add`` and ``nn.Concat`` prepared ones, and layers that only hand codes on (ReLU,
   pooling …) ones that can (``qat/passing.py``);
3. a ReLU directly after a layer is taken into it, as the lower end of its clip;
4. the layer whose output is the model's output gives floats: scores are not rounded to a few bits.
   So does one in a Sequential whose next layer is unknown here and computes with floats.

In a Sequential all this can be seen. In a model with a ``forward`` of its own it is found by
running it once on the calibration data; without them, no ReLU is taken in, and the model's output
is taken to be that of the last layer that is defined. Layers that are unknown get floats there.

Training is then ``tc.fit``, and :func:`~.convert.convert` makes integers of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinycompress import nn
from tinycompress.compress.checks import check_model, label_of
from tinycompress.compress.quantize.capture import check_calibration
from tinycompress.compress.quantize.checks import (
    check_layer,
    nothing_to_quantize,
)
from tinycompress.compress.quantize.config import QuantConfig
from tinycompress.compress.quantize.flow import Call, first_images, flow_of, is_plain
from tinycompress.compress.quantize.fold import fold_batch_norm
from tinycompress.compress.quantize.integer import IntegerIdentity, OnFloats
from tinycompress.compress.quantize.qat.joining import PreparedAdd, PreparedConcat, PreparedJoin
from tinycompress.compress.quantize.qat.layers import (
    PreparedConv2d,
    PreparedLayer,
    PreparedLinear,
    Switched,
)
from tinycompress.compress.quantize.qat.passing import PASSING, PreparedReLU, exchanged
from tinycompress.compress.quantize.qat.switches import observe, switched
from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.compress.quantize.replacing import replace_layers
from tinycompress.graph import no_grad
from tinycompress.tensor import Tensor

WEIGHTED: dict[type[nn.Module], type[PreparedLayer]] = {
    nn.Conv2d: PreparedConv2d,
    nn.Linear: PreparedLinear,
}
JOINING: dict[type[nn.Module], type[PreparedJoin]] = {
    nn.Add: PreparedAdd,
    nn.Concat: PreparedConcat,
}
Producer = PreparedLayer | PreparedJoin
Passing = tuple(PASSING.values())


def prepare_qat(
    model: nn.Module, config: QuantConfig | None = None, calibration: Any = None
) -> nn.Module:
    """A copy of ``model`` for quantization-aware training.

    Args:
        model: usually trained; it is not changed. Masks of pruned weights are kept, and hold.
        config: how to quantize (default: 8 bits for weights and activations). Its
            ``activations=None`` leaves activations in floats, and only weights are rounded.
        calibration: images, or a data set, from which activations get their first ranges (or
            learned steps). Without them, they come from the first training step.

    Returns:
        A model with the same parameters under the same names, for ``tc.fit`` and
        :func:`tinycompress.convert`.

    Raises:
        ValueError: there is nothing to quantize, or something cannot be; all of it is named.
    """
    config = QuantConfig(activations=8) if config is None else config
    _check(model, config, calibration)
    return prepared(model, config, calibration)


def prepared(model: nn.Module, config: QuantConfig, calibration: Any) -> nn.Module:
    """The same, of a model that need not be able to train, such as one in float16."""
    if config.activations is None:
        return _with_prepared_layers(model.copy(), config)
    folded = fold_batch_norm(model, calibration, strict=False)
    followed = _followed_by_relu(folded, calibration)
    new = _with_prepared_layers(folded, config)
    _connect(new, calibration, followed)
    if calibration is not None:
        observe(new, calibration)
    return new


def _check(model: Any, config: Any, calibration: Any) -> None:
    check_model("prepare_qat", model)
    if not isinstance(config, QuantConfig):
        raise TypeError(f"config must be a QuantConfig, got {type(config).__name__}")
    if any(isinstance(m, Switched) for m in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} is prepared already; train it and convert it, or prepare "
            "the float model that it was made from"
        )
    if config.dynamic:
        raise ValueError(
            "prepare_qat: with dynamic=True there are no ranges to train with; use dynamic=False, "
            "or tc.quantize(model, config) without training"
        )
    if calibration is not None:
        check_calibration(model, calibration)
    for name, layer in model.named_modules():
        if type(layer) in WEIGHTED and layer.weight.dtype == np.float16:
            raise ValueError(
                f"{label_of(name, layer)}: training with codes needs float32, whose sums of "
                "products are exact, and it is float16; .to('float32') first"
            )


def _with_prepared_layers(model: nn.Module, config: QuantConfig) -> nn.Module:
    new: dict[int, nn.Module] = {}
    problems = [
        f"overrides[{key!r}] fits no layer"
        for key in config.unused_overrides(model.named_modules())
    ]
    for name, layer in model.named_modules():
        label = label_of(name, layer)
        own = config.for_layer(name, layer)
        try:
            if type(layer) in WEIGHTED and own is not None:
                check_layer(layer, own, label)
                new[id(layer)] = WEIGHTED[type(layer)].of(layer, own, label)
            elif type(layer) in JOINING and own is not None and own.activations is not None:
                new[id(layer)] = JOINING[type(layer)].of(layer, own, label).to(model.device)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("this model cannot be prepared:\n  " + "\n  ".join(problems))
    if not any(isinstance(layer, PreparedLayer) for layer in new.values()):
        if any(type(layer) in WEIGHTED for layer in model.modules()):
            raise ValueError("the overrides leave every layer in floats")
        raise ValueError(nothing_to_quantize(model))
    return replace_layers(model, new)


# ------------------------------------------------------------------------------ how codes will flow


class Place(NamedTuple):
    """Where a module stands: ``parent.name``."""

    parent: nn.Module
    name: str
    module: nn.Module


def _connect(model: nn.Module, calibration: Any, followed: list[str]) -> None:
    """Let layers hand on codes; say which of them give floats; take ReLUs in."""
    kinds = {id(m): (m, PASSING[type(m)]) for m in model.modules() if type(m) in PASSING}
    replace_layers(model, {key: exchanged(m, kind) for key, (m, kind) in kinds.items()})
    if any(_has_own_forward(m) for m in model.modules()):
        _wrap_unknown(model)
    chains = list(_chains(model))
    for places in chains:
        whole = is_plain(model) and places is chains[0]
        for position, place in enumerate(places):
            if isinstance(place.module, Producer):
                _give_floats_if_read(place.module, places[position + 1 :], whole)
    if isinstance(model, Producer):
        model.give_floats()
    elif _has_own_forward(model):
        _find_output(model, calibration)
    for name in followed:
        _take_relu_in(model.get_submodule(name))
    for places in chains:
        _absorb(model, places)
    _drop_input_grids(chains)


def _is_known(module: nn.Module) -> bool:
    return isinstance(module, (*Passing, PreparedLayer, PreparedJoin, OnFloats))


def _has_own_forward(module: nn.Module) -> bool:
    """Whether it runs known layers in a way that cannot be seen from outside."""
    if _is_known(module) or is_plain(module) or isinstance(module, nn.ModuleList):
        return False
    return any(_is_known(m) for m in module.modules())


def _wrap_unknown(module: nn.Module) -> None:
    """Put every layer below ``module`` that is not known where it gets floats."""
    for name, child in list(module.named_children()):
        if _is_known(child):
            continue
        if is_plain(child) or isinstance(child, nn.ModuleList) or _has_own_forward(child):
            _wrap_unknown(child)
        else:
            setattr(module, name, OnFloats(child).train(child.training))


def _chains(module: nn.Module) -> Iterator[list[Place]]:
    """What each plain Sequential runs, those inside it included, in order; the outermost first."""
    inner: Iterable[nn.Module] = module.children()
    if is_plain(module):
        yield (places := list(_in_a_row(module)))
        inner = [place.module for place in places]
    for child in inner:
        yield from _chains(child)


def _in_a_row(sequential: nn.Module) -> Iterator[Place]:
    for name, child in sequential.named_children():
        if is_plain(child):
            yield from _in_a_row(child)
        else:
            yield Place(sequential, name, child)


def _give_floats_if_read(producer: Any, followers: list[Place], is_whole_model: bool) -> None:
    """Floats, where they leave the model or go to a layer that computes with floats."""
    reader = next((p.module for p in followers if not isinstance(p.module, Passing)), None)
    if reader is None:
        floats = is_whole_model
    else:
        floats = isinstance(reader, OnFloats) or not (_is_known(reader) or _has_own_forward(reader))
    if floats:
        producer.give_floats()


def _find_output(model: nn.Module, calibration: Any) -> None:
    """Let the layer whose output is the model's give floats."""
    producers: list[Any] = [m for m in model.modules() if isinstance(m, Producer)]
    if calibration is None:
        producers[-1].give_floats()
        return
    grids: list[tuple[Any, Any]] = []
    hooks = [
        m.register_forward_hook(lambda m, _, y: grids.append((m, getattr(y, "grid", None))))
        for m in producers
    ]
    quiet = switched(model, observing=False, rounding=False)
    with nn.evaluation_mode(model), quiet, no_grad():
        output = model(Tensor(first_images(model, calibration)))
    for hook in hooks:
        hook.remove()
    for producer, grid in grids:
        if isinstance(output, QTensor) and grid is output.grid:
            producer.give_floats()


# ----------------------------------------------------------------------------------------- ReLUs


def _followed_by_relu(model: nn.Module, sample: Any) -> list[str]:
    """The layers whose output only a ReLU reads, as far as running the model shows."""
    if sample is None:
        return []
    flow = flow_of(model, sample)
    found = []
    for call in flow.calls:
        reader = flow.reader(call)
        once = sum(other.layer is call.layer for other in flow.calls) == 1
        if once and isinstance(reader, Call) and type(reader.layer) is nn.ReLU:
            found.append(call.name)
    return found


def _take_relu_in(layer: Any) -> None:
    if isinstance(layer, PreparedLayer | PreparedAdd) and layer.output_quantizer is not None:
        layer.relu = True


def _absorb(model: nn.Module, places: list[Place]) -> None:
    """In a Sequential, take each ReLU that directly follows a layer into that layer."""
    children = [child for m in model.modules() for child in m.children()]
    for position, place in enumerate(places):
        layer = place.module
        if not isinstance(layer, PreparedLayer) or layer.output_quantizer is None:
            continue
        following = (p for p in places[position + 1 :] if type(p.module) is not IntegerIdentity)
        relu = next(following, None)
        once = sum(child is layer for child in children) == 1
        if once and relu is not None and isinstance(relu.module, PreparedReLU):
            layer.relu = True
            setattr(relu.parent, relu.name, IntegerIdentity().train(relu.module.training))


def _drop_input_grids(chains: list[list[Place]]) -> None:
    """Of layers that always get codes, in each place where they stand."""
    floats: set[int] = set()
    layers: dict[int, PreparedLayer] = {}
    for places in chains:
        before: Any = None
        for _, _, module in places:
            if isinstance(module, PreparedLayer):
                layers[id(module)] = module
                if not isinstance(before, Producer) or before.output_quantizer is None:
                    floats.add(id(module))
            before = before if isinstance(module, Passing) else module
    for key in layers.keys() - floats:
        layers[key].input_quantizer = None
