"""The pictures of docs/quantization.md, and the numbers in them.

    python tools/quantization_plots.py

Trains LeNet-5 for three epochs on the sample that comes with the package (some seconds), and writes
``docs/images/quantization-*.svg``. Needs matplotlib: ``pip install 'tinycompress[plot]'``.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from pictures import save

import tinycompress as tc
from tinycompress import models, optim
from tinycompress.compress.answers import snr_db
from tinycompress.compress.quantize import (
    IntegerRange,
    article_dequantize,
    article_quantize,
    choose_qparams,
    make_observer,
)
from tinycompress.compress.quantize.affine import fake_quantize
from tinycompress.compress.quantize.capture import inputs_and_outputs
from tinycompress.compress.quantize.config import OBSERVERS
from tinycompress.compress.quantize.weights import dequantize_weight, quantize_weight

SIZE = (7.0, 3.2)  # inches


def trained_lenet() -> tuple[Any, Any]:
    tc.manual_seed(0)
    train, _ = tc.data.mnist()
    model = models.LeNet5()
    tc.fit(model, train, 3, optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    return model.eval(), train


def grid() -> None:
    """Every number beside what comes back of it, with three bits."""
    x = np.linspace(-0.6, 1.0, 1601).astype(np.float32)
    article = article_dequantize(article_quantize(x, bits=3))
    figure, (left, right) = plt.subplots(1, 2, figsize=SIZE, sharey=True)
    target = IntegerRange(3, signed=False)
    scale, zero = choose_qparams(np.float64(-0.6), np.float64(1.0), target, "affine", np.float32)
    ours = fake_quantize(x, scale, zero, target)
    for axis, y, title in (
        (left, article, "the article's formula"),
        (right, ours, "zero is a code"),
    ):
        axis.plot(x, x, color="0.8", linewidth=1)
        axis.step(x, y, where="mid", linewidth=1.5)
        at_zero = float(y[np.abs(x).argmin()])
        axis.plot([0], [at_zero], "o", color="tab:red")
        axis.annotate(f"0 → {at_zero:.3f}", (0, at_zero), (-0.55, at_zero + 0.35))
        axis.set(title=title, xlabel="a number")
    left.set_ylabel("what comes back")
    print(f"grid, 3 bits of −0.6 … 1: scale {float(scale[0]):.4f}, zero point {int(zero[0])}")
    save(figure, "quantization-grid")


def noise(model: Any) -> None:
    """Signal-to-noise ratio of fc1's weights against bits."""
    w = model.fc1.weight.data
    bits = list(range(2, 13))
    ways = {
        "one scale": {"granularity": "per_tensor"},
        "one scale, least error": {"granularity": "per_tensor", "weight_observer": "mse"},
        "a scale per channel": {},
        "a scale per channel, least error": {"weight_observer": "mse"},
    }
    figure, axis = plt.subplots(figsize=SIZE)
    print(f"\nSNR of fc1's weights in dB{'':8}" + "".join(f"{b:>6}" for b in bits))
    for name, how in ways.items():
        found = []
        for b in bits:
            config = tc.QuantConfig(b, **how)
            approximate = dequantize_weight(quantize_weight(w, config), config)
            found.append(snr_db(w.astype(np.float64), approximate.astype(np.float64)))
        axis.plot(bits, found, "o-", markersize=3, linewidth=1.2, label=name)
        print(f"{name:34}" + "".join(f"{f:6.1f}" for f in found))
    axis.plot(bits, [6.02 * b + found[-1] - 6.02 * bits[-1] for b in bits], "--", color="0.6",
              label="6.02 dB a bit")  # fmt: skip
    axis.set(xlabel="bits", ylabel="signal to noise, dB")
    axis.legend(fontsize=8, frameon=False)
    save(figure, "quantization-snr")


def clipping(model: Any, train: Any) -> None:
    """What comes out of fc1's ReLU, and where each observer clips it at four bits."""
    y = np.maximum(inputs_and_outputs(model, "fc1", train.take(512))[1], 0)
    figure, axis = plt.subplots(figsize=SIZE)
    axis.hist(y[y > 0].ravel(), bins=120, color="0.75")
    axis.set(yscale="log", xlabel="activations of fc1 above 0", ylabel="how many")
    target = IntegerRange(4, signed=False)
    print("\nobserver at 4 bits     from      to   clipped     SNR")
    for number, name in enumerate(OBSERVERS):
        observer = make_observer(name, target)
        observer.observe(y)
        lo, hi = observer.range()
        scale, zero = observer.qparams()
        back = fake_quantize(y, scale, zero, target)
        snr = snr_db(y.astype(np.float64), back.astype(np.float64))
        print(f"{name:18}{lo:9.2f}{hi:8.2f}{(y > hi).mean():10.3%}{snr:8.1f}")
        axis.axvline(hi, color=f"C{number}", linewidth=1.5, label=name)
    axis.legend(fontsize=8, frameon=False)
    save(figure, "quantization-clipping")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    model, train = trained_lenet()
    grid()
    noise(model)
    clipping(model, train)


if __name__ == "__main__":
    main()
