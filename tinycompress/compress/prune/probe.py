"""A model run once on random numbers, and every operation watched.

Where no sample says what goes into the model, its layers say how many channels or features that may
be, and sizes of square images are tried until the model runs: a linear layer behind a flatten takes
only the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, is_array, on_device, to_device
from tinycompress.compress.prune.following import Operation
from tinycompress.compress.quantize.capture import images_of
from tinycompress.compress.quantize.flow import tensors_in
from tinycompress.compress.quantize.qat.switches import switched
from tinycompress.graph import no_grad, watch_operations
from tinycompress.nn import evaluation_mode
from tinycompress.nn.state import arrays_by_name
from tinycompress.tensor import Tensor

IMAGES = 3  # enough to see whether something depends on the image
SIDES = (28, 32, *range(1, 65), 96, 128, 224)  # of square images, in the order of trying

Look = Callable[[Operation], None]


def random_input(model: nn.Module, sample: Any = None) -> Array:
    """Normal random numbers of the shape that the model takes, always the same ones.

    Args:
        model: its dtype and device are those of the input.
        sample: an array or data set of inputs, (N, ...), for the shape. Whole numbers are taken as
            they are.

    Raises:
        ValueError: there is no sample, and no shape was found.
    """
    if sample is not None:
        images = images_of(sample)
        if images.dtype.kind != "f":
            return to_device(images[:IMAGES], model.device)
        return _normal(model, images.shape[1:])
    probe = model.copy()
    for shape in _shapes(model):
        x = _normal(model, shape)
        try:
            given = run_watched(probe, x, lambda call: None)
        except Exception:
            continue
        if all(y.shape[:1] == (IMAGES,) for y in given):  # an output for each image
            return x
    raise ValueError(
        f"{type(model).__name__}: no shape of its input was found by trying; give sample=, an "
        "array (N, ...) or a data set of inputs"
    )


def _normal(model: nn.Module, shape: tuple[int, ...]) -> Array:
    dtypes = [a.dtype for _, a, _ in arrays_by_name(model) if a.dtype.kind == "f"]
    x = np.random.default_rng(0).normal(size=(IMAGES, *shape))
    return to_device(x.astype(dtypes[0] if dtypes else np.float32), model.device)


def _shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Shapes that may be right: by what the layers take, in the order of definition."""
    tried: set[tuple[int, ...]] = set()
    for layer in model.modules():
        for shape in _taken_by(layer):
            if shape not in tried:
                tried.add(shape)
                yield shape


def _taken_by(layer: nn.Module) -> Iterator[tuple[int, ...]]:
    if isinstance(layer, nn.Linear):
        yield (layer.in_features,)
    elif isinstance(layer, nn.BatchNorm1d):
        yield (layer.num_features,)
    elif isinstance(layer, nn.Conv2d):
        yield from ((layer.in_channels, side, side) for side in SIDES)
    elif isinstance(layer, nn.BatchNorm2d):
        yield from ((layer.num_features, side, side) for side in SIDES)


def run_watched(model: nn.Module, x: Array, look: Look) -> list[Array]:
    """Run ``model`` in evaluation, layer by layer, and let ``look`` see each operation.

    Give it a copy: its layers' ``forward`` is another one meanwhile.

    A model that is prepared for quantization runs in floats, on its latent weights.

    Returns:
        What it gives out.
    """
    inside: list[str] = []

    def watch(function: Callable[..., Any], _: str, direction: str) -> Callable[..., Any]:
        def watched(*inputs: Any, **params: Any) -> Any:
            result = function(*inputs, **params)
            if direction == "forward" and is_array(result[0]):
                where = inside[-1] if inside else "the model"
                look(Operation(function, inputs, params, result[0], where))
            return result

        return watched

    with (
        _layers_named(model, inside),
        evaluation_mode(model),
        switched(model, observing=False, rounding=False),
        nn.fusion(False),
        no_grad(),
        on_device(x),
    ):
        before = watch_operations(watch)
        try:
            return [t.data for t in tensors_in(model(Tensor(x)))]
        finally:
            watch_operations(before)


@contextmanager
def _layers_named(model: nn.Module, inside: list[str]) -> Iterator[None]:
    """While a layer runs, its name is the last of ``inside``."""
    modules = list(model.named_modules())
    before = [module.__dict__.get("forward") for _, module in modules]

    def named(forward: Callable[..., Any], label: str) -> Callable[..., Any]:
        def inner(*inputs: Any, **options: Any) -> Any:
            inside.append(label)
            try:
                return forward(*inputs, **options)
            finally:
                inside.pop()

        return inner

    for name, module in modules:
        label = f"{name} ({type(module).__name__})" if name else type(module).__name__
        module.__dict__["forward"] = named(module.forward, label)
    try:
        yield
    finally:
        for (_, module), forward in zip(modules, before, strict=True):
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward
