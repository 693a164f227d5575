"""Dead units: nothing comes in, or nothing goes out.

A unit is an output channel of a convolution or linear layer. Pruning single weights leaves some
that do nothing any more, though a few of their weights are still there:

- *none out*: every weight that reads it is 0. What it computes is lost;
- *none in*: every weight that makes it is 0. It is a constant c, such as relu(b), which the biases
  of its readers can take over, as those of removed channels (``constants.py``)::

      b'[o] = b[o] + Σ_i w[o, i] · c_i

Then every number of it becomes 0: its row, bias and batch norm, and the columns that read it. That
may take the last weight in or out from another unit, so it is done until nobody dies any more.

Shapes stay; ``removal.py`` would cut the units out. In a file, rows and columns of zeros cost
next to nothing (``format/``), and the model's description stays as short as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinycompress import nn
from tinycompress.backend import Array, array_module, on_device, to_device, to_numpy
from tinycompress.compress.prune.constants import Constants
from tinycompress.compress.prune.dependencies import Axis, Dependencies, follow
from tinycompress.compress.prune.removal import WITH_CODES, add_to_bias


def empty_dead_units(model: nn.Module, sample: Any = None) -> nn.Module:
    """A copy of ``model`` in which units that are cut off are all zeros, held there by masks.

    In evaluation it computes what ``model`` does, to rounding. Units that cannot be followed, and
    constants that no bias can take over (a convolution that pads with zeros reads them), are left
    as they are; so are the model's own inputs and outputs. A layer without a bias that has to take
    one over gets one. Make a new optimizer for the copy.

    Args:
        model: pruned, with floats for weights.
        sample: inputs (N, ...), an array or data set: only their shape is used, to run the model.
            None: what the first layer takes, square images of any size.

    Raises:
        TypeError: no model, or one that is prepared for quantization, quantized or compiled.
        ValueError: no shape of its input was found.
    """
    _check_is_float(model)
    found, x = follow(model, sample)
    lean = model.copy()
    free = _free(found)
    emptied: set[int] = set()
    while True:
        unread = free - _with_weights(lean, _columns(found))
        unfed = free - _with_weights(lean, _rows(found))
        unfed -= _take_over(lean, x, found, unfed - emptied)
        dead = (unread | unfed) - emptied
        if not dead:
            return lean
        _empty(lean, found, dead)
        emptied |= dead


def _check_is_float(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"empty_dead_units takes a model, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, WITH_CODES):
            raise TypeError(
                f"empty_dead_units: layer {name!r} is a {type(module).__name__}; empty the units "
                "of the float model first, then quantize that or share its weights"
            )


def _rows(found: Dependencies) -> list[Axis]:
    """The axes whose places make units."""
    return [axis for axis in found.axes if axis.makes]


def _columns(found: Dependencies) -> list[Axis]:
    """The axes whose places read units."""
    return [axis for axis in found.axes if axis.number == 1]


def _free(found: Dependencies) -> set[int]:
    """The labels of all units that may change."""
    made = {label for axis in _rows(found) for label in axis.labels.tolist()}
    return made - found.fixed - set(found.problems)


def _with_weights(model: nn.Module, axes: Iterable[Axis]) -> set[int]:
    """The labels of places that have a weight other than 0 on one of these axes."""
    used: set[int] = set()
    for axis in axes:
        w = to_numpy(model.get_submodule(axis.layer)._parameters[axis.own].data)
        places = np.moveaxis(w, axis.number, 0).reshape(len(axis.labels), -1)
        used |= set(axis.labels[places.any(axis=1)].tolist())
    return used


def _take_over(model: nn.Module, x: Array, found: Dependencies, unfed: set[int]) -> set[int]:
    """Add to biases what these constant units give, in place; the labels where none can do that."""
    if not unfed:
        return set()
    sums = Constants(model, x, found, unfed)
    refused = set(sums.problems)
    if refused:
        sums = Constants(model, x, found, unfed - refused)
    parameters = dict(model.named_parameters())
    for (layer, bias), constants in sums.added.items():
        add_to_bias(model.get_submodule(layer), parameters[bias] if bias else None, constants)
    return refused


def _empty(model: nn.Module, found: Dependencies, dead: set[int]) -> None:
    """Zero every number of these units, in place, and mask their weights."""
    for axis in found.axes:
        places = np.flatnonzero(np.isin(axis.labels, list(dead)))
        if not len(places):
            continue
        module = model.get_submodule(axis.layer)
        p = module._parameters.get(axis.own)
        array = module._buffers[axis.own] if p is None else p.data
        with on_device(array):
            where = (slice(None),) * axis.number + (to_device(places, model.device),)
            array[where] = 0
            if p is not None and p.ndim > 1:
                mask = array_module(array).ones(p.shape, bool) if p.mask is None else p.mask.copy()
                mask[where] = False
                p.mask = mask
        bias = module._parameters.get("bias")
        if axis.makes and bias is not None:  # also one that the layer got since it was followed
            with on_device(bias.data):
                bias.data[to_device(places, model.device)] = 0
