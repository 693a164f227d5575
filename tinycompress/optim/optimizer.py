"""What all optimizers share: which parameters, with which options, and what is remembered of them.

An optimizer is an update rule, a few lines on arrays: from a weight ``w`` and the gradient ``g``
of the loss by that weight it makes the next weight, in place. Everything around the rule is here:
groups of parameters with options of their own, the arrays that a rule keeps from step to step,
saving and loading, and masks. Read next ``sgd.py``, ``rmsprop.py``, ``adam.py``, each a little
harder than the one before.

A subclass says four things::

    class SGD(Optimizer):
        rules = {"lr": non_negative, ...}      # its options, and what each may be
        def state_names(self, group): ...      # the arrays it keeps for a weight
        def update(self, w, g, state, group):  # the rule
        elementwise = True                     # it treats every number of w by itself
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from tinycompress.backend import (
    Array,
    array_module,
    check_same_device,
    copy_of,
    device_of,
    on_device,
    to_device,
)
from tinycompress.nn import Parameter
from tinycompress.optim.flat import FlatBuffer, FlatState, Piece
from tinycompress.optim.parameters import as_list, parameter_list

Group = dict[str, Any]
State = dict[str, Any]
Rules = Mapping[str, Callable[[str, Any], Any]]


class Optimizer:
    """Base of all optimizers.

    Args:
        parameters: ``model.parameters()``, or a list of groups, dictionaries with ``"params"``
            and any of the optimizer's options: ``[{"params": [w], "lr": 0.01}, {"params": [b]}]``.
        options: the values that groups which do not say otherwise have.

    Attributes:
        param_groups: the groups, each a dictionary with ``"params"`` and every option. Options may
            be changed between steps; schedules do.
        state: for each parameter that was ever updated, by its position over all groups in order:
            ``{"step": how many updates, name: array of the parameter's shape and dtype, …}``.
        defaults: ``options``, checked.
        elementwise: of the class, whether its :meth:`update` treats every number by itself, so that
            it may get several weights as one array (see :meth:`use`). A subclass with an ``update``
            of its own says so again.

    Raises:
        TypeError, ValueError: no parameters, something that is not a parameter, a parameter that
            comes twice, or an option out of its range.
    """

    rules: ClassVar[Rules] = {}
    elementwise: ClassVar[bool] = False

    def __init__(self, parameters: Iterable[Any], **options: Any) -> None:
        self.defaults = dict(options)
        self.check_options(self.defaults)
        self.param_groups: list[Group] = []
        self.state: dict[int, State] = {}
        self._flat: FlatState | None = None
        given = as_list(parameters)
        groups = given if any(isinstance(item, dict) for item in given) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    # ------------------------------------------------------------------- what a subclass provides

    def state_names(self, group: Group) -> tuple[str, ...]:
        """Names of the arrays that :meth:`update` keeps for a weight; they start as zeros."""
        return ()

    def update(self, w: Array, g: Array, state: State, group: Group) -> None:
        """One step of the rule: change ``w`` and the arrays of ``state``, in place.

        Args:
            w: a weight, of any shape: nothing here may depend on it. Where the class says that it
                is ``elementwise``, it may be several weights behind each other, or a part of them.
            g: the derivative of the loss by ``w``; read, never written.
            state: ``"step"`` (1 at the first update) and the arrays of :meth:`state_names`.
            group: the options, as Python numbers.
        """
        raise NotImplementedError

    def check_options(self, group: Group) -> None:
        """Bring every option of ``group`` to a Python number within its range, or raise."""
        for name, rule in self.rules.items():
            group[name] = rule(name, group[name])

    # --------------------------------------------------------------------------------- in training

    def step(self) -> None:
        """Update every parameter that has a gradient, and leave those without one alone."""
        flat = self._flat if self._flat is not None and self._flat.buffer.intact() else None
        start = 0
        for group in self.param_groups:
            self.check_options(group)  # a schedule or a hand may have changed them
            for w, g, state, members in self._pieces(group, start, flat):
                with on_device(w):
                    self.update(w, g, state, group)
                    for p, own_state in members:
                        _apply_mask(p.data, p.mask, own_state)
            start += len(group["params"])

    def use(self, buffer: FlatBuffer | None) -> None:
        """From now on update parameters that lie in ``buffer`` together; None: each by itself.

        Each step's arithmetic is the same, to the bit, in fewer calls. ``p.grad`` must be the view
        in ``buffer.grads``; a parameter whose gradient is another array is updated by itself. So
        are all while the buffer is not intact, and by a rule that is not ``elementwise``.
        """
        self._flat = None
        if buffer is not None and _is_elementwise(type(self)):
            self._flat = FlatState(buffer)

    def zero_grad(self) -> None:
        """Forget the gradients: ``p.grad = None`` for every parameter."""
        for p in self._parameters():
            p.grad = None

    def add_param_group(self, group: Group) -> None:
        """Add parameters with options of their own; options that ``group`` lacks are the defaults.

        Args:
            group: ``{"params": parameters, "lr": …}``.

        Raises:
            TypeError, ValueError: as the class.
        """
        label = f"parameter group {len(self.param_groups)}"
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'{label} must be a dictionary with the key "params", got {group!r}')
        unknown = set(group) - set(self.rules) - {"params", "initial_lr"}
        if unknown:
            raise ValueError(
                f"{label}: unknown option {', '.join(sorted(unknown))}; "
                f"{type(self).__name__} has {', '.join(self.rules)}"
            )
        params = parameter_list(group["params"], label, taken=list(self._parameters()))
        complete = {**self.defaults, **group, "params": params}
        self.check_options(complete)
        self.param_groups.append(complete)

    # ------------------------------------------------------------------------------ inside a step

    def _parameters(self) -> Iterator[Parameter]:
        for group in self.param_groups:
            yield from group["params"]

    def _pieces(self, group: Group, start: int, flat: FlatState | None) -> Iterator[Piece]:
        """What is updated by one call each: a parameter, or a block of the flat buffer.

        A stretch of neighbours ends where a gradient is missing or lies elsewhere, and where the
        counts of steps differ, on which rules depend.
        """
        names = self.state_names(group)
        first = 0  # where in the buffer the stretch begins, and what it holds so far
        members: list[tuple[Parameter, State]] = []
        for position, p in enumerate(group["params"], start):
            if p.grad is None:
                continue
            k = None if flat is None else flat.buffer.place_of_gradient(p)
            if flat is None or k is None:
                state = self._state_of(position, p.data, p.grad, names)
                state["step"] += 1
                yield Piece(p.data, p.grad, state, [(p, state)])
                continue
            if not flat.holds(k, self.state.get(position), names):
                flat.adopt(k, self._state_of(position, p.data, p.grad, names), names)
            state = self.state[position]
            state["step"] += 1
            if members and (k != first + len(members) or state["step"] != members[0][1]["step"]):
                yield from flat.pieces(first, members, names)
                members = []
            first = first if members else k
            members.append((p, state))
        if flat is not None and members:
            yield from flat.pieces(first, members, names)

    def _state_of(self, position: int, w: Array, g: Array, names: tuple[str, ...]) -> State:
        """The state of one parameter, made where it is missing; its arrays must fit the weight."""
        state = self.state.setdefault(position, {"step": 0})
        for name in names:
            if name not in state:
                with on_device(w):
                    state[name] = array_module(w).zeros_like(w)
        what = f"{type(self).__name__}.step, parameter {position}"
        kept = {name: state[name] for name in names}
        check_same_device(what, w, g, *kept.values())
        for name, array in {"gradient": g, **kept}.items():
            if array.shape != w.shape or array.dtype != w.dtype:
                raise ValueError(
                    f"{what}: the weight is {w.dtype}{w.shape} but its {name} is "
                    f"{array.dtype}{array.shape}. After a change of a parameter's shape or dtype, "
                    "compute gradients anew and make a new optimizer"
                )
        return state

    # -------------------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here: ``{"state": …, "groups": …}``.

        ``"state"`` is as :attr:`state`, with copies of the arrays. ``"groups"`` is a list of the
        groups' options, plain JSON values, with the parameters' positions as ``"params"``.
        """
        state = {
            position: {k: v if isinstance(v, int) else copy_of(v) for k, v in entries.items()}
            for position, entries in self.state.items()
        }
        return {"state": state, "groups": self._groups_as_json()}

    def _groups_as_json(self) -> list[Group]:
        groups: list[Group] = []
        start = 0
        for group in self.param_groups:
            end = start + len(group["params"])
            options = {k: list(v) if isinstance(v, tuple) else v for k, v in group.items()}
            groups.append({**options, "params": list(range(start, end))})
            start = end
        return groups

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; arrays are copied to the parameters' devices.

        Nothing is changed unless all of it fits.

        Raises:
            ValueError: another number of groups or parameters, other options, or an array whose
                shape or dtype is not its parameter's.
        """
        if set(state_dict) != {"state", "groups"}:
            raise ValueError(f'expected the keys "state" and "groups", got {list(state_dict)}')
        groups = self._fitting_groups(state_dict["groups"])
        parameters = list(self._parameters())
        state: dict[int, State] = {}
        for key, entries in state_dict["state"].items():
            position = int(key)  # JSON turns the keys of a dictionary to strings
            if not 0 <= position < len(parameters):
                raise ValueError(
                    f"state for parameter {position}, but this optimizer has {len(parameters)}"
                )
            state[position] = self._fitting_state(position, parameters[position].data, entries)
        self.state = state
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)

    def _fitting_groups(self, saved: list[Group]) -> list[Group]:
        """The saved options, checked against the groups that are here."""
        here = self._groups_as_json()
        if len(saved) != len(here):
            raise ValueError(f"{len(saved)} parameter groups in the state, {len(here)} here")
        result = []
        for number, (mine, theirs) in enumerate(zip(here, saved, strict=True)):
            if len(theirs["params"]) != len(mine["params"]):
                raise ValueError(
                    f"parameter group {number} has {len(theirs['params'])} parameters in the "
                    f"state and {len(mine['params'])} here"
                )
            odd = (set(theirs) ^ set(mine)) - {"initial_lr"}
            if odd:
                raise ValueError(
                    f"parameter group {number}: {', '.join(sorted(odd))} is an option of the state "
                    f"or of this {type(self).__name__}, not of both: saved by another optimizer?"
                )
            options = {k: v for k, v in theirs.items() if k != "params"}
            self.check_options(options)
            result.append(options)
        return result

    def _fitting_state(self, position: int, w: Array, entries: State) -> State:
        """A copy of the saved state of one parameter, checked against its weight ``w``."""
        result: State = {"step": int(entries["step"])}
        for name, array in entries.items():
            if name == "step":
                continue
            if array.shape != w.shape or array.dtype != w.dtype:
                raise ValueError(
                    f"parameter {position} is {w.dtype}{w.shape} but its {name} in the state is "
                    f"{array.dtype}{array.shape}"
                )
            result[name] = copy_of(to_device(array, device_of(w)))
        return result


def _is_elementwise(kind: type) -> bool:
    """Whether the class whose rule ``kind`` has also says that it is elementwise."""
    for cls in kind.__mro__:
        if "elementwise" in vars(cls):
            return vars(cls)["elementwise"]
        if "update" in vars(cls):
            return False
    return False


def _apply_mask(w: Array, mask: Array | None, state: State) -> None:
    """Hold pruned weights at zero, and what the rule remembers of them.

    Masking gradients alone would not do: momentum from before the pruning, or weight decay,
    would move the weight again.
    """
    if mask is not None:
        w *= mask
        for name, array in state.items():
            if name != "step":
                array *= mask
