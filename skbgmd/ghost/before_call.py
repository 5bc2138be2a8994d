"""State of a layer before a call, for it to be called anew as if for the first time."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from skbgmd._utils import limits
from skbgmd.ghost.computed_parameters import is_of_torch

#: A module's attributes that hold hooks of its calls, and of backward passes through them.
_CALL_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_BACKWARD_HOOKS = ("_backward_pre_hooks", "_backward_hooks")


class BeforeCall:
    """State of a layer and of all modules in it, to be taken before a call.

    Containers are copied, so that nothing that a call writes to the layer reaches what was taken, nor the other way.

    Parameters
    ----------
    layer : Module
        The layer.

    Attributes
    ----------
    tensors : dict of tensors
        Copies of buffers, and of parameters that aren't trained, by name; without large ones.
    is_initialized : bool
        False where the call initializes parameters or buffers of lazy layers.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._modules = [(module, _state_of(module)) for module in layer.modules()]
        self.is_initialized = not any(map(is_lazy, (*layer.parameters(), *layer.buffers())))
        fixed = [(name, parameter) for name, parameter in layer.named_parameters() if not parameter.requires_grad]
        self.tensors = {
            name: value.detach().clone()
            for name, value in (*layer.named_buffers(), *fixed)
            if not is_lazy(value) and value.numel() <= limits.COPIED_BUFFER_ELEMENTS
        }

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Make the layer what it was, without hooks but torch's own; afterwards it is what it is now.

        May be entered once, for what is done meanwhile is done to what was taken.
        """
        present = [(module, dict(vars(module))) for module, _ in self._modules]
        try:
            for module, state in self._modules:
                _set(module, state)
            yield
        finally:
            for module, state in present:
                _set(module, state)


def _state_of(module: nn.Module) -> dict[str, Any]:
    state = {name: _copied(value) for name, value in vars(module).items()}
    for name in _CALL_HOOKS:
        hooks = state.get(name) or {}
        state[name] = OrderedDict((key, hook) for key, hook in hooks.items() if is_of_torch(hook))
    state |= {name: OrderedDict() for name in _BACKWARD_HOOKS}
    return state


def _set(module: nn.Module, state: dict[str, Any]) -> None:
    vars(module).clear()
    vars(module).update(state)


def _copied(value: Any) -> Any:
    """Copy containers within containers, and nothing else."""
    kind = type(value)
    if kind in (list, deque):
        result = copy(value)
        for place, inner in enumerate(value):
            if type(inner) in _CONTAINERS:
                result[place] = _copied(inner)
        return result
    if kind in (dict, OrderedDict, defaultdict):
        result = copy(value)
        for key, inner in value.items():
            if type(inner) in _CONTAINERS:
                result[key] = _copied(inner)
        return result
    if kind is tuple:
        return tuple(map(_copied, value))
    return copy(value) if kind is set else value


_CONTAINERS = frozenset({list, deque, dict, OrderedDict, defaultdict, set, tuple})
