"""Quantization: weights as whole numbers of few bits, first five of them, then a network's.

Read beside it: tinycompress/compress/quantize/article.py (the article's formula) and affine.py (the
mathematics that replaces it). Run it: python examples/03_quantize.py
"""

import os

import numpy as np

import tinycompress as tc
from tinycompress import optim
from tinycompress.compress.quantize import article_dequantize, article_quantize, zero_preserving

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

# 1. The article's formula on five numbers: codes 0 to 3 for the range from -0.5 to 0.9.
weights = np.array([-0.5, -0.2, 0.0, 0.3, 0.9], np.float32)
codes = article_quantize(weights, bits=2)
print("weights        ", weights)
print("codes, 2 bits  ", codes.codes)
print("read back      ", article_dequantize(codes).round(3))
print("zero kept zero ", zero_preserving(weights, bits=2).round(3))
print("By the formula 0 comes back as something else; a pruned weight would not stay pruned.\n")

# 2. A trained network, with fewer and fewer bits for each weight.
train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)
tc.manual_seed(0)
model = tc.models.ArticleCNN()
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
tc.fit(model, train, 1 if QUICK else 3, optimizer, batch_size=64, progress=True)

size = tc.save(model, "float.tcz")
print(f"\nfloat32  {tc.evaluate(model, test).accuracy:.2%}  {size:>7,} bytes")
for bits in (8, 6, 4, 3, 2):
    config = tc.QuantConfig(bits=bits)  # symmetric, one scale for each output channel
    small = tc.quantize(model, config)  # a new model; the old one stays as it is
    size = tc.save(small, f"{bits}bit.tcz")
    print(f" {bits} bits  {tc.evaluate(small, test).accuracy:.2%}  {size:>7,} bytes")

# 3. What a channel's own scale is worth, where bits are few.
for granularity in ("per_tensor", "per_channel"):
    small = tc.quantize(model, tc.QuantConfig(bits=3, granularity=granularity))
    print(f"3 bits, {granularity:<11}  {tc.evaluate(small, test).accuracy:.2%}")

# 4. Which layer lost how much: 6 dB more are half the noise, or one bit.
print("\nlayer   signal-to-noise at 4 bits")
for layer in tc.quantization_report(model, tc.quantize(model, tc.QuantConfig(bits=4))):
    print(f"{layer.name:<7} {layer.snr_db:5.1f} dB, {layer.float_bytes:,} -> {layer.bytes:,} bytes")
