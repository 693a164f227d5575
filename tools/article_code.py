"""The article's listings, line by line, with ``torch.`` read as this engine's names.

Nothing in the package uses them. They are here to be run by ``article_listings.py``, because an
error that one has seen is easier to remember than one that one was told about. Each function works
on a copy, so that the model can be used again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress import fit, float32, functional as F, nn, optim, tensor
from tinycompress.data import Dataset


class Net(nn.Module):
    """Listings 4.1 to 4.3: Net, TeacherModel and StudentModel are all this one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.fc1 = nn.Linear(64 * 16 * 16, 100)
        self.fc2 = nn.Linear(100, 10)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(x, 2, 2)
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2, 2)
        x = x.view(-1, 64 * 16 * 16)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


def listing_quantize(model: nn.Module, num_bits: int) -> nn.Module:
    """Listing 4.1: weights to multiples of 2ᵇ, biases to whole numbers."""
    model = model.copy()
    for _name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            quantized_weight = np.round(weight / 2**num_bits) * 2**num_bits
            module.weight = nn.Parameter(quantized_weight)
            bias = module.bias.data
            module.bias = nn.Parameter(np.round(bias))
    return model


def listing_distill(teacher_model: Any, student_model: nn.Module, data: Dataset) -> nn.Module:
    """Listing 4.2 from "train the distilled model" on, its dots filled in the only way that the
    three lines before them allow: the criterion is cross-entropy with the labels.
    """
    if teacher_model is not None:
        teacher_model.eval()
    optimizer = optim.SGD(student_model.parameters(), lr=0.01)
    fit(student_model, data, 1, optimizer, batch_size=64)
    return student_model


def listing_prune(
    model: nn.Module, pruning_ratio: float, repaired: bool | str = False
) -> nn.Module:
    """Listing 4.3: a random mask. ``repaired="only the device"`` skips the line that looks for
    ``model.weight``, and ``repaired=True`` leaves the bias alone, too.
    """
    model = model.copy()
    generator = np.random.default_rng(0)
    for _name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            mask = tensor(generator.random(module.weight.shape) < pruning_ratio).to(float32)
            if not repaired:
                mask = mask.to(model.weight.device)
            masked_weight = module.weight * mask
            module.weight = nn.Parameter(masked_weight.data)
            if repaired is not True:
                module.bias = nn.Parameter((module.bias * mask).data)
    return model
