"""Records layers' inputs in a forward pass, and gives the per-sample gradients after one backward pass.

The parameters' own gradients are not computed: the backward pass stops at the layers' outputs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map_only

from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.backward_passes import REENTRANT, is_reentrant
from skbgmd.ghost.before_call import BeforeCall
from skbgmd.ghost.call_hook import CallHook
from skbgmd.ghost.computed_parameters import is_computed
from skbgmd.ghost.factors import DenseFactor, EmbeddingFactor, Factor, OuterProductFactor
from skbgmd.ghost.per_sample import per_sample_factors
from skbgmd.ghost.registry import (
    RULES,
    WATCHES,
    Factors,
    Part,
    Product,
    Rule,
    Watch,
    check_answer,
    is_registered,
    rule_of,
    sample_axis,
    watch_of,
)

#: Half precision.
HALF = (torch.float16, torch.bfloat16)


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


@dataclass
class Call:
    """A call of a layer, or a product inside of one.

    Attributes
    ----------
    name : str
        The layer's.
    edges : list of GradientEdge
        Of the output tensors.
    sources : list of Node
        Nodes that computed the input tensors.
    given : list of (tensor, int)
        Input tensors, and their versions, which go up when they are changed in place.
    parts : callable
        Parts of the parameters' gradients, from the gradients at the edges and the number of samples.
    """

    name: str
    edges: list[GradientEdge]
    sources: list[Node]
    given: list[tuple[torch.Tensor, int]]
    parts: Callable[[list[torch.Tensor | None], int], Iterator[Part]]


class GradientRecorder:
    """Per-sample gradients from one backward pass: a context manager that records the calls of a module's layers.

    Compute the losses while the recorder is entered, then ask for their gradients by :meth:`factors`, or pass the
    recorder to :func:`skbgmd.robust_backward`. It may be entered again, for another forward pass. The recorder looks up
    the layers and their rules when it is first entered, and again after a change of the module, of its parameters or of
    the registered rules.

    Parameters
    ----------
    module : Module
        The network. Its layers with parameters have hooks while the recorder is entered, and aren't changed.
    parameters : iterable of tensors, default=None
        Parameters whose gradients are wanted. None: all of the module's. Parameters that require no gradient when the
        recorder is entered are skipped, and each counts once.

    Attributes
    ----------
    parameters : list of tensors
        The parameters, without the skipped ones.
    check : object
        State of the comparisons with exact gradients, kept for the caller that makes them.

    Raises
    ------
    GhostError
        If a parameter is complex; when it is entered, if a layer mixes samples.

    Notes
    -----
    A copy, such as by ``copy.deepcopy`` or of a pickle, records the copy of the module; it isn't entered, and holds no
    calls.
    """

    check: Any = None

    def __init__(self, module: nn.Module, parameters: Iterable[torch.Tensor] | None = None) -> None:
        self.module = module
        self._given = None if parameters is None else list(dict.fromkeys(parameters))
        self._begin(self._wanted())

    def _begin(self, parameters: list[torch.Tensor]) -> None:
        self.calls: list[Call] = []
        self._handles: list[Any] = []
        self._hooks: list[_RuleHook | _WatchHook] = []
        self._layers: list[Layer] = []
        self._take(parameters)

    def __getstate__(self) -> dict[str, Any]:
        # Of a copy of the module other layers and parameters are recorded, by hooks of the copy's own.
        return {name: getattr(self, name) for name in ("module", "_given", "parameters", "check")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # Without the module, which is yet to be filled where it holds the recorder.
        self._begin(self.parameters)

    def _wanted(self) -> list[torch.Tensor]:
        every = self.module.parameters() if self._given is None else self._given
        return [parameter for parameter in every if parameter.requires_grad]

    def _take(self, parameters: list[torch.Tensor]) -> None:
        if any(parameter.is_complex() for parameter in parameters):
            raise GhostError("Parameters must be real for gradients of single samples; found a complex one.")
        self.parameters = parameters
        # Those without elements have no gradients, and rules needn't know them; lazy ones get theirs by a call.
        places = [(id(each), place) for place, each in enumerate(parameters) if is_lazy(each) or each.numel() > 0]
        self._places = dict(places)
        self._structure: Any = None

    @property
    def is_entered(self) -> bool:
        """The module's calls are being recorded."""
        return bool(self._handles)

    @property
    def layers(self) -> list[Layer]:
        """The outermost layers that hold some of the parameters themselves."""
        structure = _structure(self.module)
        if structure != self._structure:
            self._layers = list(_layers_with_parameters(self.module, self._places))
            _refuse_nesting(self._layers)
            self._hooks = [(_RuleHook if layer.watch is None else _WatchHook)(self, layer) for layer in self._layers]
            self._structure = structure
        return self._layers

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("A recorder must be left before it is entered again.")
        self.calls = []
        if list(map(id, wanted := self._wanted())) != list(map(id, self.parameters)):
            self._take(wanted)
        hooked = next((parameter for parameter in self.parameters if parameter._backward_hooks), None)
        if hooked is not None:
            raise GhostError(
                f"Parameters must have no hooks for gradients of single samples, which would change gradients that are "
                f"never formed; found one of {self._name_of(hooked)}."
            )
        if self.layers:
            self._handles = [handle for hook in self._hooks for handle in hook.register()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if kind is not None:
            self.calls = []

    def record(
        self, layer: Layer, given: list[torch.Tensor], outputs: list[torch.Tensor], parts: Callable[..., Iterator[Part]]
    ) -> None:
        """Add a call of a layer; its tensors, and the function that gives its :attr:`Call.parts`."""
        edges = [get_gradient_edge(value) for value in outputs]
        sources = [value.grad_fn for value in given if value.grad_fn is not None]
        self.calls.append(Call(layer.name, edges, sources, [(value, value._version) for value in given], parts))

    @without_autocast
    def factors(self, losses: torch.Tensor, *, retain_graph: bool = False) -> list[tuple[int, Factor]]:
        """Get the per-sample gradients of the losses, as factors.

        Parameters
        ----------
        losses : tensor of shape (b,)
            The loss of each sample. It must depend on that sample alone.
        retain_graph : bool, default=False
            Keep the graph of the losses for another backward pass.

        Returns
        -------
        list of (int, Factor)
            The column at which a parameter's part begins, in the order of the parameters, and the parameter's factor.

        Raises
        ------
        GhostError
            If a parameter isn't initialized, or is used outside of a layer; if a layer's input doesn't have the samples
            along its first axis; if the input of a layer was changed in place; or if the losses go through a reentrant
            checkpoint.
        """
        # Whatever comes, what was recorded is over: it holds a batch's graph.
        calls, self.calls = self.calls, []
        self.check_initialized()
        self._refuse_stray_parameters(losses, calls)
        edges = [edge for call in calls for edge in call.edges]
        # Of the sum of the losses, which itself would have no graph under torch.no_grad().
        ones = torch.ones_like(losses)
        gradients = iter(torch.autograd.grad(losses, edges, ones, retain_graph, allow_unused=True) if edges else ())
        found: dict[int, dict[int, list[Factor]]] = {}
        with torch.no_grad():
            for call in calls:
                for parameter, unit, factor in self._parts(call, [next(gradients) for _ in call.edges], len(losses)):
                    if id(parameter) in self._places:
                        found.setdefault(self._places[id(parameter)], {}).setdefault(unit, []).append(factor)
        return self._placed(found)

    def check_initialized(self) -> None:
        """Refuse parameters of lazy layers that have had no batch."""
        lazy = next((parameter for parameter in self.parameters if is_lazy(parameter)), None)
        if lazy is not None:
            raise GhostError(
                f"Parameters must be initialized for gradients of single samples; found {self._name_of(lazy)} of a "
                f"lazy layer that hasn't been called. Run one batch through the layer first, or leave it out of the "
                f"recorder's parameters."
            )

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
        """Order the factors of the parameters by their first columns, one for each range of units."""
        placed, start = [], 0
        for place, parameter in enumerate(self.parameters):
            of_parameter = found.get(place, {})
            if _overlap(of_parameter):
                of_parameter = {0: [_written_out(of_parameter, len(parameter))]}
            for unit, factors in sorted(of_parameter.items()):
                placed.append((start + unit * factors[0].width, _merged(factors)))
            start += parameter.numel()
        return placed

    def _refuse_stray_parameters(self, losses: torch.Tensor, calls: Sequence[Call]) -> None:
        """Refuse parameters in the graph around the recorded layers."""
        inside: dict[Node, list[Node]] = {}
        for call in calls:
            for edge in call.edges:
                inside.setdefault(edge.node, []).extend(call.sources)
        seen: set[Node] = set()
        left: list[Node] = [] if losses.grad_fn is None else [losses.grad_fn]
        while left:
            node = left.pop()
            if node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) in self._places:
                raise GhostError(
                    f"Every parameter must be used by layers that hold it, for gradients of single samples; found "
                    f"{self._name_of(variable)}, which something else uses. Give the module that does a rule of its "
                    f"own (skbgmd.ghost.register_rule), or train with micro-batches."
                )
            if is_reentrant(node):
                raise GhostError(REENTRANT)
            if node in inside:
                left += inside[node]
            else:
                left += [source for source, _ in node.next_functions if source is not None]

    def _name_of(self, parameter: torch.Tensor) -> str:
        for name, other in self.module.named_parameters():
            if other is parameter:
                return repr(name)
        return "one outside of the module"


