"""One example of every operation in ``tinycompress/ops``, for tests that go through all of them.

``test_every_operation.py`` checks that none is missing.
"""

import numpy as np
from gradcheck import spaced

from tinycompress.ops import (
    activations,
    conv,
    copies,
    dropout,
    elementwise,
    gather,
    linear,
    losses,
    norm,
    pool,
    reduce,
    shape,
)
from tinycompress.ops.steps import Step

_rng = np.random.default_rng(5)
A, B, ROW = spaced(_rng, 3, 4), spaced(_rng, 3, 4), spaced(_rng, 4)
POSITIVE = np.abs(A) + 0.5
IMAGES = spaced(_rng, 2, 4, 7, 6)
MASK = _rng.random((3, 4)) < 0.5
LABELS = np.array([1, 0, 3])
WINDOW = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0), "ceil_mode": True}
CONV = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
CHANNELS = {"mean": IMAGES.mean((0, 2, 3)), "var": IMAGES.var((0, 2, 3)), "eps": 1e-5}
C = len(CHANNELS["mean"])

CASES = {
    "add": (elementwise.add, [A, ROW], {}),
    "add a number": (elementwise.add, [A, 1.5], {}),
    "subtract": (elementwise.subtract, [ROW, A], {}),
    "multiply": (elementwise.multiply, [A, B], {}),
    "multiply by a number": (elementwise.multiply, [2, B], {}),
    "divide": (elementwise.divide, [A, POSITIVE], {}),
    "divide a number": (elementwise.divide, [1.0, POSITIVE], {}),
    "power": (elementwise.power, [POSITIVE, ROW], {}),
    "power, exponent 0 among others": (elementwise.power, [POSITIVE, np.arange(4.0)], {}),
    "square": (elementwise.power, [A, 2], {}),
    "zeroth power": (elementwise.power, [A, 0], {}),
    "power of a number": (elementwise.power, [2.0, A], {}),
    "power of 0": (elementwise.power, [0, POSITIVE], {}),
    "negative": (elementwise.negative, [A], {}),
    "exp": (elementwise.exp, [A], {}),
    "log": (elementwise.log, [POSITIVE], {}),
    "sqrt": (elementwise.sqrt, [POSITIVE], {}),
    "absolute": (elementwise.absolute, [A], {}),
    "clamp": (elementwise.clamp, [A], {"low": -0.1, "high": 0.1}),
    "clamp below": (elementwise.clamp, [A], {"low": 0, "high": None}),
    "clamp above": (elementwise.clamp, [A], {"low": None, "high": 0.1}),
    "where": (elementwise.where, [MASK, A, ROW], {}),
    "where, a number": (elementwise.where, [MASK, A, 0.5], {}),
    "maximum": (elementwise.maximum, [A, B], {}),
    "maximum with a number": (elementwise.maximum, [0.1, B], {}),
    "minimum": (elementwise.minimum, [A, B], {}),
    "relu": (activations.relu, [A], {}),
    "leaky_relu": (activations.leaky_relu, [A], {"slope": 0.1}),
    "sigmoid": (activations.sigmoid, [A], {}),
    "tanh": (activations.tanh, [A], {}),
    "gelu": (activations.gelu, [A * 8], {}),
    "silu": (activations.silu, [A], {}),
    "softmax": (activations.softmax, [A], {"axis": 1}),
    "softmax, first axis": (activations.softmax, [A], {"axis": 0}),
    "log_softmax": (activations.log_softmax, [A], {"axis": -1}),
    "sum": (reduce.sum, [A], {}),
    "sum over one axis": (reduce.sum, [A], {"axis": 0, "keepdim": True}),
    "sum over no axis": (reduce.sum, [A], {"axis": ()}),
    "mean": (reduce.mean, [A], {"axis": (0, 1)}),
    "var": (reduce.var, [A], {"axis": 1}),
    "max": (reduce.max, [A], {"axis": 1}),
    "max over no axis": (reduce.max, [A], {"axis": ()}),
    "min": (reduce.min, [A], {}),
    "reshape": (shape.reshape, [A], {"shape": (2, 6)}),
    "reshape to 0-d": (shape.reshape, [A[:1, :1]], {"shape": ()}),
    "transpose": (shape.transpose, [IMAGES], {"axes": (2, 0, 3, 1)}),
    "expand": (shape.expand, [ROW], {"shape": (3, 4)}),
    "getitem": (shape.getitem, [A], {"index": (slice(None, None, 2), 1)}),
    "getitem, a number": (shape.getitem, [A], {"index": (0, 0)}),
    "getitem, array": (shape.getitem, [A], {"index": LABELS[:2]}),
    "getitem, repeated": (shape.getitem, [A], {"index": (np.array([1, 1, 2]), LABELS)}),
    "gather": (gather.gather, [ROW, np.array([[4, 0, 2], [2, 4, 1]], np.uint8)], {}),
    "cat": (shape.cat, [A, B, A], {"axis": 1}),
    "pad": (shape.pad, [A], {"widths": ((1, 0), (0, 2)), "value": 1.0}),
    "clone": (copies.clone, [A], {}),
    "astype": (copies.astype, [A], {"dtype": np.dtype("float32")}),
    "to_device": (copies.to_device, [A], {"device": "cpu"}),
    "matmul": (linear.matmul, [A, B.T.copy()], {}),
    "matmul of vectors": (linear.matmul, [ROW, ROW], {}),
    "matmul, vector first": (linear.matmul, [ROW, np.stack([B.T, B.T])], {}),
    "matmul, vector last": (linear.matmul, [np.stack([A, B]), ROW], {}),
    "matmul of stacks": (linear.matmul, [np.stack([A, B]), B.T.copy()], {}),
    "linear": (linear.linear, [A, B, ROW[:3]], {}),
    "linear of stacks, no bias": (linear.linear, [np.stack([A, B]), B, None], {}),
    "conv2d": (conv.conv2d, [IMAGES, spaced(_rng, 6, 2, 3, 2), spaced(_rng, 6)], CONV),
    "conv2d, no bias": (
        conv.conv2d,
        [IMAGES, spaced(_rng, 3, 4, 3, 3), None],
        {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    ),
    "conv2d, depthwise": (
        conv.conv2d,
        [IMAGES, spaced(_rng, 8, 1, 3, 3), spaced(_rng, 8)],
        {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 4},
    ),
    "conv2d, one channel, relu, largest": (
        conv.conv2d,
        [IMAGES[:, :1], spaced(_rng, 3, 1, 3, 3), spaced(_rng, 3)],
        {
            "stride": (1, 1),
            "padding": (1, 1),
            "dilation": (1, 1),
            "groups": 1,
            "steps": (
                Step("relu", activations.relu, monotone=True),
                Step("max_pool2d", pool.max_pool2d, window=(2, 3)),
            ),
        },
    ),
    "conv2d, silu, mean": (
        conv.conv2d,
        [IMAGES, spaced(_rng, 3, 4, 2, 2), spaced(_rng, 3)],
        {
            "stride": (1, 1),
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": 1,
            "steps": (
                Step("silu", activations.silu),
                Step("avg_pool2d", pool.avg_pool2d, window=(3, 2)),
            ),
        },
    ),
    "linear, relu": (
        linear.linear,
        [A, B, ROW[:3]],
        {"steps": (Step("relu", activations.relu, monotone=True),)},
    ),
    "max_pool2d": (pool.max_pool2d, [IMAGES], WINDOW),
    "avg_pool2d": (pool.avg_pool2d, [IMAGES], WINDOW | {"count_include_pad": True}),
    "avg_pool2d, pixels": (pool.avg_pool2d, [IMAGES], WINDOW | {"count_include_pad": False}),
    "adaptive_avg_pool2d": (pool.adaptive_avg_pool2d, [IMAGES], {"output": (3, 4)}),
    "batch_norm": (
        norm.batch_norm,
        [IMAGES, spaced(_rng, C), spaced(_rng, C)],
        CHANNELS | {"from_batch": True},
    ),
    "batch_norm, evaluation": (
        norm.batch_norm,
        [IMAGES, None, None],
        CHANNELS | {"from_batch": False},
    ),
    "layer_norm": (norm.layer_norm, [A, ROW, ROW + 1], {"axes": 1, "eps": 1e-5}),
    "layer_norm, plain": (norm.layer_norm, [A, None, None], {"axes": 2, "eps": 1e-5}),
    "cross_entropy": (losses.cross_entropy, [A], {"labels": LABELS, "smoothing": 0.0}),
    "cross_entropy, smoothed": (losses.cross_entropy, [A], {"labels": LABELS, "smoothing": 0.1}),
    "nll_loss": (losses.nll_loss, [A], {"labels": LABELS}),
    "binary_cross_entropy_with_logits": (
        losses.binary_cross_entropy_with_logits,
        [A, MASK.astype(float)],
        {},
    ),
    "dropout": (dropout.dropout, [A], {"p": 0.3, "key": 12345}),
    "dropout of everything": (dropout.dropout, [A], {"p": 1.0, "key": 1}),
}
"""name → (operation, inputs, parameters); arrays are float64, or boolean or integer."""
