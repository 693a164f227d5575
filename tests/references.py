"""The definitions, written out: slow, obvious, and used as oracles.

Each follows its formula index by index in Python, with nothing shared with the library.
"""

import math

import numpy as np

Pair = tuple[int, int]


def conv2d_reference(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """``y[n,o,p,q] = b[o] + Σ w[o,c,i,j] · x[n, c', p·s + i·d − pad, …]``, c' in o's group."""
    (N, _, H, W), (O, Cg, kh, kw) = x.shape, w.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    oh = (H + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (W + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((N, O, oh, ow), x.dtype)
    for n, o, p, q in np.ndindex(y.shape):
        first = o // (O // groups) * Cg  # the first input channel of o's group
        for c, i, j in np.ndindex(Cg, kh, kw):
            row, col = p * sh + i * dh - ph, q * sw + j * dw - pw
            if 0 <= row < H and 0 <= col < W:
                y[n, o, p, q] += w[o, c, i, j] * x[n, first + c, row, col]
        if b is not None:
            y[n, o, p, q] += b[o]
    return y


def pooled_sizes(size: Pair, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Pair:
    """How many windows fit; in ceil_mode one more may hang over the end, if it starts before it."""
    sizes = []
    for n, k, s, p in zip(size, kernel, stride, padding, strict=True):
        starts = list(range(-p, n + p - k + 1, s))
        following = starts[-1] + s if starts else -p
        if ceil_mode and following < n and starts[-1] + k < n + p:
            starts.append(following)
        sizes.append(len(starts))
    return sizes[0], sizes[1]


def max_pool2d_reference(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window, and where it stands: (N, C, oh, ow, 2); first if tied."""
    N, C, H, W = x.shape
    oh, ow = pooled_sizes((H, W), kernel, stride, padding, ceil_mode)
    y, where = np.empty((N, C, oh, ow), x.dtype), np.empty((N, C, oh, ow, 2), int)
    for n, c, p, q in np.ndindex(y.shape):
        best = None
        for i, j in np.ndindex(kernel):
            row, col = p * stride[0] + i - padding[0], q * stride[1] + j - padding[1]
            if (
                0 <= row < H
                and 0 <= col < W
                and (best is None or x[n, c, row, col] > x[n, c][best])
            ):
                best = row, col
        y[n, c, p, q], where[n, c, p, q] = x[n, c][best], best
    return y, where


def avg_pool2d_reference(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
) -> np.ndarray:
    """The mean of each window; zeros of the padding count or not, what hangs over never does."""
    N, C, H, W = x.shape
    oh, ow = pooled_sizes((H, W), kernel, stride, padding, ceil_mode)
    y = np.zeros((N, C, oh, ow), x.dtype)
    for n, c, p, q in np.ndindex(y.shape):
        total, inside, padded = 0.0, 0, 0
        for i, j in np.ndindex(kernel):
            row, col = p * stride[0] + i - padding[0], q * stride[1] + j - padding[1]
            if 0 <= row < H and 0 <= col < W:
                total, inside = total + x[n, c, row, col], inside + 1
            elif row < H + padding[0] and col < W + padding[1]:
                padded += 1
        y[n, c, p, q] = total / (inside + padded if count_include_pad else inside)
    return y


def adaptive_avg_pool2d_reference(x: np.ndarray, output: Pair) -> np.ndarray:
    """Window (p, q) covers rows ⌊pH/oh⌋ … ⌈(p+1)H/oh⌉ − 1, and columns likewise."""
    N, C, H, W = x.shape
    oh, ow = output
    y = np.zeros((N, C, oh, ow), x.dtype)
    for p, q in np.ndindex(oh, ow):
        rows = slice(math.floor(p * H / oh), math.ceil((p + 1) * H / oh))
        cols = slice(math.floor(q * W / ow), math.ceil((q + 1) * W / ow))
        y[:, :, p, q] = x[:, :, rows, cols].mean(axis=(2, 3))
    return y


def softmax_reference(row: np.ndarray) -> list[float]:
    """``exp(x_k) / Σ exp(x_j)`` of one row."""
    powers = [math.exp(v) for v in row]
    return [p / math.fsum(powers) for p in powers]


def cross_entropy_reference(x: np.ndarray, labels: np.ndarray, smoothing: float) -> list[float]:
    """``−Σ_k t_k ln softmax(x)_k`` of each row, t with label smoothing."""
    losses = []
    for row, label in zip(x, labels, strict=True):
        K = len(row)
        target = [smoothing / K + (1 - smoothing) * (k == label) for k in range(K)]
        pairs = zip(target, softmax_reference(row), strict=True)
        losses.append(-math.fsum(t * math.log(p) for t, p in pairs if t))
    return losses


def batch_norm_reference(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, eps: float, statistics: tuple | None = None
) -> np.ndarray:
    """Channel by channel ``(x − mean)/√(var + eps) · w + b``, var the biased one."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        mean, var = (s[c] for s in statistics) if statistics else (values.mean(), values.var())
        y[:, c] = (values - mean) / math.sqrt(var + eps) * w[c] + b[c]
    return y


def layer_norm_reference(
    x: np.ndarray, axes: int, w: np.ndarray, b: np.ndarray, eps: float
) -> np.ndarray:
    """Sample by sample ``(x − mean)/√(var + eps) · w + b`` over the last ``axes`` axes."""
    y = np.empty_like(x)
    for place in np.ndindex(x.shape[: x.ndim - axes]):
        values = x[place]
        y[place] = (values - values.mean()) / np.sqrt(values.var() + eps) * w + b
    return y
