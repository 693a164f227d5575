"""A first network: the article's CNN, put together layer by layer, trained on 10,000 digits.

Read beside it: tinycompress/nn/layers.py (what a layer is) and tinycompress/train/fit.py (the
loop). Run it: python examples/02_first_cnn.py
"""

import os

import numpy as np

import tinycompress as tc
from tinycompress import nn, optim

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

# 1. Real digits: 28×28 numbers from 0 to 1 each, and which digit it is.
train, test = tc.data.mnist()  # a sample that comes with the package; mnist(full=True): 60,000
if QUICK:
    train, test = train.take(256), test.take(200)
print(train)
print("\n".join("".join(" .:*#"[int(4 * p)] for p in row) for row in train.images[0, 0, 4:26]))
print(f"is a {train.labels[0]}\n")

# 2. The network. Numbers behind a comment are the shape of what leaves the layer, for N images.
tc.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3),  # (N, 1, 28, 28) -> (N, 32, 26, 26): 32 patterns of 3×3 pixels
    nn.ReLU(),
    nn.MaxPool2d(2),  # -> (N, 32, 13, 13): the best match in each square of four
    nn.Conv2d(32, 64, 3),  # -> (N, 64, 11, 11): 64 patterns made of those
    nn.ReLU(),
    nn.MaxPool2d(2),  # -> (N, 64, 5, 5)
    nn.Flatten(),  # -> (N, 1600)
    nn.Linear(1600, 100),
    nn.ReLU(),
    nn.Linear(100, 10),  # -> (N, 10): one number per digit, the largest is the answer
)
print(tc.summary(model, (1, 28, 28)))

# 3. Training: look at 64 images, move every weight a little downhill, again.
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
tc.fit(model, train, 1 if QUICK else 3, optimizer, batch_size=64, progress=True)

# 4. What it is worth, on images that it has never seen.
result = tc.evaluate(model, test)
print(f"\n{result.accuracy:.2%} of {result.count:,} test images are right")
mistakes = result.confusion - np.diag(np.diag(result.confusion))
truth, answer = np.unravel_index(mistakes.argmax(), mistakes.shape)
print(f"most often a {truth} is taken for a {answer}: {mistakes.max()} times")

# 5. Keep it: weights and architecture in one file.
size = tc.save(model, "first_cnn.tcz")
assert tc.evaluate(tc.load("first_cnn.tcz"), test).accuracy == result.accuracy
print(f"first_cnn.tcz: {size:,} bytes, which give the same accuracy when loaded")
