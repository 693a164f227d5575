"""Fast on a CPU: python examples/08_fast.py

One worker and several, with the same weights in the end, to the bit; layers run one by one and
fused; and a model that is compiled for inference. Read beside it: docs/performance.md.
"""

import os
import time

import numpy as np

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.train import Workers, available_cores, predict

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"
train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(512), test.take(256)


def trained(workers):
    """The article's CNN after one epoch, and how many images went through it in a second."""
    tc.manual_seed(0)
    model = tc.models.ArticleCNN()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = tc.fit(model, train, 1, optimizer, workers=workers)
    return model, history[-1].images_per_second


# 1. Workers are processes that share the weights. How many there are changes the speed, no bit.
alone, speed_alone = trained(1)
with Workers("auto") as team:  # keeps them for several calls; fit(workers="auto") makes its own
    model, speed = trained(team)
    accuracy = tc.evaluate(model, test, workers=team).accuracy
pairs = zip(alone.parameters(), model.parameters(), strict=True)
same = all((p.data == q.data).all() for p, q in pairs)
print(f"1 worker: {speed_alone:,.0f} images/s; {available_cores()} workers: {speed:,.0f}")
print(f"the same weights: {same}; accuracy {accuracy:.2%}")


def milliseconds(run):
    times = []
    for _ in range(3 if QUICK else 15):
        start, outputs = time.perf_counter(), run()
        times.append(time.perf_counter() - start)
    return outputs, 1000 * np.median(times)


# 2. conv → ReLU → pool is one operation, done on blocks of images that stay in the cache.
fused, fast = milliseconds(lambda: predict(model, test.images[:1000], workers=1))
with nn.fusion(False):
    apart, slow = milliseconds(lambda: predict(model, test.images[:1000], workers=1))
print(f"1,000 images: {fast:.0f} ms fused, {slow:.0f} ms layer by layer")
print(f"largest difference: {np.abs(fused - apart).max():.1e}")

# 3. Compiled, weights lie as the products want them, and nothing is done for derivatives' sake.
quick = tc.compile(model)
print(f"one image: {milliseconds(lambda: quick(test.images[:1]))[1]:.2f} ms compiled")
