"""What is lent to a student for the time of its training leaves nothing behind."""

import numpy as np
import pytest
from distill_models import CLASSES, bits, blobs, plain_student, teacher_net

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.distill import (
    DistillationObjective,
    Hint,
    distill,
    learned_adapters,
)
from tinycompress.train import fit


def wide_student():
    return nn.Sequential(
        {"conv": nn.Conv2d(1, 8, 3), "flatten": nn.Flatten(), "fc": nn.Linear(128, CLASSES)}
    )


def test_an_adapter_without_parameters_leaves_the_optimizer_as_it_is():
    student, data = wide_student(), blobs(64)
    optimizer = optim.Adam(student.parameters(), lr=0.01)
    held = list(optimizer.param_groups[0]["params"])
    hint = Hint("conv", "pool", 0.01, adapter=nn.MaxPool2d(2))
    objective = DistillationObjective(2.0, 0.5, teacher_net(), [hint])
    with learned_adapters(objective, student, data.images, optimizer):
        fit(student, data, 1, optimizer, objective=objective, workers=1)
    left = optimizer.param_groups[0]["params"]
    assert [id(p) for p in left] == [id(p) for p in held]
    assert sorted(optimizer.state) == list(range(len(held)))


class Taken(nn.Module):
    """Has a parameter of the name that an adapter would get."""

    def __init__(self):
        super().__init__()
        self.conv, self.flatten = nn.Conv2d(1, 3, 3), nn.Flatten()
        self.adapter0_weight = nn.Parameter(np.ones((CLASSES, 48), np.float32))

    def forward(self, x):
        return tc.functional.linear(self.flatten(self.conv(x)), self.adapter0_weight)


def test_a_parameter_of_the_students_own_is_not_replaced():
    student, data = Taken(), blobs(8)
    before = bits(student)
    objective = DistillationObjective(
        alpha=None, teacher=teacher_net(), terms=[Hint("conv", "fc1")]
    )
    with (
        pytest.raises(ValueError, match="Taken has an 'adapter0_weight' of its own"),
        learned_adapters(objective, student, data.images),
    ):
        pytest.fail("it was replaced")
    assert bits(student) == before


def test_a_hint_of_weight_zero_leaves_dropout_as_it_would_be():
    student = plain_student()
    student.flatten = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    teacher, weights = teacher_net(), []
    for terms in ([], [Hint("conv", "conv", 0.0)]):
        tc.manual_seed(3)
        small = distill(
            teacher, student, blobs(64), epochs=1, terms=terms, workers=1,
            optimizer=optim.SGD(student.parameters(), lr=0.1),
        )  # fmt: skip
        weights.append(small.fc.weight.data)
    np.testing.assert_allclose(*weights, atol=1e-6)
