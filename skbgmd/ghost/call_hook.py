"""Hooks of a layer's calls that copies of the layer don't keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class CallHook:
    """Hook of a layer's calls that does nothing in a copy of the layer, and is removed from it by its first call.

    Copies and pickles of a layer take its hooks with them: whoever copies a module while it is hooked for a while would
    have the copy hooked for good.

    Parameters
    ----------
    function : callable, default=None
        What is called in the place of the hook; None in copies.
    """

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self.function = function

    def __reduce__(self) -> Any:
        return CallHook, ()

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        if self.function is not None:
            return self.function(module, *args)
        # All at once, before those that torch calls after an error in a loop over what is left.
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, CallHook) and hook.function is None]:
                for registered in (hooks, module._forward_hooks_with_kwargs, module._forward_hooks_always_called):
                    registered.pop(key, None)
        return None
