"""Bad input: each mistake gives an error that names the argument, what came, and what to do."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F


def f32(*shape):
    return np.zeros(shape, np.float32)


IMAGES, WEIGHT = f32(2, 4, 6, 5), f32(6, 4, 3, 3)
SCORES, LABELS = f32(3, 4), np.array([0, 3, 1])
T = tc.tensor(f32(2, 3))
X = tc.tensor(f32(2, 3), requires_grad=True)

SHAPES = {
    "add": (lambda: T + f32(2), ValueError, ["add", "(2, 3)", "(2,)", "broadcast"]),
    "power": (lambda: f32(4, 3) ** T, ValueError, ["power", "(4, 3)", "(2, 3)"]),
    "compare": (lambda: f32(4) < T, ValueError, ["gt", "(2, 3)", "(4,)"]),
    "maximum": (lambda: tc.maximum(T, f32(2)), ValueError, ["maximum", "(2,)"]),
    "where, condition": (
        lambda: tc.where(np.zeros(2, bool), T, T),
        ValueError,
        ["where", "(2,)", "(2, 3)"],
    ),
    "where, values": (
        lambda: tc.where(np.zeros((1, 1), bool), f32(4), T),
        ValueError,
        ["where", "(4,)", "(2, 3)"],
    ),
    "where, no condition": (lambda: tc.where(f32(3), T, T), TypeError, ["condition", "float32"]),
    "matmul": (lambda: T @ T, ValueError, ["matmul", "inner sizes", "(2, 3) and (2, 3)"]),
    "matmul, vector": (lambda: T @ f32(2), ValueError, ["matmul", "(2,)"]),
    "matmul, a number": (lambda: T @ 2.0, ValueError, ["matmul", "at least one axis"]),
    "matmul, stacks": (
        lambda: tc.matmul(f32(2, 3, 4), f32(3, 4, 5)),
        ValueError,
        ["matmul", "broadcast"],
    ),
    "reshape": (lambda: T.reshape(4, 2), ValueError, ["reshape", "6 values", "(4, 2)"]),
    "reshape, two open": (lambda: T.reshape(-1, -1), ValueError, ["reshape", "(-1, -1)"]),
    "reshape of one, two open": (lambda: T[0, :1].reshape(-1, -1), ValueError, ["(-1, -1)"]),
    "reshape, no size": (lambda: T.reshape(-2, -3), ValueError, ["reshape", "(-2, -3)"]),
    "reshape, not whole": (lambda: T.reshape(2.0, 3), TypeError, ["reshape", "whole", "2.0"]),
    "flatten": (lambda: T.flatten(1, 0), ValueError, ["flatten", "start=1", "end=0"]),
    "permute": (lambda: T.permute(0, 0), ValueError, ["permute", "(0, 0)", "2 axes"]),
    "permute, too few": (lambda: T.permute(0), ValueError, ["permute", "2 axes"]),
    "expand": (lambda: T.expand(4, 3), ValueError, ["expand", "(2, 3)", "(4, 3)"]),
    "expand, negative": (lambda: T[:, :1].expand(2, -3), ValueError, ["expand", "(2, -3)"]),
    "unsqueeze": (lambda: T.unsqueeze(3), IndexError, ["unsqueeze", "axis 3", "(2, 3)"]),
    "transpose": (lambda: T.transpose(0, 2), IndexError, ["axis 2", "(2, 3)"]),
    "cat": (lambda: tc.cat([T, f32(2, 2)]), ValueError, ["cat", "axis 0", "(2, 2)"]),
    "cat, axis": (lambda: tc.cat([T, T], 2), IndexError, ["axis 2", "(2, 3)"]),
    "cat of nothing": (lambda: tc.cat([]), ValueError, ["cat", "at least one"]),
    "stack": (lambda: tc.stack([T, f32(3, 2)]), ValueError, ["stack", "one shape", "(3, 2)"]),
    "stack of nothing": (lambda: tc.stack([]), ValueError, ["stack", "[]"]),
    "pad": (lambda: T.pad([(1, 1)]), ValueError, ["pad", "each of 2 axes", "[(1, 1)]"]),
    "pad, torch's way": (lambda: T.pad((1, 1)), ValueError, ["pad", "(before, after)", "(1, 1)"]),
    "pad, negative": (lambda: T.pad([(0, 0), (-1, 0)]), ValueError, ["pad", "-1"]),
    "pad, no number": (lambda: T.pad([(0, 0)] * 2, "x"), TypeError, ["pad: value", "str"]),
}
AXES = {
    "sum": (lambda: T.sum(2), IndexError, ["axis 2", "(2, 3)"]),
    "sum, negative": (lambda: T.sum((0, -3)), IndexError, ["axis -3", "(2, 3)"]),
    "sum, twice": (lambda: T.sum((0, -2)), ValueError, ["(0, -2)", "twice"]),
    "sum, no axis": (lambda: T.sum("rows"), TypeError, ["axis", "whole number", "'rows'"]),
    "sum, not whole": (lambda: T.sum(0.0), TypeError, ["axis", "whole number", "0.0"]),
    "softmax": (lambda: F.softmax(T, 2), IndexError, ["axis 2", "(2, 3)"]),
    "softmax, two": (lambda: F.softmax(T, (0, 1)), ValueError, ["softmax", "one axis", "(0, 1)"]),
    "log_softmax": (lambda: T.log_softmax(-3), IndexError, ["axis -3", "(2, 3)"]),
    "softmax of nothing": (
        lambda: F.softmax(f32(2, 0)),
        ValueError,
        ["softmax", "nothing to reduce", "(2, 0)"],
    ),
    "mean of nothing": (lambda: tc.tensor([]).mean(), ValueError, ["mean", "nothing", "(0,)"]),
    "max of nothing": (lambda: tc.tensor(f32(0, 3)).max(0), ValueError, ["max", "axis 0"]),
    "argmax of nothing": (lambda: tc.tensor(f32(3, 0)).argmax(1), ValueError, ["argmax"]),
    "argmax, two": (lambda: T.argmax((0, 1)), ValueError, ["argmax", "one axis"]),
    "var of one value": (lambda: T[:, 0][:1].var(), ValueError, ["var", "correction=1", "got 1"]),
    "var, correction": (lambda: T.var(correction=-1), ValueError, ["var: correction", "-1"]),
    "clamp": (lambda: T.clamp(), ValueError, ["clamp", "min, max or both"]),
    "clamp by a tensor": (lambda: T.clamp(T), TypeError, ["clamp: min", "number", "Tensor"]),
}
LAYERS = {
    "linear, input": (
        lambda: F.linear(f32(2, 5), f32(3, 4)),
        ValueError,
        ["linear", "(2, 5)", "in_features = 4", "(3, 4)"],
    ),
    "linear, weight": (lambda: F.linear(f32(2, 4), f32(4)), ValueError, ["weight", "(4,)"]),
    "linear, bias": (
        lambda: F.linear(f32(2, 4), f32(3, 4), f32(4)),
        ValueError,
        ["linear: bias", "(3,)", "got (4,)"],
    ),
    "linear, 0-d": (lambda: F.linear(1.0, f32(3, 4)), ValueError, ["linear", "()"]),
    "conv2d, axes": (
        lambda: F.conv2d(IMAGES[0], WEIGHT),
        ValueError,
        ["conv2d", "(N, C, H, W)", "(4, 6, 5)"],
    ),
    "conv2d, channels": (
        lambda: F.conv2d(IMAGES[:, :3], WEIGHT),
        ValueError,
        ["conv2d", "3 channels", "takes 4"],
    ),
    "conv2d, groups": (
        lambda: F.conv2d(IMAGES, WEIGHT, groups=4),
        ValueError,
        ["groups=4", "4 input and 6 output"],
    ),
    "conv2d, groups and channels": (
        lambda: F.conv2d(IMAGES, WEIGHT, groups=2),
        ValueError,
        ["groups=2", "takes 8"],
    ),
    "conv2d, no groups": (
        lambda: F.conv2d(IMAGES, WEIGHT, groups=0),
        ValueError,
        ["conv2d: groups", "≥ 1", "0"],
    ),
    "conv2d, kernel": (
        lambda: F.conv2d(IMAGES, WEIGHT, dilation=3),
        ValueError,
        ["spans 7 pixels", "height is 6", "pad more"],
    ),
    "conv2d, no kernel": (
        lambda: F.conv2d(IMAGES, f32(6, 4, 0, 3)),
        ValueError,
        ["conv2d", "kernel"],
    ),
    "conv2d, bias": (lambda: F.conv2d(IMAGES, WEIGHT, f32(4)), ValueError, ["bias", "(6,)"]),
    "conv2d, stride": (
        lambda: F.conv2d(IMAGES, WEIGHT, stride=0),
        ValueError,
        ["conv2d: stride", "≥ 1", "got 0"],
    ),
    "conv2d, strides": (
        lambda: F.conv2d(IMAGES, WEIGHT, stride=(1, 2, 3)),
        ValueError,
        ["conv2d: stride", "(height, width)", "(1, 2, 3)"],
    ),
    "conv2d, padding": (
        lambda: F.conv2d(IMAGES, WEIGHT, padding="same"),
        ValueError,
        ["conv2d: padding", "'same'"],
    ),
    "conv2d, dilation": (
        lambda: F.conv2d(IMAGES, WEIGHT, dilation=1.5),
        ValueError,
        ["conv2d: dilation", "1.5"],
    ),
    "max_pool2d, axes": (lambda: F.max_pool2d(IMAGES[0], 2), ValueError, ["max_pool2d", "(4, 6"]),
    "max_pool2d, no pixels": (
        lambda: F.max_pool2d(f32(1, 1, 0, 4), 2),
        ValueError,
        ["max_pool2d", "pixels", "(1, 1, 0, 4)"],
    ),
    "max_pool2d, kernel": (
        lambda: F.max_pool2d(IMAGES, 7),
        ValueError,
        ["max_pool2d", "(7, 7)", "height is 6"],
    ),
    "max_pool2d, no kernel": (
        lambda: F.max_pool2d(IMAGES, 0),
        ValueError,
        ["max_pool2d: kernel_size", "got 0"],
    ),
    "avg_pool2d, padding": (
        lambda: F.avg_pool2d(IMAGES, 2, padding=2),
        ValueError,
        ["avg_pool2d", "padding (2, 2)", "half of kernel_size (2, 2)"],
    ),
    "avg_pool2d, stride": (
        lambda: F.avg_pool2d(IMAGES, 2, stride=-1),
        ValueError,
        ["avg_pool2d: stride", "-1"],
    ),
    "adaptive_avg_pool2d": (
        lambda: F.adaptive_avg_pool2d(IMAGES, 0),
        ValueError,
        ["adaptive_avg_pool2d: output_size", "got 0"],
    ),
    "batch_norm, axes": (
        lambda: F.batch_norm(f32(3), training=True),
        ValueError,
        ["batch_norm", "(N, C)", "(3,)"],
    ),
    "batch_norm, one value": (
        lambda: F.batch_norm(f32(1, 3), training=True),
        ValueError,
        ["batch_norm", "more than one value", "(1, 3)", "at least two"],
    ),
    "batch_norm, empty batch": (
        lambda: F.batch_norm(f32(0, 3, 4, 4), training=True),
        ValueError,
        ["batch_norm", "more than one value"],
    ),
    "batch_norm, no statistics": (
        lambda: F.batch_norm(IMAGES),
        ValueError,
        ["running_mean and running_var"],
    ),
    "batch_norm, statistics": (
        lambda: F.batch_norm(IMAGES, f32(4), f32(1)),
        ValueError,
        ["running_var", "(4,)", "got (1,)"],
    ),
    "batch_norm, their type": (
        lambda: F.batch_norm(IMAGES, np.zeros(4), f32(4)),
        ValueError,
        ["running_mean", "float32", "float64"],
    ),
    "batch_norm, weight": (
        lambda: F.batch_norm(IMAGES, training=True, weight=f32(3)),
        ValueError,
        ["batch_norm: weight", "(4,)", "got (3,)"],
    ),
    "batch_norm, eps": (
        lambda: F.batch_norm(IMAGES, training=True, eps="small"),
        TypeError,
        ["batch_norm: eps", "str"],
    ),
    "layer_norm": (
        lambda: F.layer_norm(f32(2, 3), 4),
        ValueError,
        ["layer_norm", "(2, 3)", "normalized_shape (4,)"],
    ),
    "layer_norm of nothing": (lambda: F.layer_norm(f32(2, 3), ()), ValueError, ["layer_norm"]),
    "layer_norm, bias": (
        lambda: F.layer_norm(f32(2, 3), 3, f32(3), f32(2)),
        ValueError,
        ["layer_norm: bias", "(3,)", "got (2,)"],
    ),
    "dropout": (lambda: F.dropout(f32(3), 1.5), ValueError, ["dropout: p", "1.5"]),
    "dropout, nan": (lambda: F.dropout(f32(3), float("nan")), ValueError, ["dropout: p", "nan"]),
}
LOSSES = {
    "labels too many": (
        lambda: F.cross_entropy(SCORES, LABELS[:2]),
        ValueError,
        ["cross_entropy: labels", "(3,)", "got shape (2,)"],
    ),
    "label too large": (
        lambda: F.cross_entropy(SCORES, LABELS + 1),
        ValueError,
        ["cross_entropy: labels", "0 … 3", "4 classes", "found 4"],
    ),
    "label negative": (
        lambda: F.nll_loss(SCORES, LABELS - 2),
        ValueError,
        ["nll_loss: labels", "0 … 3", "found -2"],
    ),
    "floating labels": (
        lambda: F.cross_entropy(SCORES, LABELS * 1.0),
        ValueError,
        ["labels", "integers", "float64"],
    ),
    "NaN labels": (
        lambda: F.cross_entropy(SCORES, np.full(3, np.nan)),
        ValueError,
        ["labels", "integers", "float64"],
    ),
    "boolean labels": (
        lambda: F.cross_entropy(SCORES, LABELS > 0),
        ValueError,
        ["labels", "integers", "bool"],
    ),
    "one-hot labels": (
        lambda: F.cross_entropy(SCORES, f32(3, 4)),
        ValueError,
        ["labels", "(3,) integers", "got shape (3, 4)"],
    ),
    "scores of images": (
        lambda: F.cross_entropy(IMAGES, LABELS),
        ValueError,
        ["cross_entropy", "(N, classes)", "(2, 4, 6, 5)"],
    ),
    "an empty batch": (
        lambda: F.cross_entropy(SCORES[:0], LABELS[:0]),
        ValueError,
        ["cross_entropy", "batch is empty"],
    ),
    "an empty batch, mse": (
        lambda: F.mse_loss(SCORES[:0], SCORES[:0]),
        ValueError,
        ["mse_loss", "batch is empty"],
    ),
    "an empty batch, kl_div": (
        lambda: F.kl_div(SCORES[:0], SCORES[:0], "batchmean"),
        ValueError,
        ["kl_div", "batch is empty"],
    ),
    "smoothing": (
        lambda: F.cross_entropy(SCORES, LABELS, 1.0),
        ValueError,
        ["label_smoothing", "[0, 1)", "1.0"],
    ),
    "smoothing, no number": (
        lambda: F.cross_entropy(SCORES, LABELS, "some"),
        TypeError,
        ["label_smoothing", "number", "str"],
    ),
    "reduction": (
        lambda: F.cross_entropy(SCORES, LABELS, reduction="average"),
        ValueError,
        ["reduction", "'average'", '"mean"'],
    ),
    "reduction of another loss": (
        lambda: F.mse_loss(SCORES, SCORES, "batchmean"),
        ValueError,
        ["mse_loss: reduction", "'batchmean'"],
    ),
    "mse_loss": (
        lambda: F.mse_loss(f32(2, 1), f32(2)),
        ValueError,
        ["mse_loss", "(2, 1)", "(2,)", "one shape"],
    ),
    "kl_div": (lambda: F.kl_div(f32(2, 3), f32(3)), ValueError, ["kl_div", "(3,)"]),
    "binary": (
        lambda: F.binary_cross_entropy_with_logits(f32(2), f32(3)),
        ValueError,
        ["binary_cross_entropy_with_logits", "(2,)", "(3,)"],
    ),
    "one_hot": (lambda: F.one_hot(LABELS, 3), ValueError, ["one_hot: labels", "0 … 2", "3"]),
    "one_hot of floats": (lambda: F.one_hot(f32(3), 4), ValueError, ["one_hot", "float32"]),
    "one_hot, no classes": (
        lambda: F.one_hot(LABELS, 0),
        ValueError,
        ["one_hot: num_classes", "0"],
    ),
}
GRADIENTS = {
    "backward of a constant": (lambda: T.sum().backward(), RuntimeError, ["backward", "no_grad"]),
    "grad of a constant": (lambda: tc.grad(T.sum(), [X]), RuntimeError, ["grad", "no_grad"]),
    "backward of many": (lambda: (X * 2.0).backward(), ValueError, ["(2, 3)", "gradient"]),
    "gradient": (
        lambda: (X * 2.0).backward(f32(3, 2)),
        ValueError,
        ["backward", "(3, 2)", "(2, 3)"],
    ),
    "grad by a constant": (
        lambda: tc.grad((X * T).sum(), [X, T]),
        ValueError,
        ["grad", "(2, 3)", "does not require gradients"],
    ),
    "to": (lambda: T.to("gpu"), TypeError, ["to", "device or a dtype", "'gpu'"]),
    "to complex": (lambda: T.to(complex), TypeError, ["numbers or booleans", "complex"]),
    "device": (lambda: tc.tensor([1.0], device="gpu"), ValueError, ["device", '"cuda"', "'gpu'"]),
    "device number": (lambda: T.to("cuda:x"), ValueError, ["device", "'cuda:x'"]),
}
CASES = {
    f"{group}: {name}": case
    for group, table in {
        "shapes": SHAPES,
        "axes": AXES,
        "layers": LAYERS,
        "losses": LOSSES,
        "gradients": GRADIENTS,
    }.items()
    for name, case in table.items()
}


@pytest.mark.parametrize(("mistake", "kind", "fragments"), CASES.values(), ids=CASES)
def test_a_mistake_is_named(mistake, kind, fragments):
    with pytest.raises(kind) as caught:
        mistake()
    assert caught.type is kind
    for fragment in fragments:
        assert fragment in str(caught.value)


MEETINGS = {
    "add": lambda cpu, gpu: cpu + gpu,
    "compare": lambda cpu, gpu: gpu < cpu,
    "matmul": lambda cpu, gpu: gpu @ cpu,
    "maximum": tc.maximum,
    "where": lambda cpu, gpu: tc.where(cpu > 0, gpu, gpu),
    "cat": lambda cpu, gpu: tc.cat([gpu, cpu]),
    "index": lambda cpu, gpu: cpu[gpu > 0],
    "linear": F.linear,
    "conv2d": lambda cpu, gpu: F.conv2d(gpu.reshape(1, 1, 2, 2), cpu.reshape(1, 1, 2, 2)),
    "batch_norm": lambda cpu, gpu: F.batch_norm(gpu, cpu.data[0], cpu.data[0]),
    "layer_norm": lambda cpu, gpu: F.layer_norm(gpu, 2, cpu[0]),
    "cross_entropy": lambda cpu, gpu: F.cross_entropy(gpu, np.array([0, 1])),
    "nll_loss": lambda cpu, gpu: F.nll_loss(gpu, tc.tensor([0, 1])),
    "mse_loss": F.mse_loss,
    "in-place assignment": lambda cpu, gpu: gpu.__setitem__(0, cpu[0]),
    "in-place assignment of an array": lambda cpu, gpu: gpu.__setitem__(0, cpu.data[0]),
    "backward": lambda cpu, gpu: tc.Tensor(gpu, requires_grad=True).backward(cpu),
    "grad": lambda cpu, gpu: tc.grad(x := tc.Tensor(cpu, requires_grad=True), [x], gpu.data),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_two_devices_do_not_meet(name, cupy):
    cpu = tc.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(tc.DeviceError) as caught:
        MEETINGS[name](cpu, cpu.to("cuda:0"))
    operation = name.removesuffix(" of an array")
    for fragment in (operation if operation != "compare" else "lt", "cpu", "cuda:0", ".to("):
        assert fragment in str(caught.value)


def test_two_gpus_do_not_meet(cupy):
    x = tc.tensor([1.0, 2.0])
    with pytest.raises(tc.DeviceError, match=r"add: arrays on cuda:0 and cuda:1 .*\.to\("):
        x.to("cuda:0") + x.to("cuda:1")


def test_indices_from_the_host_are_taken_on_a_gpu(cupy):
    x = tc.tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)
    for index in ([2, 2], np.array([2, 2]), [False, True, True]):
        y = x[index].sum()
        assert tc.Tensor(tc.grad(y, [x])[0]).numpy().sum() == 2
