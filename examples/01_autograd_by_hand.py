"""Derivatives by hand, by the engine and by small steps; then a neuron that learns from them.

Read beside it: tinycompress/ops/elementwise.py (one derivative per line) and tinycompress/graph.py
(how they are chained). Run it: python examples/01_autograd_by_hand.py
"""

import math
import os

import numpy as np

import tinycompress as tc

QUICK = os.environ.get("TINYCOMPRESS_QUICK") == "1"

# 1. One expression, three ways to its derivative: f = x·y + tanh(x).
x = tc.tensor(0.5, dtype="float64", requires_grad=True)
y = tc.tensor(-1.5, dtype="float64", requires_grad=True)
f = x * y + x.tanh()
f.backward()  # walks back from f and leaves df/dx in x.grad, df/dy in y.grad


def value(x, y):
    return x * y + math.tanh(x)


by_hand = {"df/dx": -1.5 + (1 - math.tanh(0.5) ** 2), "df/dy": 0.5}  # y + 1 − tanh²(x), and x
h = 1e-6
by_steps = {
    "df/dx": (value(0.5 + h, -1.5) - value(0.5 - h, -1.5)) / (2 * h),
    "df/dy": (value(0.5, -1.5 + h) - value(0.5, -1.5 - h)) / (2 * h),
}
by_engine = {"df/dx": x.grad.item(), "df/dy": y.grad.item()}
print("          by hand      engine       small steps")
for name in by_hand:
    print(f"  {name} {by_hand[name]:12.8f} {by_engine[name]:12.8f} {by_steps[name]:12.8f}")
    assert abs(by_hand[name] - by_engine[name]) < 1e-12
    assert abs(by_hand[name] - by_steps[name]) < 1e-8

# 2. A neuron: p = σ(w·x + b) is to say on which side of the line x₀ + x₁ = 1 a point lies.
points = np.random.default_rng(0).random((200, 2)).astype(np.float32)
above = (points.sum(axis=1) > 1).astype(np.float32)
w = tc.tensor([0.0, 0.0], requires_grad=True)
b = tc.tensor(0.0, requires_grad=True)

for step in range(20 if QUICK else 300):
    p = (tc.tensor(points) @ w + b).sigmoid()  # (200, 2) @ (2,) -> (200,)
    loss = -(above * p.log() + (1 - above) * (1 - p).log()).mean()
    dw, db = tc.grad(loss, [w, b])
    if step == 0:  # by hand, for this loss: dloss/dw = mean of (p − truth) · x
        assert np.allclose(dw, ((p.numpy() - above)[:, None] * points).mean(axis=0), atol=1e-6)
    w = tc.tensor(w.data - 5 * dw, requires_grad=True)  # downhill, by hand
    b = tc.tensor(b.data - 5 * db, requires_grad=True)

right = ((p.numpy() > 0.5) == (above == 1)).mean()
print(f"a neuron at step {step + 1}: loss {loss.item():.3f}, {right:.0%} right, w = {w.numpy()}")
