"""What each operation does to the channels that go through it: one rule per operation of ``ops/``.

A rule gets the labels of what goes in and gives those of what comes out (see ``labels.py``):

- *moving* numbers about (reshape, concatenation, …) moves their labels in the same way. So a
  flattened channel becomes a block of columns;
- arithmetic of each value keeps labels and ties those that meet: in a residual sum, channel c of
  one branch and channel c of the other can only go together;
- a convolution or linear layer has labels for its outputs, and ties each column of its weight to
  the label of what it multiplies;
- a sum over channels, or a softmax, mixes them. That is followed no further: they are held.

An operation without a rule holds what goes into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinycompress.backend import is_array, to_numpy
from tinycompress.compress.prune.labels import Labels, compact, no_labels, varying
from tinycompress.ops import (
    activations,
    conv,
    copies,
    dropout,
    elementwise,
    linear,
    norm,
    pool,
    reduce,
    shape,
)


class Operation(NamedTuple):
    """One operation that ran.

    Attributes:
        op: the function of ``ops/``.
        inputs: arrays, numbers or None.
        params: its other arguments.
        output: an array.
        where: the layer in which it ran, in words.
    """

    op: Callable[..., Any]
    inputs: tuple[Any, ...]
    params: Mapping[str, Any]
    output: Any
    where: str

    def __str__(self) -> str:
        return f"{self.op.__name__} in {self.where}"


class Known(Protocol):
    """What rules ask (``dependencies.py`` knows it)."""

    labels: Labels

    def of(self, x: Any, reader: Operation) -> np.ndarray:
        """The labels of an array that an operation reads, of as many axes."""

    def slots(self, weight: Any, axis: int, reader: Operation) -> np.ndarray:
        """The labels along one axis of a weight, (its length)."""


Rule = Callable[[Known, Operation], np.ndarray]

# ------------------------------------------------------------------------------ products and norms


def _convolution(known: Known, call: Operation) -> np.ndarray:
    """Output labels are those of the weight's rows.

    With groups, the inputs and outputs of a group that has only one of either go as a whole
    (depthwise); else channel j of every group goes together, so that the groups stay alike.
    """
    groups, tie = call.params["groups"], known.labels.tie
    incoming = _along(known, call, 1).reshape(groups, -1)
    out = _rows(known, call).reshape(groups, -1)
    if groups > 1 and 1 in (incoming.shape[1], out.shape[1]):
        tie(out, out[:, :1])
        _join(known, incoming, np.broadcast_to(out[:, :1], incoming.shape), call)
    else:
        tie(out, out[:1])
        columns = known.slots(call.inputs[1], 1, call)
        _join(known, incoming, np.broadcast_to(columns, incoming.shape), call)
    return out.reshape(1, -1, 1, 1)


def _linear(known: Known, call: Operation) -> np.ndarray:
    last = call.inputs[0].ndim - 1
    _join(known, _along(known, call, last), known.slots(call.inputs[1], 1, call), call)
    return _rows(known, call).reshape(*(1,) * last, -1)


def _rows(known: Known, call: Operation) -> np.ndarray:
    """The labels of a weight's rows, (O), to which those of its bias are tied."""
    _, w, b = call.inputs
    rows = known.slots(w, 0, call)
    if b is not None:
        _join(known, rows, known.slots(b, 0, call), call)
    return rows


def _batch_norm(known: Known, call: Operation) -> np.ndarray:
    """Each channel has its γ, β, mean and variance; the batch's own statistics follow it."""
    x, *factors = call.inputs
    if not call.params["from_batch"]:
        factors += [call.params["mean"], call.params["var"]]
    channels = _along(known, call, 1)
    for each in factors:
        if each is not None:
            _join(known, channels, known.slots(each, 0, call), call)
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))


def _along(known: Known, call: Operation, axis: int) -> np.ndarray:
    """The labels along one axis of the first input, (its length); held where others vary too."""
    x = call.inputs[0]
    labels = known.of(x, call)
    if varying(labels) - {axis}:
        known.labels.hold(labels, f"{call} has channels along another axis than {axis}")
        return np.zeros(x.shape[axis], int)
    return np.broadcast_to(labels.ravel(), x.shape[axis : axis + 1])


def _join(known: Known, channels: np.ndarray, slots: np.ndarray, call: Operation) -> None:
    """Tie places of a weight to the channels that come there; where none comes, they stay."""
    known.labels.tie(channels, slots)
    known.labels.hold(slots[channels == 0], f"{call} reads numbers that no layer made")
    known.labels.hold(channels[slots == 0], f"{call} has a weight that is no layer's own")


# --------------------------------------------------------------------------------------- arithmetic


def _each_value(known: Known, call: Operation) -> np.ndarray:
    """Labels that meet are tied. An operand without labels must not have their axis."""
    arrays = [x for x in call.inputs if is_array(x)]
    operands = [_with_axes(known.of(x, call), call.output.ndim) for x in arrays]
    joint = operands[0]
    for labels in operands[1:]:
        known.labels.tie(joint, labels)
        joint = compact(np.where(joint == 0, labels, joint))
    for x, labels in zip(arrays, operands, strict=True):
        sizes = (1,) * (joint.ndim - x.ndim) + x.shape
        if any(sizes[axis] > 1 for axis in varying(joint)):
            bare = np.where(labels == 0, joint, 0)
            known.labels.hold(bare, f"{call} joins them with numbers that no layer made")
    return joint


