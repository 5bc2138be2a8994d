"""Layers of a module that are recorded, and modules of which they can't be."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from skbgmd.ghost.computed_parameters import is_computed
from skbgmd.ghost.registry import RULES, WATCHES, Rule, Watch, is_registered, rule_of, sample_axis, watch_of


class GhostError(ValueError):
    """Error: the per-sample gradients of this module don't follow from one backward pass."""


class Layer(NamedTuple):
    """A layer with parameters, and what is registered for it.

    Attributes
    ----------
    name : str
        As in ``named_modules``.
    module : Module
    rule : callable, or None
        None where there is none.
    watch : callable, or None
        What lists its products instead of a rule.
    is_own : bool
        The rule is a user's own.
    sample_axis : int
        The axis of the first input that samples are along.
    """

    name: str
    module: nn.Module
    rule: Rule | None
    watch: Callable[[Any], Watch] | None
    is_own: bool
    sample_axis: int


def recorded_layers(module: nn.Module, wanted: Container[int]) -> list[Layer]:
    """Find the layers of a module to record, the outermost that hold some of the parameters, known by ``id``.

    Raises
    ------
    GhostError
        A layer mixes samples, takes no hooks, or is a part of another.
    """
    found = list(_layers_with_parameters(module, wanted))
    _refuse_nesting(found)
    return found


def _layers_with_parameters(module: nn.Module, wanted: Container[int]) -> Iterator[Layer]:
    """Find the outermost modules that hold some of the parameters, known by ``id``, themselves."""
    left, seen = [("", module)], set()
    while left:
        name, layer = left.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, _BatchNorm) and layer.training:
            raise GhostError(
                f"Layers must treat each sample by itself for gradients of single samples; found the layer {name!r}, "
                f"{type(layer).__name__}, which mixes those of a batch. Use torch.nn.GroupNorm or LayerNorm, or put "
                f"it into evaluation mode."
            )
        # What a weight is computed of may be in modules of its own.
        held = layer.parameters() if is_computed(layer) else layer._parameters.values()
        if any(id(parameter) in wanted for parameter in held):
            if isinstance(layer, torch.jit.ScriptModule):
                raise GhostError(
                    f"Layers must take hooks for gradients of single samples; found the layer {name!r}, "
                    f"{type(layer).__name__}, which is compiled."
                )
            rule, watch = rule_of(layer), watch_of(layer)
            yield Layer(name, layer, rule, watch, is_registered(rule), sample_axis(layer))
        else:
            left += [(f"{name}.{child}".lstrip("."), inner) for child, inner in layer.named_children()]


def _refuse_nesting(layers: Sequence[Layer]) -> None:
    """Refuse layers that are parts of others: what they do there would count twice."""
    names = {id(layer.module): layer.name for layer in layers}
    for layer in layers:
        for inner in layer.module.modules():
            if inner is not layer.module and id(inner) in names:
                raise GhostError(
                    f"Layers must not be parts of one another for gradients of single samples; found "
                    f"{names[id(inner)]!r} inside of {layer.name!r}, which has parameters of its own. Give the outer "
                    f"one no parameters, or train with micro-batches."
                )


def structure_of(module: nn.Module) -> Any:
    """Collect everything that decides on the layers of a module and the rules for them."""
    found: list[tuple[Any, ...]] = []
    seen: set[int] = set()
    left: list[nn.Module | None] = [module]
    while left:
        layer = left.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        # What was pruned has other names.
        own = [(name, id(parameter)) for name, parameter in layer._parameters.items()]
        found.append((id(layer), type(layer), layer.training, "forward" in vars(layer), *own))
        left += layer._modules.values()
    return found, dict(RULES), dict(WATCHES)
