"""Per-sample gradients of a chain of layers in closed form: one forward and one backward pass without autograd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from skbgmd.ghost.derivatives import (
    DERIVATIVES,
    Backward,
    Derivative,
    check_gradient,
    check_output,
    derivative_of,
    is_called_plainly,
)
from skbgmd.ghost.factors import AffineFactor, JoinedFactor
from skbgmd.ghost.layers.linear import linear
from skbgmd.ghost.registry import RULES, Rule, check_answer, is_registered, rule_of

#: Dtypes of parameters and inputs.
WIDE = (torch.float32, torch.float64)
#: Dictionaries of hooks of a module.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Link(NamedTuple):
    """A layer of a chain.

    Attributes
    ----------
    name : str
        As in ``named_modules``.
    layer : Module
    derivative : callable
    rule : callable, or None
        None where no parameter of the layer is trained.
    columns : tuple of (str, int)
        Names of the layer's trained parameters, and the columns at which they begin.
    is_affine : bool
        It is a linear layer whose weights and bias are adjacent columns.
    """

    name: str
    layer: nn.Module
    derivative: Derivative
    rule: Rule | None
    columns: tuple[tuple[str, int], ...]
    is_affine: bool


class Pass(NamedTuple):
    """Trace of a forward pass: the output (n, ...), and each layer's input and the way back through it."""

    output: torch.Tensor
    given: list[torch.Tensor]
    back: list[Backward]


class Chain:
    """A module whose layers follow one another, each with a derivative, and those with parameters with a rule.

    Neither hooks nor autograd take part. What a layer computes, and what its rule gives, is what a
    :class:`~skbgmd.ghost.GradientRecorder` finds, to rounding; dropout draws the same numbers.

    Parameters
    ----------
    links : list of Link
        The layers.
    structure : object
        What the module was when they were found.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.ghost import Chain
    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    >>> chain = Chain.of(module, list(module.parameters()))
    >>> went = chain.forward(torch.ones(4, 3))
    >>> [(column, factor.n_units) for column, factor in chain.factors(went, torch.ones(4, 2))]
    [(0, 2)]
    """

    def __init__(self, module: nn.Module, links: list[Link], structure: Any) -> None:
        self.module, self.links, self._structure = module, links, structure
        #: A batch has gone through it.
        self.is_tried = False
        with_parameters = [number for number, link in enumerate(links) if link.rule is not None]
        #: The layer before which no parameter is.
        self._first = with_parameters[0]
        parameter = next(iter(links[self._first].layer.parameters()))
        self._dtype, self._device = parameter.dtype, parameter.device.type

    @classmethod
    def of(cls, module: nn.Module, parameters: Sequence[torch.Tensor]) -> Chain | None:
        """Find the chain that a module is, whose gradients with respect to some parameters are wanted; or None."""
        layers, structure = list(_in_order(module)), _structure(module)
        if structure is None or len({id(layer) for layer in layers}) < len(layers):
            return None
        starts, start = {}, 0
        for parameter in parameters:
            if type(parameter) is not nn.Parameter or parameter.dtype not in WIDE or parameter.numel() == 0:
                return None
            starts[id(parameter)] = start
            start += parameter.numel()
        names = {each: name for name, each in module.named_modules()}
        links: list[Link] = []
        found: set[int] = set()
        for layer in layers:
            derivative, own = derivative_of(layer), dict(layer.named_parameters())
            wanted = tuple((name, starts[id(each)]) for name, each in own.items() if id(each) in starts)
            rule = rule_of(layer) if wanted else None
            # One that two layers share has a gradient by both.
            ids = [id(own[name]) for name, _ in wanted]
            if derivative is None or (wanted and rule is None) or not found.isdisjoint(ids):
                return None
            links.append(Link(names[layer], layer, derivative, rule, wanted, _is_affine(layer, rule, wanted)))
            found.update(ids)
        same = len(found) == len(starts) and len({parameter.dtype for parameter in parameters}) == 1
        return cls(module, links, structure) if starts and same else None

    @property
    def is_as_it_was(self) -> bool:
        """Neither the module nor what is registered for its layers has changed, and nothing watches its layers."""
        return bool(_structure(self.module) == self._structure)

    def takes(self, x: Any) -> bool:
        """Tell whether an input is a batch for the chain: a plain tensor like the parameters, outside of autocast."""
        return (
            type(x) is torch.Tensor
            and x.ndim > 1
            and not x.requires_grad
            and x.dtype == self._dtype
            and not torch.is_autocast_enabled(self._device)
        )

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Pass:
        """Run the layers on a batch (n, ...).

        Raises
        ------
        NotImplementedError
            A layer's derivative doesn't know such a layer, or such an input.
        TypeError
            A registered one doesn't give an output and a way back.
        """
        given: list[torch.Tensor] = []
        back: list[Backward] = []
        for link in self.links:
            given.append(x)
            answer = link.derivative(link.layer, x)
            if is_registered(link.derivative):
                check_output(answer, link.layer, link.name, len(x))
            x, way = answer
            back.append(way)
        return Pass(x, given, back)

    @torch.no_grad()
    def factors(self, went: Pass, gradient: torch.Tensor) -> list[tuple[int, JoinedFactor]]:
        """Per-sample gradients as factors, from the gradient (n, ...) of the summed losses with respect to the output.

        Returns
        -------
        list of (int, Factor or AffineFactor)
            As :meth:`skbgmd.ghost.GradientRecorder.factors` gives them, the weights and the bias of a layer as one.

        Raises
        ------
        NotImplementedError
            A layer's rule doesn't know such a layer.
        TypeError
            What is registered doesn't give what it should.
        """
        placed: list[tuple[int, JoinedFactor]] = []
        for number in range(len(self.links) - 1, self._first - 1, -1):
            name, layer, derivative, rule, columns, is_affine = self.links[number]
            if is_affine and gradient.ndim == 2:
                placed.append((columns[0][1], AffineFactor(gradient, went.given[number])))
            elif rule is not None:
                answer = rule(layer, (went.given[number],), gradient)
                if is_registered(rule):
                    check_answer(answer, layer, name, len(gradient))
                for key, start in columns:
                    if key not in answer:
                        raise NotImplementedError(f"its rule doesn't know the parameter {key!r}")
                    named = answer[key]
                    for factor in named if isinstance(named, Sequence) else (named,):
                        placed.append((start, factor))
                        start += factor.n_columns
            if number > self._first:
                gradient = went.back[number](gradient)
                if is_registered(derivative):
                    check_gradient(gradient, layer, name, went.given[number])
        placed.sort(key=itemgetter(0))
        return placed


