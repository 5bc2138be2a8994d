"""Registry of derivatives: what a layer does, and the way back from its output's gradient to its input's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from skbgmd._utils.registration import attach, registered
from skbgmd.ghost.registry import FORWARD

#: From the gradient with respect to the output to that with respect to the input.
Backward = Callable[[torch.Tensor], torch.Tensor]
#: Function of a layer and its input that gives the output and the way back.
Derivative = Callable[[Any, torch.Tensor], tuple[torch.Tensor, Backward]]
D = TypeVar("D", bound=Derivative)

DERIVATIVES: dict[type[nn.Module], Derivative] = {}


def register_derivative(*layers: type[nn.Module]) -> Callable[[D], D]:
    """Register the derivative of types of layers, and of their subclasses that don't override ``forward``.

    A chain of layers that all have one, ``nn.Sequential`` or a single layer, gives per-sample gradients without
    autograd and without hooks; those that have parameters need a rule as well
    (:func:`~skbgmd.ghost.register_rule`).

    Parameters
    ----------
    *layers : classes of modules
        Types that the derivative is for; an earlier one of theirs is replaced.

    Returns
    -------
    decorator : callable
        Of a function ``derivative(layer, x)`` of the layer and its input (b, ...), line i of it of sample i. It gives
        the output (b, ...), as a call of the layer does, from the same random numbers, and without changing ``x``; and
        a function that turns the gradient with respect to the output into that with respect to the input. It is called
        without autograd. ``NotImplementedError``: this layer isn't known, and autograd does it all.

    Raises
    ------
    TypeError
        No classes of modules.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.ghost import register_derivative
    >>> class Square(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.square()
    >>> @register_derivative(Square)
    ... def square(layer, x):
    ...     return x.square(), lambda gradient: 2.0 * x * gradient
    """
    if not layers or not all(isinstance(layer, type) and issubclass(layer, nn.Module) for layer in layers):
        raise TypeError(f"layers must be classes of modules, one at least; found {layers}.")

    def register(derivative: D) -> D:
        for layer in layers:
            DERIVATIVES[layer] = derivative
            attach(layer, "derivative", derivative)
        return derivative

    return register


def derivative_of(layer: nn.Module) -> Derivative | None:
    """Find the derivative of a layer; None where there is none."""
    for kind in type(layer).__mro__:
        derivative = registered(DERIVATIVES, kind, "derivative")
        if derivative is not None:
            same = all(getattr(kind, name, None) is getattr(type(layer), name, None) for name in FORWARD)
            return derivative if same and "forward" not in vars(layer) and not is_parametrized(layer) else None
    return None