def _with_axes(labels: np.ndarray, ndim: int) -> np.ndarray:
    return labels.reshape((1,) * (ndim - labels.ndim) + labels.shape)


def _reduction(known: Known, call: Operation) -> np.ndarray:
    axes = tuple(call.params["axis"])
    labels = known.of(call.inputs[0], call)
    if varying(labels) & set(axes):
        known.labels.hold(labels, f"{call} mixes its channels")
        return no_labels(call.output)
    return labels if call.params["keepdim"] else labels.squeeze(axes)


def _softmax(known: Known, call: Operation) -> np.ndarray:
    return _unmixed(known, call, {call.params["axis"]})


def _layer_norm(known: Known, call: Operation) -> np.ndarray:
    ndim = call.output.ndim
    return _unmixed(known, call, set(range(ndim - call.params["axes"], ndim)))


def _window(known: Known, call: Operation) -> np.ndarray:
    return _unmixed(known, call, {2, 3})


def _unmixed(known: Known, call: Operation, axes: set[int]) -> np.ndarray:
    """Each output is made from what lies along these axes: one channel, or they are held."""
    labels = known.of(call.inputs[0], call)
    if varying(labels) & axes:
        known.labels.hold(labels, f"{call} mixes its channels")
        fits = all(n in (1, m) for n, m in zip(labels.shape, call.output.shape, strict=True))
        return labels if fits else no_labels(call.output)
    return labels


# ------------------------------------------------------------------------------------------ moving


def _same(known: Known, call: Operation) -> np.ndarray:
    return known.of(call.inputs[0], call)


def _whole(known: Known, call: Operation, x: Any) -> np.ndarray:
    """The labels of ``x``, one for each number in it."""
    return np.broadcast_to(known.of(x, call), x.shape)


def _reshape(known: Known, call: Operation) -> np.ndarray:
    return compact(_whole(known, call, call.inputs[0]).reshape(call.params["shape"]))


def _transpose(known: Known, call: Operation) -> np.ndarray:
    return known.of(call.inputs[0], call).transpose(call.params["axes"])


def _expand(known: Known, call: Operation) -> np.ndarray:
    return _with_axes(known.of(call.inputs[0], call), call.output.ndim)


def _getitem(known: Known, call: Operation) -> np.ndarray:
    """An index names channels by number; only one that takes them all is followed."""
    index = call.params["index"]
    parts = index if isinstance(index, tuple) else (index,)
    host = tuple(to_numpy(part) if is_array(part) else part for part in parts)
    labels = _whole(known, call, call.inputs[0])
    taken = compact(np.asarray(labels[host]))
    if set(np.unique(taken)) != set(np.unique(labels)):
        known.labels.hold(labels, f"{call} takes some of its channels by number")
    return taken


def _cat(known: Known, call: Operation) -> np.ndarray:
    parts = [_whole(known, call, x) for x in call.inputs]
    return compact(np.concatenate(parts, axis=call.params["axis"]))


def _pad(known: Known, call: Operation) -> np.ndarray:
    """Around an image its channels go on; what is put beside channels has none."""
    labels = known.of(call.inputs[0], call)
    channels = varying(labels)
    sizes = [n if axis in channels else 1 for axis, n in enumerate(call.inputs[0].shape)]
    widths = [w if axis in channels else (0, 0) for axis, w in enumerate(call.params["widths"])]
    return np.pad(np.broadcast_to(labels, sizes), widths)


RULES: dict[Callable[..., Any], Rule] = {
    conv.conv2d: _convolution,
    linear.linear: _linear,
    norm.batch_norm: _batch_norm,
    norm.layer_norm: _layer_norm,
    reduce.sum: _reduction,
    reduce.mean: _reduction,
    reduce.var: _reduction,
    reduce.max: _reduction,
    reduce.min: _reduction,
    activations.softmax: _softmax,
    activations.log_softmax: _softmax,
    pool.max_pool2d: _window,
    pool.avg_pool2d: _window,
    pool.adaptive_avg_pool2d: _window,
    shape.reshape: _reshape,
    shape.transpose: _transpose,
    shape.expand: _expand,
    shape.getitem: _getitem,
    shape.cat: _cat,
    shape.pad: _pad,
    copies.clone: _same,
    copies.astype: _same,
    copies.to_device: _same,
    dropout.dropout: _same,
    **dict.fromkeys(
        (
            elementwise.add, elementwise.subtract, elementwise.multiply, elementwise.divide,
            elementwise.power, elementwise.negative, elementwise.exp, elementwise.log,
            elementwise.sqrt, elementwise.absolute, elementwise.clamp, elementwise.where,
            elementwise.maximum, elementwise.minimum, activations.relu, activations.leaky_relu,
            activations.sigmoid, activations.tanh, activations.gelu, activations.silu,
        ),
        _each_value,
    ),
}  # fmt: skip


def labels_after(known: Known, call: Operation) -> np.ndarray:
    """The labels of what an operation gives out."""
    rule = RULES.get(call.op)
    if rule is not None and not call.params.get("steps"):
        return rule(known, call)
    for x in call.inputs:
        if is_array(x):
            known.labels.hold(known.of(x, call), f"there is no rule for {call}")
    return no_labels(call.output)