def _is_affine(layer: Any, rule: Rule | None, columns: tuple[tuple[str, int], ...]) -> bool:
    """Tell whether a layer is a linear one whose weights and bias are adjacent columns."""
    if rule is not linear or [name for name, _ in columns] != ["weight", "bias"]:
        return False
    (_, weight), (_, bias) = columns
    return bool(bias == weight + layer.weight.numel())


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """Go through the layers of nested sequences in the order in which they are called."""
    # Compiled modules give no attributes of their classes.
    plain = getattr(type(module), "forward", None) is nn.Sequential.forward and "forward" not in vars(module)
    if plain and isinstance(module, nn.Sequential):
        for layer in module:
            yield from _in_order(layer)
    else:
        yield module


def _structure(module: nn.Module) -> Any:
    """Collect everything that decides on the links of a module; None: something watches its layers, or changes them."""
    if any(getattr(torch_module, f"_global{name}", None) for name in HOOKS):
        return None
    found: list[Any] = [*RULES.values(), *DERIVATIVES.values()]
    left = [module]
    while left:
        layer = left.pop()
        # A hook of a parameter changes its gradient, which is never formed here.
        own = [each for each in layer._parameters.values() if each is not None]
        if not is_called_plainly(layer) or any(each._backward_hooks for each in own):
            return None
        found += (layer, type(layer), "forward" in vars(layer), *map(id, layer._parameters.values()))
        left += [child for child in layer._modules.values() if child is not None]
    return found
