"""Parameter: a tensor that is trained, and the mask that pruning puts on it."""

from __future__ import annotations

from typing import Any

from tinycompress.backend import Array, copy_of
from tinycompress.tensor import Tensor


class Parameter(Tensor):
    """A tensor that is trained.

    Attributes:
        mask: None, or a boolean array of the parameter's shape. Where it is False the weight is
            pruned: it is 0, and optimizers keep it and its momentum at 0 (see ``compress/prune``).
    """

    __slots__ = ("mask",)

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)
        self.mask: Array | None = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype}, device={self.device!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = Parameter(copy_of(self.data), self.requires_grad)
        twin.mask = None if self.mask is None else copy_of(self.mask)
        return twin

    def __reduce__(self) -> Any:
        return _rebuild_parameter, (self.data, self.requires_grad, self.mask)


def _rebuild_parameter(data: Array, requires_grad: bool, mask: Array | None) -> Parameter:
    parameter = Parameter(data, requires_grad)
    parameter.mask = mask
    return parameter
