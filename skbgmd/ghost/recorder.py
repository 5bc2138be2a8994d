"""What went into the layers of a module in one forward pass, and the gradients with respect to what came out.

The parameters' own gradients are not computed: the backward pass stops at the layers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map_only

from skbgmd._utils.autocast import without_autocast
from skbgmd.ghost.attention import AttentionProducts, by_sample, units_of
from skbgmd.ghost.embedding_factor import EmbeddingFactor
from skbgmd.ghost.factors import DenseFactor, Factor, Factors, OuterProductFactor
from skbgmd.ghost.per_sample import per_sample_factors
from skbgmd.ghost.rules import check_answer, is_registered, linear_factors, rule_of, sample_axis

#: A parameter, the unit at which a factor begins, and the factor.
Part = tuple[torch.Tensor, int, Factor]


#: Half precision.
HALF = (torch.float16, torch.bfloat16)


class GhostError(ValueError):
    """Gradients of single samples can't be had from one backward pass of this module."""


@dataclass
class Call:
    """Something that used parameters.

    Attributes
    ----------
    name : str
        The layer's, as in ``named_modules``.
    edges : list of GradientEdge
        Of the tensors that came out.
    sources : list of Node
        What computed the tensors that went in.
    given : list of (tensor, int)
        Tensors that went in, and their versions, which go up when they are changed in place.
    parts : callable
        Parts of the parameters' gradients, from the gradients at the edges and the number of samples.
    half : bool
        What came out is in half precision.
    """

    name: str
    edges: list[GradientEdge]
    sources: list[Node]
    given: list[tuple[torch.Tensor, int]]
    parts: Callable[[list[torch.Tensor | None], int], Iterator[Part]]
    half: bool


class GradientRecorder:
    """Records the layers' calls while it is entered; then tells the factors of the parameters' gradients.

    Parameters
    ----------
    module : Module
        The network. Its layers with parameters are hooked while the tape is entered, and not changed.
    parameters : sequence of tensors
        Parameters whose gradients are wanted.

    Raises
    ------
    GhostError
        A layer that mixes samples.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[torch.Tensor]) -> None:
        self.module, self.parameters = module, list(parameters)
        self.calls: list[Call] = []
        self._handles: list[Any] = []
        self.layers = list(layers_with_parameters(module, self.parameters))
        _refuse_nesting(self.layers)

    def __enter__(self) -> Self:
        for name, layer in self.layers:
            if isinstance(layer, nn.MultiheadAttention):
                recorder = _AttentionRecorder(self, name)
                self._handles.append(layer.register_forward_pre_hook(recorder.before))
                self._handles.append(layer.register_forward_hook(recorder.after, always_call=True))
            else:
                # A rule is about what comes out before other hooks change it; torch.func runs these hooks as well.
                first = rule_of(layer) is not None
                hook = _Recorder(self, name)
                self._handles.append(layer.register_forward_hook(hook, with_kwargs=True, prepend=first))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def in_half_precision(self) -> bool:
        """Whether some layer was computed in half precision, as under autocast."""
        return any(call.half for call in self.calls)

    @without_autocast
    def factors(self, losses: torch.Tensor) -> list[tuple[int, Factor]]:
        """Factors of the gradients of each sample's own loss.

        Parameters
        ----------
        losses : tensor of shape (b,)
            The loss of each sample, which must depend on that sample alone.

        Returns
        -------
        list of (int, Factor)
            The column at which a parameter's part begins, in the order of the parameters, and its factor.

        Raises
        ------
        GhostError
            A parameter is used other than by a layer; a layer's input doesn't have the samples along its first axis; or
            what went into a layer was changed in place.
        """
        self._refuse_stray_parameters(losses)
        edges = [edge for call in self.calls for edge in call.edges]
        gradients = iter(torch.autograd.grad(losses.sum(), edges, allow_unused=True) if edges else ())
        places = {id(parameter): number for number, parameter in enumerate(self.parameters)}
        found: dict[int, dict[int, list[Factor]]] = {}
        with torch.no_grad():
            for call in self.calls:
                for parameter, unit, factor in self._parts(call, [next(gradients) for _ in call.edges], len(losses)):
                    if id(parameter) in places:
                        found.setdefault(places[id(parameter)], {}).setdefault(unit, []).append(factor)
        self.calls = []
        return self._placed(found)

    @staticmethod
    def _parts(call: Call, gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
        if all(gradient is None for gradient in gradients):
            return
        if any(tensor._version != version for tensor, version in call.given):
            raise GhostError(f"What goes into the layer {call.name!r} must not be changed in place afterwards.")
        try:
            yield from call.parts(gradients, n)
        except NotImplementedError as error:
            raise GhostError(f"The layer {call.name!r} gives no gradients of single samples: {error}.") from error

    def _placed(self, found: dict[int, dict[int, list[Factor]]]) -> list[tuple[int, Factor]]:
        placed, start = [], 0
        for number, parameter in enumerate(self.parameters):
            of_parameter = found.get(number, {})
            if _overlap(of_parameter):
                of_parameter = {0: [_written_out(of_parameter, len(parameter))]}
            for unit, factors in sorted(of_parameter.items()):
                placed.append((start + unit * factors[0].width, _merged(factors)))
            start += parameter.numel()
        return placed

    def _refuse_stray_parameters(self, losses: torch.Tensor) -> None:
        """Follow the graph around the recorded layers: no parameter must be met on the way."""
        inside: dict[Node, list[Node]] = {}
        for call in self.calls:
            for edge in call.edges:
                inside.setdefault(edge.node, []).extend(call.sources)
        wanted = {id(parameter) for parameter in self.parameters}
        seen: set[Node] = set()
        left: list[Node] = [] if losses.grad_fn is None else [losses.grad_fn]
        while left:
            node = left.pop()
            if node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) in wanted:
                raise GhostError(
                    f"Every parameter must be used by layers that hold it, for gradients of single samples; found "
                    f"{self._name_of(variable)}, which something else uses. Give the module that does a rule of its "
                    f"own (skbgmd.ghost.register_rule), or train with micro-batches."
                )
            if node in inside:
                left += inside[node]
            else:
                left += [source for source, _ in node.next_functions if source is not None]

    def _name_of(self, parameter: torch.Tensor) -> str:
        for name, other in self.module.named_parameters():
            if other is parameter:
                return repr(name)
        return "one outside of the module"


def layers_with_parameters(module: nn.Module, parameters: Sequence[torch.Tensor]) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that hold some of the parameters themselves, and their names.

    Raises
    ------
    GhostError
        A layer that mixes samples.
    """
    wanted = {id(parameter) for parameter in parameters}
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
        if any(id(parameter) in wanted for parameter in layer._parameters.values()):
            yield name, layer
        else:
            left += [(f"{name}.{child}".lstrip("."), inner) for child, inner in layer.named_children()]


