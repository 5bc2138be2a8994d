"""Records layers' inputs in a forward pass, and gives the per-sample gradients after one backward pass.

The parameters' own gradients are not computed: the backward pass stops at the layers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.parameter import is_lazy

from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.backward_passes import REENTRANT, is_reentrant
from skbgmd.ghost.factors import Factor
from skbgmd.ghost.factors.sums import merged, overlap, written_out
from skbgmd.ghost.layer_hooks import RuleHook, WatchHook
from skbgmd.ghost.recorded_layers import GhostError, Layer, recorded_layers, structure_of
from skbgmd.ghost.registry import Part


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
        self._hooks: list[RuleHook | WatchHook] = []
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
        structure = structure_of(self.module)
        if structure != self._structure:
            self._layers = recorded_layers(self.module, self._places)
            self._hooks = [(RuleHook if layer.watch is None else WatchHook)(self, layer) for layer in self._layers]
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
            if overlap(of_parameter):
                of_parameter = {0: [written_out(of_parameter, len(parameter))]}
            for unit, factors in sorted(of_parameter.items()):
                placed.append((start + unit * factors[0].width, merged(factors)))
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
