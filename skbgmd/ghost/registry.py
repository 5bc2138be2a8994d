"""Registry of rules: per-sample gradients from the inputs of a layer and the gradients of its outputs.

A rule takes a layer, its inputs (b, ...) and the gradient with respect to its output (b, ...), and gives a
:class:`~skbgmd.ghost.factors.Factor` for each of its parameters by name: ``OuterProductFactor`` where a gradient is a
sum of outer products, ``DenseFactor`` where it is small. Several factors of one parameter are those of adjacent ranges
of its units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from skbgmd._utils.registration import attach, registered
from skbgmd.ghost.computed_parameters import is_computed
from skbgmd.ghost.factors import Factor

#: Answer of a rule: factors of the gradients of a layer's parameters by name.
Factors = Mapping[str, Factor | Sequence[Factor]]
#: Function of a layer, its inputs, and the gradient with respect to its output that gives factors; of a layer with
#: several outputs the gradients are a tuple, with None where the loss doesn't depend on one.
Rule = Callable[[Any, tuple[torch.Tensor, ...], Any], Factors]
#: A parameter, the unit at which a factor begins, and the factor.
Part = tuple[torch.Tensor, int, Factor]


class Product(NamedTuple):
    """A product by a parameter, or by a part of one, inside of a layer; without a weight it is the bias alone."""

    given: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    output: torch.Tensor


class Watch(AbstractContextManager[Any, None], Protocol):
    """Lists the products inside of a layer while it is entered: for layers that a hook alone doesn't see into."""

    products: list[Product]

    def parts(self, product: Product, gradient: torch.Tensor, n: int) -> Iterator[Part]:
        """Factors of a product for n samples, from the gradient with respect to its output."""
        ...


#: Methods that compute what a layer does.
FORWARD = ("forward", "_conv_forward")
#: Rules, and what watches layers instead, by type of layer.
RULES: dict[type[nn.Module], Rule] = {}
WATCHES: dict[type[nn.Module], Callable[[Any], Watch]] = {}
W = TypeVar("W", bound=Callable[[Any], Watch])
F = TypeVar("F", bound=Callable[..., Any])


