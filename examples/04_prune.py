"""Pruning: most weights of a trained network are not needed, if one knows which.

Read beside it: tinycompress/compress/prune/importance.py (how weights are ranked) and masks.py (how
they stay pruned while the others are trained). Run it: python examples/04_prune.py
"""

import os

import tinycompress as tc
from tinycompress import optim

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

train, test = tc.data.mnist()
if QUICK:
    train, test = train.take(256), test.take(200)
tc.manual_seed(0)
model = tc.models.ArticleCNN()
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
tc.fit(model, train, 1 if QUICK else 3, optimizer, batch_size=64, progress=True)


def accuracy(model):
    return f"{tc.evaluate(model, test).accuracy:.2%}"


# 1. The importance of a weight: its size, the loss's derivative by it, both, or a coin.
few = train.take(256)  # images on which the derivative is taken
print(f"\nnothing pruned: {accuracy(model)}\n\npruned  magnitude  gradient  taylor  random")
for sparsity in (0.5,) if QUICK else (0.5, 0.8, 0.9):
    row = [f"{sparsity:.0%}"]
    for importance in ("magnitude", "gradient", "taylor", "random"):
        thin = tc.prune(model, sparsity, importance=importance, data=few)
        row.append(accuracy(thin))
    print("{:<6}  {:>9}  {:>8}  {:>6}  {:>6}".format(*row))

# 2. Retraining what is left brings back what was lost; what was pruned stays 0.
thin = tc.prune(model, 0.95)  # 95% of all weights, wherever they are smallest
before = accuracy(thin)
optimizer = optim.SGD(thin.parameters(), lr=0.02, momentum=0.9)  # of the new model's weights
tc.fit(thin, train, 1 if QUICK else 2, optimizer, batch_size=64, progress=True)
print(f"\n95% pruned: {before}, retrained: {accuracy(thin)}\n")
print(tc.sparsity_report(thin))  # zeros are counted in the weights, not in the masks

# 3. A mask alone saves nothing: memory holds every zero. The file writes a zero as a bit or less.
print(f"\nthe model in a file: {tc.save(model, 'dense.tcz'):,} bytes")
print(f"95% pruned:          {tc.save(thin, 'pruned.tcz'):,} bytes")

# 4. Channels that are really gone do save time. (docs/pruning.md: all of pruning)
slim = tc.remove_channels(model, 0.5)
print(f"\n{tc.pruning_report(model, slim, test).says()}")
