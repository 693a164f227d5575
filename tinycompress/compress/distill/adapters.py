"""Adapters: the small maps that make a student's features comparable with a teacher's.

A hint compares f_t with r(f_s), and r is learned with the student. Where do its parameters live?
The student must be the same before and after, also in its file; and ``fit`` trains what belongs to
the model it is given. So for the time of the training the parameters are *lent* to the student, as
``adapter0_weight`` and so on: the optimizer updates them, checkpoints keep them, workers share
them. They are no layer of it, so nothing prunes or quantizes them, and afterwards they are gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tinycompress import functional as F, optim, random
from tinycompress.backend import Array, on_device, to_device
from tinycompress.compress.distill.terms import Hint
from tinycompress.graph import no_grad
from tinycompress.nn import Module, Parameter, evaluation_mode, init
from tinycompress.nn.skeleton import new_array
from tinycompress.tensor import Tensor

if TYPE_CHECKING:
    from tinycompress.compress.distill.objective import DistillationObjective


class Adapter(Module):
    """A linear map of features of one shape to those of another.

    Args:
        source: the student's features without the batch axis; (C, H, W), or any for a flat target.
        target: the teacher's: (C', H', W') with H' ≤ H and W' ≤ W, made by a convolution with the
            one kernel that fits, (H − H' + 1, W − W' + 1), as in FitNets; or (F'), made by a linear
            layer from all that is there.

    Raises:
        ValueError: a larger map, or other shapes; nothing that is linear and small makes those.
    """

    def __init__(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        super().__init__()
        self.source, self.target = tuple(source), tuple(target)
        if len(target) == 1:
            inputs = 1
            for n in source:
                inputs *= n
            shape: tuple[int, ...] = (target[0], inputs)
        elif len(source) == len(target) == 3 and all(
            s >= t for s, t in zip(source[1:], target[1:], strict=True)
        ):
            kernel = (s - t + 1 for s, t in zip(source[1:], target[1:], strict=True))
            shape = (target[0], source[0], *kernel)
        else:
            raise ValueError(
                f"there is no adapter from features {self.source} to {self.target}: a map can only "
                "be made smaller, or flat. Tap an earlier layer of the student or a later one of "
                "the teacher, or give Hint(adapter=…) a module of yours"
            )
        self.weight = Parameter(new_array(shape))
        self.bias = Parameter(new_array(target[:1], 0.0))
        init.kaiming_normal_(self.weight, nonlinearity="linear")  # keeps the features' size

    def forward(self, x: Any) -> Tensor:
        if len(self.target) == 1:
            return F.linear(x.flatten(1), self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias)

    def config(self) -> dict[str, Any]:
        return {"source": list(self.source), "target": list(self.target)}


@contextmanager
def learned_adapters(
    objective: DistillationObjective,
    student: Module,
    images: Array,
    optimizer: optim.Optimizer | None = None,
) -> Iterator[None]:
    """Inside, the objective has the adapters that its hints need, and the student their parameters.

        with learned_adapters(objective, student, train.images, optimizer):
            fit(student, train, epochs, optimizer, objective=objective)

    Args:
        objective: with teachers of its own, which hints need.
        student: gets the parameters, in place, and is rid of them at the end.
        images: of which one is run to see the shapes.
        optimizer: over the student's parameters; its last group gets those of the adapters, with
            that group's options. None: the optimizer is made inside.

    Raises:
        ValueError: features that no adapter makes comparable; an adapter with buffers (batch
            norm), which a checkpoint would not keep; a student that has their names taken.
    """
    hints = {k: t for k, t in enumerate(objective.terms) if isinstance(t, Hint) and t.adapter}
    if not hints:
        yield
        return
    stream = random.get_state()  # dropout has the numbers that it would have without hints
    try:
        objective.adapters = _made(objective, hints, student, images)
    finally:
        random.set_state(stream)
    lent = _lend(student, objective.adapters)
    group = None if optimizer is None else optimizer.param_groups[-1]
    if group is not None:
        group["params"] = [*group["params"], *lent.values()]
    try:
        yield
    finally:
        for name in lent:
            delattr(student, name)
        if optimizer is not None and group is not None:
            group["params"] = group["params"][: len(group["params"]) - len(lent)]
            kept = sum(len(g["params"]) for g in optimizer.param_groups)
            optimizer.state = {k: s for k, s in optimizer.state.items() if k < kept}


def _made(
    objective: DistillationObjective, hints: dict[int, Hint], student: Module, images: Array
) -> dict[int, Module]:
    """For each hint, by its place among the terms, its adapter on the student's device."""
    like = next(student.parameters())
    with evaluation_mode(student), no_grad(), on_device(like.data):
        image = to_device(images[:1], student.device)
        seen = objective.features(student, image)
    adapters = {}
    for place, hint in hints.items():
        f_s, f_t = seen[place]
        made = (
            hint.adapter.copy().train()
            if isinstance(hint.adapter, Module)
            else Adapter(f_s.shape[1:], f_t.shape[1:])
        )
        if any(True for _ in made.buffers()):
            raise ValueError(
                f"the adapter of {hint.student_layer!r} has buffers (such as batch norm's); use "
                "layers that have parameters only"
            )
        adapters[place] = made.to(like.dtype).to(student.device)
    for place, hint in hints.items():
        _check_output(hint, adapters[place], *seen[place])
    return adapters


def _check_output(hint: Hint, adapter: Module, f_s: Tensor, f_t: Tensor) -> None:
    with evaluation_mode(adapter), no_grad(), on_device(f_s.data):
        shape = adapter(f_s).shape
    if shape != f_t.shape:
        raise ValueError(
            f"the adapter of {hint.student_layer!r} makes {shape[1:]} of {f_s.shape[1:]}, and the "
            f"teacher's {hint.teacher_layer!r} gives {f_t.shape[1:]}"
        )


def _lend(student: Module, adapters: dict[int, Module]) -> dict[str, Parameter]:
    named: Sequence[tuple[str, Parameter]] = [
        (f"adapter{place}_{name.replace('.', '_')}", p)
        for place, adapter in adapters.items()
        for name, p in adapter.named_parameters()
    ]
    for name, _ in named:
        if hasattr(student, name):
            raise ValueError(
                f"the adapters of hints are lent to the student, and {type(student).__name__} has "
                f"an {name!r} of its own; give that another name"
            )
    for name, p in named:
        setattr(student, name, p)
    return dict(named)
