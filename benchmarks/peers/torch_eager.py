"""PyTorch as most people run it: eager, all workloads.

    python -m benchmarks.peers.torch_eager PROBLEM.npz default|channels_last [compile]

``channels_last`` keeps images as N, H, W, C in memory, torch's fastest layout for convolutions on a
CPU. ``compile`` puts ``torch.compile`` around the network; it needs a C++ compiler.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.networks import NETWORKS
from benchmarks.peers.contender import Contender, cores, run
from benchmarks.problems import LEARNING_RATE, MOMENTUM, Problem

LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}


def build(problem: Problem, layout: str = "default", compiled: str = "") -> Contender:
    torch.set_num_threads(cores())
    torch.set_num_interop_threads(1)
    memory_format = LAYOUTS[layout]
    model = NETWORKS[problem.workload](nn)
    weights = {name: torch.from_numpy(array) for name, array in problem.weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or any("num_batches_tracked" not in name for name in missing):
        raise ValueError(f"the weights do not fit: {missing} missing, {unexpected} unexpected")
    model = model.to(memory_format=memory_format)

    def convert(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).to(memory_format=memory_format)

    x, labels = convert(problem.images), torch.from_numpy(problem.labels)
    sgd = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    network = torch.compile(model) if compiled else model

    def gradients() -> tuple[float, dict[str, np.ndarray]]:
        model.train()
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        return loss.item(), {n: p.grad.numpy().copy() for n, p in model.named_parameters()}

    def train() -> None:
        if not model.training:
            model.train()
        sgd.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        sgd.step()

    def infer(images: torch.Tensor) -> torch.Tensor:
        if model.training:
            model.eval()
        with torch.inference_mode():
            return network(images)

    return Contender({"torch": torch.__version__}, convert, infer, train, gradients)


if __name__ == "__main__":
    run(build)
