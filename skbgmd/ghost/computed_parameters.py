"""Layers whose parameters are computed from others, by torch's parametrizations or by its hooks of an earlier kind."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized


def is_computed(layer: nn.Module) -> bool:
    """Tell whether what a layer multiplies by is computed of its parameters, as by pruning or ``weight_norm``."""
    return is_parametrized(layer) or any(map(is_of_torch, layer._forward_pre_hooks.values()))


def is_of_torch(hook: Any) -> bool:
    """Tell whether a hook computes a parameter, as those of ``weight_norm`` and of pruning do."""
    # A pruning of a user's own is of a subclass.
    kinds = (hook, *type(hook).__mro__)
    return any(str(getattr(kind, "__module__", None)).startswith("torch.nn.utils.") for kind in kinds)
