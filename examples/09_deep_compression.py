"""Deep Compression: prune, share weights, code; from a trained network to a file of its own kind.

Read beside it: tinycompress/deep.py (the chain), docs/deep_compression.md (why it works).
Run it: python examples/09_deep_compression.py
"""

import os
from functools import partial

import numpy as np

import tinycompress as tc
from tinycompress import optim

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)
tc.manual_seed(0)
model = tc.models.LeNet300100()
rule = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
schedule = optim.CosineAnnealingLR(rule, T_max=5)
tc.fit(model, train, 1 if QUICK else 5, rule, schedule=schedule, progress=True)

# 1. The chain in one call. Most weights go, little by little; what is left of a layer becomes 16
# numbers, which are trained as weights are; then all is rounded to two bytes, and coded.
small = tc.deep_compress(
    model,
    train,
    sparsity={"fc1": 0.96, "fc2": 0.9, "fc3": 0.6},
    bits=4,
    epochs=1 if QUICK else 8,
    share_epochs=1 if QUICK else 3,
    share_optimizer=partial(optim.Adam, lr=1e-3),
    validate=test,
    progress=True,
)
print(f"\n{small}\n")  # after each stage: error, zeros, bits per weight, bytes of the file

# 2. What a layer holds now: a codebook, and for each weight its code, 0 where it was pruned.
layer = small.model.fc3
print("the codebook of fc3:", np.sort(layer.codebook.data).round(2))
print("codes of its first unit:", layer.codes[0, :24])

# 3. The file is the claim. A fresh process would see the same.
size = tc.save(small.model, "lenet-300-100-small.tcz")
again = tc.load("lenet-300-100-small.tcz")
error = tc.evaluate(again, test).error
print(f"\n{size:,} bytes, {small.ratio:.0f} times smaller, {error:.2f}% errors")
