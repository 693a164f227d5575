"""CPU or GPU by one word: python examples/07_devices.py cuda

Without a GPU, or without CuPy, the message says what is missing and the script goes on with the
CPU. Read beside it: tinycompress/backend.py (an array is its device; nothing is stored beside it).
"""

import os
import sys
import time

import numpy as np

import tinycompress as tc
from tinycompress import optim

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"
device = sys.argv[1] if len(sys.argv) > 1 else "cuda"  # the one word: cpu, cuda, cuda:1

# 1. Ask for it. There are three ways in which it can be missing, and each has its own message.
try:
    tc.tensor(0.0, device=device)
except tc.DeviceError as error:
    print(f"{device}: {error}\n\nSo this goes on with the CPU.")
    device = "cpu"

# 2. Move the model; everything follows it.
train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)
tc.manual_seed(0)
model = tc.models.ArticleCNN().to(device)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)  # of the weights there
start = time.perf_counter()
tc.fit(model, train.to(device), 1, optimizer, batch_size=64, progress=True)
print(f"\none epoch on {model.device}: {time.perf_counter() - start:.1f} s")

# 3. And back. The same numbers give the same answers, but for the order of their sums.
some = test.take(100)
there = tc.Tensor(tc.train.predict(model, some.to(device).images)).numpy()
here = tc.train.predict(model.to("cpu"), some.images)
difference = np.abs(there - here).max()
print(f"accuracy {tc.evaluate(model, test).accuracy:.2%}, largest difference {difference:.1e}")

# 4. Arrays of two devices never meet in silence.
if device != "cpu":
    try:
        model.to(device)(test.images[:1])
    except tc.DeviceError as error:
        print(error)