def _refuse_nesting(layers: Sequence[tuple[str, nn.Module]]) -> None:
    """Refuse layers that are parts of others: what they do there would count twice."""
    names = {id(layer): name for name, layer in layers}
    for name, layer in layers:
        for inner in layer.modules():
            if inner is not layer and id(inner) in names:
                raise GhostError(
                    f"Layers must not be parts of one another for gradients of single samples; found "
                    f"{names[id(inner)]!r} inside of {name!r}, which has parameters of its own. Give the outer one no "
                    f"parameters, or train with micro-batches."
                )


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _overlap(found: dict[int, list[Factor]]) -> bool:
    """Whether factors, by the units at which they begin, have some units in common but not all."""
    stop = 0
    for unit, factors in sorted(found.items()):
        ends = {unit + factor.n_units for factor in factors}
        if unit < stop or len(ends) > 1:
            return True
        (stop,) = ends
    return False


def _written_out(found: dict[int, list[Factor]], n_units: int) -> DenseFactor:
    """One factor of a parameter that is used by parts that overlap, such as in self- and in cross-attention."""
    first = next(iter(found.values()))[0]
    total = first.parts[0].new_zeros((first.n_rows, n_units, first.width))
    for unit, factors in found.items():
        for factor in factors:
            written = factor.explicit(slice(0, factor.n_units))
            total[:, unit : unit + factor.n_units] += written.view(factor.n_rows, factor.n_units, factor.width)
    return DenseFactor(total)


def _merged(factors: list[Factor]) -> Factor:
    """One factor of a parameter that is used several times: its gradients are the sums over the uses."""
    first, *others = factors
    if not others:
        return first
    if all(isinstance(factor, OuterProductFactor) for factor in factors):
        outer = [factor for factor in factors if isinstance(factor, OuterProductFactor)]
        return OuterProductFactor(torch.cat([f.left for f in outer], dim=1), torch.cat([f.right for f in outer], dim=1))
    if all(isinstance(factor, EmbeddingFactor) for factor in factors):
        found = [factor for factor in factors if isinstance(factor, EmbeddingFactor)]
        row, unit, values = (torch.cat([getattr(f, name) for f in found]) for name in ("row", "unit", "values"))
        return EmbeddingFactor.of(row, unit, values, first.n_rows, first.n_units)
    everything = slice(0, first.n_units)
    total = sum((factor.explicit(everything) for factor in others), first.explicit(everything))
    return DenseFactor(total.reshape(first.n_rows, first.n_units, first.width))


