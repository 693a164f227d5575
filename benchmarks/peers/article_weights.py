"""The weights of W in a fixed order, for those who write the network down by hand."""

from __future__ import annotations

from benchmarks.problems import Problem

NAMES = [
    f"{layer}.{kind}" for layer in ("conv1", "conv2", "fc1", "fc2") for kind in ("weight", "bias")
]


def in_order(problem: Problem) -> list:
    """conv1.weight (32, 1, 3, 3), conv1.bias, conv2.weight, …, fc2.bias (10)."""
    if problem.workload != "W":
        raise ValueError(f"this framework is here for W alone, not for {problem.workload}")
    return [problem.weights[name].copy() for name in NAMES]