def register_rule(*layers: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule that gives the per-sample gradients of layers of one or more types.

    The rule is also used for subclasses that don't override ``forward``.

    Parameters
    ----------
    *layers : classes of modules
        Types of layers that the rule is for. It replaces an earlier rule for them.

    Returns
    -------
    decorator : callable
        Decorator of a function ``rule(layer, inputs, gradient)`` that returns a dict. Its keys are the names of the
        layer's parameters, including those of modules within the layer. Its values are a :class:`Factor` for each, or
        several factors, of adjacent ranges of the parameter's units.

        ``inputs`` is a tuple of the layer's input tensors. ``gradient`` is the gradient of the summed losses with
        respect to the layer's output. Both have no graph, and row i of each belongs to sample i. If the layer has
        several outputs, ``gradient`` is a tuple, with None for outputs that the losses don't depend on.

    Raises
    ------
    TypeError
        If ``layers`` aren't classes of modules; in a training step, if the rule doesn't return such a dict.

    Notes
    -----
    In its first steps, and now and then later, a training compares a sum of all gradients with an exact one. If they
    differ, ``gradients="auto"`` warns and switches to micro-batches, and ``gradients="one_pass"`` raises an error.

    Examples
    --------
    A layer that scales its inputs (b, d) by a parameter (d,):

    >>> import torch
    >>> from skbgmd.ghost import DenseFactor, register_rule
    >>> class Scale(torch.nn.Module):
    ...     def __init__(self, d):
    ...         super().__init__()
    ...         self.factor = torch.nn.Parameter(torch.ones(d))
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> @register_rule(Scale)
    ... def scale(layer, inputs, gradient):
    ...     return {"factor": DenseFactor(inputs[0] * gradient)}

    A layer that scales the channels of images (b, c, h, w), where the positions of an image are summed:

    >>> class Gain(torch.nn.Module):
    ...     def __init__(self, c):
    ...         super().__init__()
    ...         self.gain = torch.nn.Parameter(torch.ones(c))
    ...
    ...     def forward(self, x):
    ...         return x * self.gain[:, None, None]
    >>> @register_rule(Gain)
    ... def gain(layer, inputs, gradient):
    ...     return {"gain": DenseFactor((inputs[0] * gradient).sum(dim=(2, 3)))}
    """
    return registering(RULES, "rule", layers)


def registering(registry: dict[type[nn.Module], F], name: str, layers: tuple[Any, ...]) -> Callable[[F], F]:
    """Check classes of layers, and give a decorator of functions that registers them for these classes."""
    if not layers or not all(isinstance(layer, type) and issubclass(layer, nn.Module) for layer in layers):
        raise TypeError(f"layers must be classes of modules, one at least; found {layers}.")

    def register(function: F) -> F:
        for layer in layers:
            registry[layer] = function
            attach(layer, name, function)
        return function

    return register


def register_watch(*layers: type[nn.Module]) -> Callable[[W], W]:
    """Register a class of :class:`Watch`, made of a layer, for types of layers and their subclasses."""

    def register(watch: W) -> W:
        for layer in layers:
            WATCHES[layer] = watch
        return watch

    return register


def is_registered(rule: Callable[..., Any] | None) -> bool:
    """Tell whether a rule, or a derivative, is a user's own."""
    return rule is not None and not (getattr(rule, "__module__", None) or "").startswith("skbgmd.")


def check_answer(answer: Any, layer: nn.Module, name: str, n: int) -> None:
    """Check the answer of a rule for n samples of a named layer against what :func:`register_rule` asks for."""
    what = f"The rule of the layer {name!r}, {type(layer).__name__},"
    if not isinstance(answer, Mapping):
        raise TypeError(f"{what} must give a dict of factors by the parameters' names; found {type(answer).__name__}.")
    held = {**layer._parameters, **dict(layer.named_parameters())}
    unknown = set(answer) - set(held)
    if unknown:
        raise TypeError(f"{what} must name parameters of the layer; found {sorted(unknown)}.")
    for key, given in answer.items():
        factors = given if isinstance(given, Sequence) else [given]
        if not all(isinstance(factor, Factor) for factor in factors):
            raise TypeError(
                f"{what} must give factors, such as DenseFactor or OuterProductFactor; found {given!r} for {key!r}."
            )
        parameter = held[key]
        if parameter is None:
            continue  # such as a bias that a layer doesn't have
        columns, size = sum(factor.n_columns for factor in factors), parameter.numel()
        if columns != size or any(factor.n_rows != n for factor in factors):
            raise TypeError(
                f"{what} must give {n} rows of {size} numbers for {key!r}; found "
                f"{' and '.join(f'{factor.n_rows} of {factor.n_columns}' for factor in factors)}."
            )


def rule_of(layer: nn.Module) -> Rule | None:
    """Find the rule for a layer; None where there is none."""
    return found_for(RULES, "rule", layer)


def found_for(registry: Mapping[type[nn.Module], F], name: str, layer: nn.Module) -> F | None:
    """Find what is registered for a layer; None where nothing is."""
    # A lazy one is of another class once it is called.
    own = getattr(type(layer), "cls_to_become", None) or type(layer)
    for kind in own.__mro__:
        found = registered(registry, kind, name)
        if found is not None:
            # A subclass, a changed object or a computed parameter may do something else, and needs one of its own.
            same = all(getattr(kind, method, None) is getattr(own, method, None) for method in FORWARD)
            same = same and "forward" not in vars(layer) and not any(map(is_computed, layer.modules()))
            return found if same else None
    return None


def watch_of(layer: nn.Module) -> Callable[[Any], Watch] | None:
    """Find the class that watches a layer; None where there is none, or where parameters are computed."""
    # What is watched uses layers in it without a call of them, so that hooks of theirs compute nothing.
    if is_computed(layer) or any(map(is_parametrized, layer.modules())):
        return None
    return next((WATCHES[kind] for kind in type(layer).__mro__ if kind in WATCHES), None)


def sample_axis(layer: nn.Module) -> int:
    """Find the axis of a layer's input that samples are along."""
    return 1 if isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)) and not layer.batch_first else 0