class _Recorder:
    """A forward hook that adds a layer's calls to a tape."""

    def __init__(self, tape: GradientRecorder, name: str) -> None:
        self.tape, self.name = tape, name

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        everything = _tensors(output)
        if len(everything) > 1:
            # One may have been made of another: what comes back to the other by way of the first isn't to count twice.
            output = tree_map_only(torch.Tensor, _alias, output)
            everything = _tensors(output)
        differentiable = [number for number, value in enumerate(everything) if value.grad_fn is not None]
        if not differentiable:
            return output
        rule = rule_of(layer)
        given = _tensors(args[0] if len(args) == 1 and not kwargs else _in_order(layer, args, kwargs))
        # What follows may change it in place.
        outputs = [] if rule is not None else [value.detach().clone() for value in everything]

        def parts(gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
            of_all: list[torch.Tensor | None] = [None] * len(everything)
            for number, gradient in zip(differentiable, gradients, strict=True):
                of_all[number] = gradient
            if rule is None:
                factors: Factors = per_sample_factors(layer, (args, kwargs), outputs, of_all, n)
            else:
                axis, alone = sample_axis(layer), of_all[0] if len(of_all) == 1 else None
                # Older versions of torch see no tensors in packed sequences.
                shape = tuple(given[0].shape) if given else ()
                misplaced = len(shape) <= axis or shape[axis] != n
                if misplaced or (alone is not None and len(alone) != n):
                    raise GhostError(
                        f"The samples must be along the {('first', 'second')[axis]} axis of what goes into a layer; "
                        f"found {n} samples and, at the layer {self.name!r}, shape {shape}."
                    )
                wide = tuple(None if gradient is None else _wide(gradient) for gradient in of_all)
                factors = rule(layer, tuple(_wide(value) for value in given), wide if len(wide) > 1 else wide[0])
                if is_registered(rule):
                    check_answer(factors, layer, self.name, n)
            held = layer.named_parameters() if layer._modules else layer._parameters.items()
            for name, parameter in held:
                if parameter is None:
                    continue
                if rule is not None and name not in factors:
                    raise NotImplementedError(f"its rule doesn't know the parameter {name!r}")
                unit, named = 0, factors.get(name, [])
                for factor in named if isinstance(named, Sequence) else [named]:
                    yield parameter, unit, factor
                    unit += factor.n_units

        self.tape.calls.append(_call(self.name, given, [everything[number] for number in differentiable], parts))
        return output


class _AttentionRecorder:
    """Forward hooks that add the products inside of multi-head attention to a tape."""

    def __init__(self, tape: GradientRecorder, name: str) -> None:
        self.tape, self.name = tape, name

    def before(self, layer: nn.Module, args: Any) -> None:
        self.mode = AttentionProducts()
        self.mode.__enter__()  # type: ignore[no-untyped-call]

    def after(self, layer: Any, args: Any, output: Any) -> None:
        self.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for x, weight, bias, product in self.mode.products:
            if product.grad_fn is not None:
                self.tape.calls.append(self._product(layer, x, weight, bias, product))

    def _product(
        self, layer: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, product: torch.Tensor
    ) -> Call:
        def parts(gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
            gradient = gradients[0]
            assert gradient is not None, "a product has one output"
            if gradient.numel() % (n * gradient.shape[-1]):
                raise GhostError(f"The layer {self.name!r} must be given whole batches of {n} samples.")
            factors = linear_factors(by_sample(_wide(x), n), by_sample(_wide(gradient), n))
            for used, factor in ((weight, factors["weight"]), (bias, factors["bias"])):
                if used is not None and isinstance(factor, Factor):
                    yield (*units_of(layer, used), factor)

        return _call(self.name, [x], [product], parts)


def _call(name: str, given: list[torch.Tensor], outputs: list[torch.Tensor], parts: Any) -> Call:
    return Call(
        name,
        [get_gradient_edge(value) for value in outputs],
        [value.grad_fn for value in given if value.grad_fn is not None],
        [(value, value._version) for value in given],
        parts,
        any(value.dtype in HALF for value in outputs),
    )


def _in_order(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Arguments in the order in which the layer declares them, however it was called."""
    if not kwargs:
        return args
    return tuple(signature(layer.forward).bind(*args, **kwargs).arguments.values())


def _alias(value: torch.Tensor) -> torch.Tensor:
    """The same numbers, to which only gradients of what follows come back."""
    # Not a view, for those who are given it may change it in place.
    return value.clone() if value.grad_fn is not None else value


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Detached, and in single precision where it is half."""
    values = values.detach()
    return values.float() if values.dtype in HALF else values
