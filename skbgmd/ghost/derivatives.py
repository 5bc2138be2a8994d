"""Registry of derivatives: what a layer does, and the way back from its output's gradient to its input's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skbgmd.ghost.registry import found_for, registering

#: From the gradient with respect to the output to that with respect to the input.
Backward = Callable[[torch.Tensor], torch.Tensor]
#: Function of a layer and its input that gives the output and the way back.
Derivative = Callable[[Any, torch.Tensor], tuple[torch.Tensor, Backward]]

DERIVATIVES: dict[type[nn.Module], Derivative] = {}


def register_derivative(*layers: type[nn.Module]) -> Callable[[Derivative], Derivative]:
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
        No classes of modules; in a training step: not such an output and function, or not such a gradient.

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
    return registering(DERIVATIVES, "derivative", layers)


def is_hooked(module: nn.Module) -> bool:
    """Tell whether a module itself has hooks that a call of it calls."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_called_plainly(module: nn.Module) -> bool:
    """Tell whether a call of a module is one of its ``forward``: it has no hooks, nor is the call itself overridden."""
    return not is_hooked(module) and type(module).__call__ is nn.Module.__call__


def derivative_of(layer: nn.Module) -> Derivative | None:
    """Find the derivative of a layer; None where there is none."""
    return found_for(DERIVATIVES, "derivative", layer)


def check_output(answer: Any, layer: nn.Module, name: str, n: int) -> None:
    """Check the answer of a named layer's derivative for n samples against what is asked of one."""
    is_pair = isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])
    if not (is_pair and isinstance(answer[0], torch.Tensor) and answer[0].shape[:1] == (n,)):
        parts = answer if isinstance(answer, tuple) else (answer,)
        raise TypeError(
            f"The derivative of the layer {name!r}, {type(layer).__name__}, must give an output of {n} samples and a "
            f"function of its gradient; found {' and '.join(map(_described, parts))}."
        )


def check_gradient(gradient: Any, layer: nn.Module, name: str, x: torch.Tensor) -> None:
    """Check the gradient with respect to the input x (b, ...) of a named layer that its derivative gives."""
    if not (isinstance(gradient, torch.Tensor) and gradient.shape == x.shape):
        raise TypeError(
            f"The derivative of the layer {name!r}, {type(layer).__name__}, must turn a gradient into one of the "
            f"input's shape {tuple(x.shape)}; found {_described(gradient)}."
        )


def _described(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