def _structure(module: nn.Module) -> Any:
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


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _overlap(found: dict[int, list[Factor]]) -> bool:
    """Tell whether factors, by the units at which they begin, have some units in common but not all."""
    stop = 0
    for unit, factors in sorted(found.items()):
        ends = {unit + factor.n_units for factor in factors}
        if unit < stop or len(ends) > 1:
            return True
        (stop,) = ends
    return False


def _written_out(found: dict[int, list[Factor]], n_units: int) -> DenseFactor:
    """Sum factors of a parameter whose units overlap, such as in self- and in cross-attention, written out."""
    first = next(iter(found.values()))[0]
    total = torch.zeros((first.n_rows, n_units, first.width), dtype=first.dtype, device=first.device)
    for unit, factors in found.items():
        for factor in factors:
            written = factor.explicit(slice(0, factor.n_units))
            total[:, unit : unit + factor.n_units] += written.view(factor.n_rows, factor.n_units, factor.width)
    return DenseFactor(total)


def _merged(factors: list[Factor]) -> Factor:
    """Sum the factors of all uses of a parameter."""
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


class _RuleHook:
    """Forward hooks that record a layer's calls."""

    def __init__(self, recorder: GradientRecorder, layer: Layer) -> None:
        # Weakly, or a net that is dropped would keep its module until the collector of cycles comes.
        self.recorder, self.layer = weakref.proxy(recorder), layer

    def register(self) -> list[Any]:
        """Hook the layer, until the handles are removed."""
        module = self.layer.module
        # What comes out before other hooks change it.
        handles: list[Any] = [module.register_forward_hook(CallHook(self.after), with_kwargs=True, prepend=True)]
        if self.layer.rule is None:
            self._before: list[BeforeCall] = []
            # What comes in after other hooks changed it; but torch's own are run again.
            first = is_computed(module)
            handles.append(module.register_forward_pre_hook(CallHook(self.before), prepend=first))
        return handles

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._before.append(BeforeCall(module))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        rule = self.layer.rule
        before = self._before.pop() if rule is None else None
        everything = _tensors(output)
        if len(everything) > 1:
            # One may have been made of another: what comes back to the other by way of the first isn't to count twice.
            output = tree_map_only(torch.Tensor, _alias, output)
            everything = _tensors(output)
        differentiable = [number for number, value in enumerate(everything) if value.grad_fn is not None]
        if not differentiable:
            return output
        given = _tensors(args[0] if len(args) == 1 and not kwargs else _in_order(module, args, kwargs))
        # What follows may change it in place.
        outputs = [] if rule is not None else [value.detach().clone() for value in everything]

        def parts(gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
            of_all: list[torch.Tensor | None] = [None] * len(everything)
            for number, gradient in zip(differentiable, gradients, strict=True):
                of_all[number] = gradient
            if rule is None:
                assert before is not None, "taken before each call"
                factors: Factors = per_sample_factors(module, before, (args, kwargs), outputs, of_all, n)
            else:
                factors = self._by_rule(rule, given, of_all, n)
            held = module.named_parameters() if module._modules else module._parameters.items()
            for name, parameter in held:
                if parameter is None:
                    continue
                if rule is not None and name not in factors:
                    raise NotImplementedError(f"its rule doesn't know the parameter {name!r}")
                unit, named = 0, factors.get(name, [])
                for factor in named if isinstance(named, Sequence) else [named]:
                    yield parameter, unit, factor
                    unit += factor.n_units

        self.recorder.record(self.layer, given, [everything[number] for number in differentiable], parts)
        return output

    def _by_rule(self, rule: Rule, given: list[torch.Tensor], gradients: list[torch.Tensor | None], n: int) -> Factors:
        axis, alone = self.layer.sample_axis, gradients[0] if len(gradients) == 1 else None
        # Older versions of torch see no tensors in packed sequences.
        shape = tuple(given[0].shape) if given else ()
        if len(shape) <= axis or shape[axis] != n or (alone is not None and len(alone) != n):
            raise GhostError(
                f"The samples must be along the {('first', 'second')[axis]} axis of what goes into a layer; "
                f"found {n} samples and, at the layer {self.layer.name!r}, shape {shape}."
            )
        wide = tuple(None if gradient is None else _wide(gradient) for gradient in gradients)
        factors = rule(self.layer.module, tuple(_wide(value) for value in given), wide if len(wide) > 1 else wide[0])
        if self.layer.is_own:
            check_answer(factors, self.layer.module, self.layer.name, n)
        return factors


class _WatchHook:
    """Forward hooks that record the products inside of a layer."""

    def __init__(self, recorder: GradientRecorder, layer: Layer) -> None:
        # Weakly, or a net that is dropped would keep its module until the collector of cycles comes.
        self.recorder, self.layer = weakref.proxy(recorder), layer

    def register(self) -> list[Any]:
        """Hook the layer, until the handles are removed."""
        module = self.layer.module
        return [
            module.register_forward_pre_hook(CallHook(self.before)),
            module.register_forward_hook(CallHook(self.after), always_call=True),
        ]

    def before(self, module: nn.Module, args: Any) -> None:
        assert self.layer.watch is not None, "a hook for layers that are watched"
        self.watch = self.layer.watch(module)
        self.watch.__enter__()

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        watch = self.watch
        del self.watch
        watch.__exit__(None, None, None)
        for product in watch.products:
            if product.output.grad_fn is not None:
                parts = partial(_parts_of_product, watch, product)
                self.recorder.record(self.layer, [product.given], [product.output], parts)


def _parts_of_product(watch: Watch, product: Product, gradients: list[torch.Tensor | None], n: int) -> Iterator[Part]:
    (gradient,) = gradients
    assert gradient is not None, "a product has one output"
    return watch.parts(product._replace(given=_wide(product.given)), _wide(gradient), n)


def _in_order(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put arguments into the order in which the layer declares them."""
    if not kwargs:
        return args
    return tuple(signature(layer.forward).bind(*args, **kwargs).arguments.values())


def _alias(value: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, so that only gradients of what follows come back to it."""
    # Not a view, for those who are given it may change it in place.
    return value.clone() if value.grad_fn is not None else value


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Detach a tensor, and convert half to single precision."""
    values = values.detach()
    return values.float() if values.dtype in HALF else values
