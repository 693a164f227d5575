"""What goes into a layer, and what comes out of it, while a model runs over some data.

Bias correction and AdaRound compare these between a float model and a rounded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, on_device, to_device, to_numpy
from tinycompress.data import Dataset
from tinycompress.graph import no_grad
from tinycompress.nn import evaluation_mode
from tinycompress.tensor import as_array

Look = Callable[[str, Array, Array], None]
"""Called with a layer's name, input and output."""


def images_of(data: Any) -> Array:
    """The images (N, ...) of an array or a data set.

    Raises:
        TypeError: it is neither.
        ValueError: it is no batch, or there are no images in it.
    """
    wanted = "images must be an array (N, ...), a batch of what the model takes, or a data set"
    try:
        images = data.images if isinstance(data, Dataset) else as_array(data)
    except TypeError:
        raise TypeError(f"{wanted}, got {type(data).__name__}") from None
    if images.size == 0 and images.ndim:
        raise ValueError(f"there are no images in the data (shape {images.shape})")
    if images.ndim < 2:
        raise ValueError(f"{wanted}, got shape {images.shape}")
    return images


def check_calibration(model: nn.Module, data: Any) -> None:
    """Refuse data that ``model`` cannot be calibrated with, before anything is done with them.

    Raises:
        TypeError: they are no images, or of another dtype than the model.
        ValueError: there are none, or NaN or infinity is among them.
    """
    images = images_of(data)
    if images.dtype.kind != "f":
        return
    name, first = next(iter(model.named_parameters()), ("", None))
    if first is not None and first.dtype != images.dtype:
        raise TypeError(
            f"the calibration data are {images.dtype}, and {name} is {first.dtype}; give them as "
            f"{first.dtype}, by .astype({first.dtype.name!r})"
        )
    xp = array_module(images)
    with on_device(images):
        bad = ~xp.isfinite(images).reshape(len(images), -1).all(axis=1)
        count = int(bad.sum())
    if count:
        raise ValueError(
            f"the calibration data hold NaN or infinity in {count} of {len(images)} images, first "
            f"in image {int(to_numpy(bad).argmax())}; leave those out"
        )


def batches(model: nn.Module, data: Any, batch_size: int) -> Iterator[Array]:
    """Batches of the images of ``data``, on the model's device."""
    images = images_of(data)
    for start in range(0, len(images), batch_size):
        yield to_device(images[start : start + batch_size], model.device)


def watch(model: nn.Module, names: list[str], data: Any, look: Look, batch_size: int = 100) -> None:
    """Run ``model`` in evaluation over ``data``, and show ``look`` each call of these layers."""
    with ExitStack() as stack:
        for name in names:
            hook = lambda _, inputs, y, n=name: look(n, as_array(inputs[0]), as_array(y))  # noqa: E731
            stack.enter_context(model.get_submodule(name).register_forward_hook(hook))
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(no_grad())
        for batch in batches(model, data, batch_size):
            with on_device(batch):
                model(batch)


def channel_means(
    model: nn.Module, names: list[str], data: Any, batch_size: int = 100
) -> dict[str, np.ndarray]:
    """The mean output of each channel of these layers, (O) float64; none for one not called."""
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}

    def look(name: str, _: Array, y: Array) -> None:
        rows = _rows(model.get_submodule(name), y)
        total = to_numpy(rows.sum(axis=0, dtype=array_module(y).float64))
        sums[name] = sums.get(name, 0) + total
        counts[name] = counts.get(name, 0) + len(rows)

    watch(model, names, data, look, batch_size)
    return {name: sums[name] / counts[name] for name in sums}


def _rows(layer: nn.Module, y: Array) -> Array:
    """The outputs with one column per channel."""
    last = y if isinstance(layer, nn.Linear) else array_module(y).moveaxis(y, 1, -1)
    return last.reshape(-1, last.shape[-1])


def inputs_and_outputs(
    model: nn.Module, name: str, data: Any, batch_size: int = 100
) -> tuple[Array, Array]:
    """All that goes into one layer and comes out, behind each other.

    Where it is called with inputs of several sizes, those of the first one's. It must be called.

    Returns:
        (N, ...) inputs and (N, ...) outputs, on the model's device.
    """
    seen: list[tuple[Array, Array]] = []

    def look(_: str, x: Array, y: Array) -> None:
        if not seen or x.shape[1:] == seen[0][0].shape[1:]:
            seen.append((x, y))

    watch(model, [name], data, look, batch_size)
    xp = array_module(seen[0][0])
    with on_device(seen[0][0]):
        inputs, outputs = (xp.concatenate(parts) for parts in zip(*seen, strict=True))
    return inputs, outputs
