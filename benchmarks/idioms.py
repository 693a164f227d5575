"""Two ways to say the same in NumPy, timed beside each other.

    python -m benchmarks.idioms

Each pair is a few lines of a training step of W on one cache block (16 images), cut out so that it
can be read and timed alone: the way that the engine takes, and the one that comes to mind first. A
pair is checked to give equal results, then the two take turns (``rounds.py``) on one BLAS thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.rounds import median_seconds, ratio, take_turns
from tinycompress.allocator import keep_freed_memory

f4 = np.float32
ROWS, C = 10 * 16 * 10, 64  # what conv2 computes for 16 images: 10 × 10 places, 64 channels
STEPS = 25


class Idiom(NamedTuple):
    """``ours`` and ``naive`` compute the same; each takes no argument and returns an array."""

    name: str
    ours: Callable[[], np.ndarray]
    naive: Callable[[], np.ndarray]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=f4)


def bias_gradient() -> list[Idiom]:
    """The sum over places and images, (M, O) -> (O): a product with ones uses all of BLAS."""
    g = numbers(ROWS, C)
    ones = np.ones(ROWS, f4)
    return [Idiom("bias gradient: ones @ g, not g.sum(0)", lambda: ones @ g, lambda: g.sum(0))]


def masks() -> list[Idiom]:
    """The gradient of a maximum flows to the winner: multiply by a mask of floats."""
    g, winners = numbers(ROWS, C), np.random.default_rng(1).integers(0, 4, (ROWS, C), np.uint8)
    phases = np.arange(4, dtype=np.uint8)[:, None, None]

    def float_mask() -> np.ndarray:
        d = np.empty((4, ROWS, C), f4)
        np.equal(winners, phases, out=d, casting="unsafe")
        d *= g
        return d

    def boolean() -> np.ndarray:
        return (winners == phases) * g

    def where() -> np.ndarray:
        return np.where(winners == phases, g, f4(0))

    def copy_where() -> np.ndarray:
        d = np.zeros((4, ROWS, C), f4)
        np.copyto(d, g, where=winners == phases)
        return d

    return [
        Idiom("mask: float · float, not float · bool", float_mask, boolean),
        Idiom("mask: float · float, not np.where", float_mask, where),
        Idiom("mask: float · float, not copyto(where=)", float_mask, copy_where),
    ]


def products() -> list[Idiom]:
    """One kernel row of conv2, (10 rows, 16 images · 11 columns, 3 · 32) @ (96, 64)."""
    columns, w = numbers(10, 176, 96), numbers(96, C)
    stacked = columns.reshape(10 * 2, 88, 96)  # 88 · 96 · 64 = 540,672 multiply-adds each

    def small() -> np.ndarray:
        return (stacked @ w).reshape(10, 176, C)

    def one() -> np.ndarray:
        return (columns.reshape(-1, 96) @ w).reshape(10, 176, C)

    return [Idiom("product: a stack of small ones, not one large", small, one)]


def transposed_weight() -> list[Idiom]:
    """The input gradient is g @ wᵀ: with wᵀ laid out anew, small, before many products."""
    g, w = numbers(20, 88, C), numbers(96, C)

    def contiguous() -> np.ndarray:
        return g @ np.ascontiguousarray(w.T)

    return [Idiom("product: with a contiguous wᵀ, not a view", contiguous, lambda: g @ w.T)]


def columns() -> list[Idiom]:
    """im2col along the width only, in (H, N, W, C) memory, and the textbook's in (N, C, H, W)."""
    image = numbers(13, 16, 13, 32)  # (H, N, W, C)
    nchw = np.ascontiguousarray(image.transpose(1, 3, 0, 2))
    w = numbers(3, 3, 32, C, seed=1) * f4(0.1)  # (kh, kw, C, O)
    rows, textbook = w.reshape(3, 96, C), w.transpose(2, 0, 1, 3).reshape(-1, C)
    window = np.lib.stride_tricks.sliding_window_view

    def along_the_width() -> np.ndarray:
        view = window(image, 3, axis=2).swapaxes(3, 4)  # (13, 16, 11, kw, C)
        c = np.ascontiguousarray(view).reshape(13, 176, 96)
        y = c[:11] @ rows[0]
        for i in (1, 2):
            y += c[i : i + 11] @ rows[i]
        return y.reshape(11, 16, 11, C)

    def everywhere() -> np.ndarray:
        view = window(nchw, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
        c = np.ascontiguousarray(view).reshape(-1, 288)
        return (c @ textbook).reshape(16, 11, 11, C).transpose(1, 0, 2, 3)

    return [Idiom("convolution: columns along the width, not im2col", along_the_width, everywhere)]


def bias_and_relu() -> list[Idiom]:
    """Both are non-decreasing, so they may follow the maximum, on a quarter of the numbers."""
    y, b = numbers(4, ROWS // 4, C), numbers(C, seed=1)

    def maximum(y: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(y[0], y[1]), np.maximum(y[2], y[3]))

    def after() -> np.ndarray:
        m = maximum(y)
        m += b
        return np.maximum(m, 0, out=m)

    def before() -> np.ndarray:
        return maximum(np.maximum(y + b, 0))

    return [Idiom("bias and ReLU after the pool, not before", after, before)]


def all_idioms() -> list[Idiom]:
    groups = (bias_gradient, masks, products, transposed_weight, columns, bias_and_relu)
    return [idiom for group in groups for idiom in group()]


def agree(idiom: Idiom) -> bool:
    a, b = idiom.ours(), idiom.naive()
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-3))


def time_idiom(idiom: Idiom, rounds: int) -> dict[str, Any]:
    """Turns of ``STEPS`` calls each, in one process: both see the same memory."""
    turns = {
        "ours": lambda: median_seconds(idiom.ours, STEPS),
        "naive": lambda: median_seconds(idiom.naive, STEPS),
    }
    kept = take_turns(turns, rounds)
    return {"seconds": kept, "ratio": ratio(kept, "ours", "naive")._asdict()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.idioms", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=31, help="default: 31")
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    console = Console()
    table = Table(title="the first way's speed over the second's", title_justify="left")
    for column in ("idiom", "µs", "ratio (quartiles)"):
        table.add_column(column, justify="left" if column == "idiom" else "right")
    keep_freed_memory()
    found = {}
    with threadpool_limits(1, user_api="blas"):
        for idiom in all_idioms():
            if not agree(idiom):
                raise AssertionError(f"{idiom.name}: the two ways do not give the same")
            found[idiom.name] = measured = time_idiom(idiom, options.rounds)
            r, seconds = measured["ratio"], measured["seconds"][0]["ours"]
            cell = f"{r['median']:.2f} ({r['q1']:.2f}–{r['q3']:.2f})"
            table.add_row(idiom.name, f"{1e6 * seconds:.0f}", cell)
    console.print(table)
    body = {"settings": {"rounds": options.rounds, "steps": STEPS}, "measurements": found}
    what = "two ways to say the same in NumPy, on one cache block of W, one BLAS thread"
    path = machine.write(options.out, machine.report("idioms", what, body))
    console.print(f"written to {path}", markup=False)


if __name__ == "__main__":
    main()
