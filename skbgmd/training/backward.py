"""A robust ``loss.backward()`` for training loops in plain PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from torch import nn
from torch.autograd.graph import Node
from torch.nn.functional import one_hot
from torch.nn.parameter import is_lazy

from skbgmd._utils import limits
from skbgmd._utils.arrays import as_weights
from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.backward_passes import REENTRANT, is_reentrant, nodes_of, unwritten
from skbgmd._utils.checks import check_choice
from skbgmd._utils.slices import even_slices
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators import AGGREGATORS, Aggregate, Aggregator, AggregatorState, NonFiniteRowsError, get_aggregator
from skbgmd.aggregators.base import aggregated, checked_ids
from skbgmd.ghost import GhostRows, GradientRecorder
from skbgmd.rows import DenseRows, Rows
from skbgmd.training._ranks import spans_ranks
from skbgmd.training._step.gradient_matrix import GradientMatrix
from skbgmd.training._step.one_pass import OnePassCheck, exact_sum, is_better_written_out, write_out
from skbgmd.training._step.stateful import rule_name
from skbgmd.training._strength.defaults import AUTO, HUBER_OF_CLASSES, default_rule, has_default, with_default


@dataclass(frozen=True)
class BackwardState(AggregatorState):
    """State of a rule between two calls of :func:`skbgmd.robust_backward`, to be saved with the network.

    ``torch.save`` and ``torch.load`` take it without conversion, beside a ``state_dict``.

    Attributes
    ----------
    rule : str
        Name of the rule that the state belongs to.
    n_columns : int
        Number of elements of all parameters that the state belongs to.
    inner : object
        What the rule remembers; None for a rule without memory.
    """

    rule: str
    n_columns: int
    inner: Any = None


@without_autocast
def robust_backward(
    losses: torch.Tensor | Sequence[torch.Tensor],
    parameters: Iterable[torch.Tensor] | GradientRecorder,
    rule: str | Aggregator = AUTO,
    state: BackwardState | None = None,
    *,
    weights: ArrayLike | None = None,
    ids: Sequence[Any] | None = None,
    retain_graph: bool = False,
    non_finite: str = "raise",
) -> tuple[Aggregate, BackwardState]:
    r"""Backpropagate a robust mean of per-sample gradients, in place of ``losses.mean().backward()``.

    For the aggregation rule :math:`A` and the gradients :math:`g` of the parameters, their ``grad``, it computes

    .. math:: g \mathrel{+}= A(\nabla \ell_1, \dots, \nabla \ell_n).

    With the rule "mean" this adds the gradient of the losses' mean. Every rule is on that scale, so the learning rate
    stays as it is. As in ``loss.backward()``, gradients are added to existing ones, and parameters that the losses
    don't depend on get none. If an error is raised, no gradient changes.

    Parameters
    ----------
    losses : tensor of shape (n,), or sequence of n scalar tensors
        The loss of each sample, as a loss function with ``reduction="none"`` gives it, or the mean loss of each group
        of samples, client or task. A group may have a forward pass of its own.
    parameters : iterable of tensors, or GradientRecorder
        Tensors to differentiate by, such as ``net.parameters()``, without names or groups. Tensors that require no
        gradient are skipped, and each tensor counts once.

        - With tensors, the gradients of all losses are written out: n times as many numbers as the parameters have.
          This takes n backward passes through the graph of the losses, some of them at once where that is faster.
        - With a :class:`~skbgmd.ghost.GradientRecorder` that was entered while the losses were computed, the gradients
          are the same. They cost about as much as one backward pass, and none of them is written out. Make the
          recorder once, before the loop: now and then, at least in steps 1, 2, 8, 32 and 128, a sum of its gradients
          is compared with autograd's.
    rule : str or Aggregator, default="auto"
        A key of :data:`skbgmd.aggregators.AGGREGATORS`, or an aggregator. "auto" is the rule that estimators begin
        with: ``HuberMean(c=16.0, rejection=10.0, remember=True, tol=0.0001)`` for a tensor of losses, and
        ``GeometricMedian(rejection=10.0, tol=0.0001)`` for a sequence.
    state : BackwardState, default=None
        The state that the last call returned; None in the first call. Rules without memory need none.
    weights : array-like of shape (n,), default=None
        Non-negative weights of the losses, such as the numbers of samples in the groups. None: all one.
    ids : sequence of n numbers or strings, default=None
        Ids of the clients or tasks that the losses are of, for rules that remember workers, such as
        :class:`~skbgmd.aggregators.WorkerMemory`. None: their places, which must be the same in all calls.
    retain_graph : bool, default=False
        Keep the graph of the losses for another backward pass.
    non_finite : {"raise", "propagate"}, default="raise"
        What to do if half of the weight or more is on gradients with NaN or inf. "raise": raise an error.
        "propagate": give the parameters gradients of NaN, as ``loss.backward()`` does; ``torch.amp.GradScaler`` then
        skips the step.

    Returns
    -------
    aggregate : Aggregate
        Its ``weights`` of shape (n,) are the weights of the gradients in the aggregate, near zero for those that the
        rule overrules.
    state : BackwardState
        State for the next call.

    Raises
    ------
    TypeError
        If parameters, losses, ids or state are of the wrong kind.
    ValueError
        If losses aren't one for each sample or group, or have no graph; if ids aren't one for each, each of them once;
        if no parameters require gradients; if the rule is unknown; if the state is that of another rule or of other
        parameters; or if parts of the graph don't return gradients, but write them to ``grad``.
    RuntimeError
        Under ``torch.inference_mode()``.
    NonFiniteRowsError
        If half of the weight or more is on gradients with NaN or inf, with ``non_finite="raise"``.
    GhostError
        If a recorder's gradients aren't those of single samples, for example because a layer mixes samples.

    Notes
    -----
    With batch normalization in training mode, the gradient of one loss is well defined, but it isn't the gradient of
    one sample: the other samples affect it through the mean and variance of the batch. A recorder refuses such layers.

    ``DistributedDataParallel`` waits for a plain backward pass, so it exchanges nothing here. To train one network in
    several processes, leave it out, begin with the same parameters in all processes, and use
    ``rule=skbgmd.distributed.AcrossRanks()``. Samples are then judged within each process, and the processes'
    aggregates are judged across processes. With any other rule each process trains a network of its own, and a warning
    says so.

    Examples
    --------
    >>> import torch
    >>> from skbgmd import robust_backward
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> X = torch.ones(5, 1)
    >>> y = net(X).detach() - torch.tensor([[1.0], [1.0], [1.0], [1.0], [1e6]])
    >>> losses = 0.5 * (net(X) - y).square().flatten()
    >>> aggregate, state = robust_backward(losses, net.parameters(), "geometric_median")
    >>> aggregate.weights.round(3), net.weight.grad.round(decimals=3)
    (array([0.25, 0.25, 0.25, 0.25, 0.  ]), tensor([[1.]]))
    """
    recorder = parameters if isinstance(parameters, GradientRecorder) else None
    aggregator = _aggregator(rule, of_samples=isinstance(losses, torch.Tensor))
    check_choice(non_finite, "non_finite", ("raise", "propagate"))
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "robust_backward must be called outside of torch.inference_mode(), where tensors are made that no "
            "optimizer may use later; found that mode. The losses must be computed outside of it as well."
        )
    _check_losses(losses)
    _warn_of_ranks(aggregator)
    if recorder is None:
        wanted = _wanted(parameters)
    else:
        _check_recorder(recorder, losses)
        wanted = recorder.parameters
    _check_gradients(wanted)
    gradients = GradientMatrix(wanted)
    before = _checked_state(state, aggregator, gradients.n_columns)
    relative = as_weights(weights, len(losses), "weights")
    workers = None if ids is None else checked_ids(ids, len(losses))
    make = _written_rows if recorder is None else partial(_recorded_rows, recorder)
    with unwritten(wanted):
        rows: Rows = make(losses, gradients, relative, retain_graph=retain_graph)
    if not any(gradients.used):
        raise ValueError("losses must depend on at least one of the parameters; found none that they depend on.")
    rows.ids = workers
    try:
        aggregate, after = aggregated(aggregator, rows, before.inner)
    except NonFiniteRowsError as error:
        if non_finite == "raise":
            raise NonFiniteRowsError(f"{error}{_explanation(losses, recorder)}") from None
        nan = torch.full((gradients.n_columns,), torch.nan, dtype=gradients.dtype, device=gradients.device)
        aggregate, after = Aggregate(nan), before.inner
    # What clips gradients in place must change neither the aggregate nor a state that holds it.
    gradients.add_to_gradients(aggregate.vector.clone())
    return aggregate, replace(before, inner=after)


# ---- Checks ---------------------------------------------------------------------------------------------------------


def _aggregator(rule: str | Aggregator, *, of_samples: bool) -> Aggregator:
    if not isinstance(rule, Aggregator):
        check_choice(rule, "rule", (AUTO, *AGGREGATORS))
    if has_default(rule):
        return with_default(rule, default_rule(huber=HUBER_OF_CLASSES, of_samples=of_samples))
    return get_aggregator(rule)


def _check_gradients(parameters: Sequence[torch.Tensor]) -> None:
    """Refuse gradients that can't be added to, before any is."""
    if any(parameter.grad is not None and parameter.grad.is_inference() for parameter in parameters):
        raise ValueError(
            "Gradients of the parameters must be plain tensors to be added to; found an inference tensor, of "
            "torch.inference_mode(). Set it to None, as by zero_grad()."
        )


def _check_losses(losses: Any) -> None:
    if isinstance(losses, torch.Tensor):
        if losses.ndim == 0:
            raise ValueError(
                'losses must be one for each sample, as with reduction="none" in the loss function; found a scalar.'
            )
        if losses.ndim > 1:
            raise ValueError(
                f"losses must have shape (n,), one for each sample; found shape {tuple(losses.shape)}. Average those "
                f"of a sample, as by losses.flatten(1).mean(dim=1)."
            )
        parts: Sequence[Any] = [losses]
    elif isinstance(losses, (list, tuple)):
        parts = losses
        for place, loss in enumerate(losses):
            if not isinstance(loss, torch.Tensor):
                raise TypeError(f"losses must be tensors; found {type(loss).__name__} at position {place}.")
            if loss.ndim > 0:
                raise ValueError(
                    f"losses in a sequence must be scalars, one for each group; found shape {tuple(loss.shape)} at "
                    f"position {place}."
                )
    else:
        raise TypeError(f"losses must be a tensor, or a list or tuple of tensors; found {type(losses).__name__}.")
    if len(losses) == 0:
        raise ValueError("losses must be at least one; found none.")
    for loss in parts:
        if not loss.is_floating_point():
            raise ValueError(f"losses must be real numbers; found dtype {loss.dtype}.")
        if not loss.requires_grad:
            raise ValueError(
                "losses must have a graph to go back through; found none, as of losses that are detached or computed "
                "under torch.no_grad() or torch.inference_mode()."
            )


def _warn_of_ranks(aggregator: Aggregator) -> None:
    """Warn where there are several processes, and nothing is exchanged between them."""
    size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if size > 1 and not spans_ranks(aggregator):
        warnings.warn(
            f"rule must be one across ranks, such as skbgmd.distributed.AcrossRanks(), for {size} processes to train "
            f"one network; found {type(aggregator).__name__}, which is of this process alone. DistributedDataParallel "
            f"exchanges nothing here, and each process trains a network of its own.",
            stacklevel=4,
        )


def _wanted(parameters: Any) -> list[torch.Tensor]:
    """Parameters that require gradients, each once."""
    every = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    if not isinstance(every, Iterable) or isinstance(every, nn.Module):
        raise TypeError(
            f"parameters must be an iterable of tensors, such as net.parameters(), or a GradientRecorder; found "
            f"{type(parameters).__name__}."
        )
    every = list(every)
    for parameter in every:
        if not isinstance(parameter, torch.Tensor):
            raise TypeError(f"parameters must be tensors; found {type(parameter).__name__}.")
    wanted = [parameter for parameter in dict.fromkeys(every) if parameter.requires_grad]
    if not wanted:
        found = f"{len(every)} that require none" if every else "none, as of an iterator that is used up"
        raise ValueError(f"parameters must have at least one that requires a gradient; found {found}.")
    for parameter in wanted:
        if not parameter.is_leaf:
            raise ValueError("parameters must be leaves of the graph, which have a grad; found one that was computed.")
        if is_lazy(parameter):
            raise ValueError(
                "parameters must be initialized; found one of a lazy layer that hasn't been called. Run one batch "
                "through the network first."
            )
        _refuse_sharded(parameter)
    return wanted


def _refuse_sharded(parameter: torch.Tensor) -> None:
    if hasattr(parameter, "full_tensor"):
        raise TypeError(
            f"parameters must be plain tensors; found {type(parameter).__name__}, of which ranks hold shards. See "
            f"skbgmd.distributed.robust_fully_sharded."
        )


def _check_recorder(recorder: GradientRecorder, losses: Any) -> None:
    if not isinstance(losses, torch.Tensor):
        raise ValueError("losses must be a tensor of shape (n,) with a recorder; found a sequence.")
    if isinstance(recorder.module, nn.parallel.DistributedDataParallel):
        raise _of_ranks()
    if recorder.is_entered:
        raise ValueError("A recorder must be left before its gradients are asked for; found one that is entered.")
    if not recorder.parameters:
        raise ValueError("A recorder must have at least one parameter that requires a gradient; found none.")
    recorder.check_initialized()
    for parameter in recorder.parameters:
        _refuse_sharded(parameter)
    # Lists of parameters are never called: the graph tells what uses them.
    can_be_called = any(type(layer.module).forward is not nn.Module.forward for layer in recorder.layers)
    if not recorder.calls and can_be_called:
        raise ValueError(
            "losses must be computed while the recorder is entered (with recorder: ...), anew for each call; found no "
            "recorded call of a layer."
        )


def _of_ranks() -> ValueError:
    return ValueError(
        "The module must not be a DistributedDataParallel, whose gradients would not be combined over the ranks; found "
        "one. Use skbgmd.distributed.RobustHook and a plain backward pass, or the module inside of it and "
        "rule=skbgmd.distributed.AcrossRanks()."
    )


def _checked_state(state: Any, aggregator: Aggregator, n_columns: int) -> BackwardState:
    name = rule_name(aggregator)
    if state is None:
        return BackwardState(name, n_columns)
    if not isinstance(state, BackwardState):
        raise TypeError(
            f"state must be the second of what robust_backward returned (aggregate, state = robust_backward(...)), or "
            f"None; found {type(state).__name__}."
        )
    if (state.rule, state.n_columns) != (name, n_columns):
        raise ValueError(
            f"state must be of the same rule and parameters, {name} and {n_columns} numbers; found one of "
            f"{state.rule} and {state.n_columns} numbers. None begins anew."
        )
    return state


def _explanation(losses: Any, recorder: GradientRecorder | None) -> str:
    """Say what may have made all rows NaN where few losses are."""
    if recorder is not None or not isinstance(losses, torch.Tensor) or 2 * int(losses.isfinite().sum()) <= len(losses):
        return ""
    return (
        " Through a graph that samples share, NaN or inf of one reaches the rows of all, for 0 times inf is NaN: a "
        "GradientRecorder in the place of the parameters keeps them apart."
    )


# ---- Rows -----------------------------------------------------------------------------------------------------------


def _recorded_rows(
    recorder: GradientRecorder, losses: Any, gradients: GradientMatrix, weights: FloatArray, *, retain_graph: bool
) -> Rows:
    """Rows of one backward pass through what was recorded, compared with exact ones when it is their turn."""
    if recorder.check is None or len(recorder.check.seen) != len(gradients.parameters):
        recorder.check = OnePassCheck(len(gradients.parameters))
    check, n = recorder.check, len(losses)
    exact = exact_sum(losses, even_slices(n, n), gradients.parameters) if check.is_due() else None
    factors = recorder.factors(losses, retain_graph=retain_graph)
    rows = GhostRows(factors, n, gradients.n_columns, weights, units=gradients.units, device=losses.device)
    if exact is not None:
        check.compare(rows, exact, gradients.parameters)
    gradients.use([start for start, _ in rows.factors])
    return write_out(rows, gradients.rows(n)) if is_better_written_out(rows) else rows


def _written_rows(losses: Any, gradients: GradientMatrix, weights: FloatArray, *, retain_graph: bool) -> DenseRows:
    """Rows of a matrix, by backward passes for each of them, or for some at once."""
    matrix = gradients.rows(len(losses))
    if isinstance(losses, torch.Tensor):
        _differentiate_all(losses, gradients, matrix, retain_graph=retain_graph)
    else:
        for loss, row, needed in zip(losses, matrix, _needed_later(losses), strict=True):
            gradients.differentiate(loss, row, retain_graph=retain_graph or needed)
    return DenseRows(matrix, weights, units=gradients.units)


def _differentiate_all(
    losses: torch.Tensor, gradients: GradientMatrix, matrix: torch.Tensor, *, retain_graph: bool
) -> None:
    """Write the gradients of losses (n,) to the rows of a matrix, as many at once as pays."""
    n, at_once = len(losses), _rows_at_once(losses)
    every = torch.arange(n, device=losses.device)
    start = 0
    # The last row alone, which frees the graph: what torch.func can't do would leave it half freed.
    while at_once > 1 and start < n - 1:
        some = slice(start, min(start + at_once, n - 1))
        directions = one_hot(every[some], n).to(losses)
        try:
            with warnings.catch_warnings():
                # That an operator has no batching rule: it is slower, and right.
                warnings.simplefilter("ignore", UserWarning)
                gradients.differentiate(losses, matrix[some], direction=directions, retain_graph=True)
        except RuntimeError:
            # torch.func can't do something, or there is too little memory.
            break
        start = some.stop
    for row in range(start, n):
        keep = retain_graph or row < n - 1
        gradients.differentiate(losses, matrix[row], direction=one_hot(every[row], n).to(losses), retain_graph=keep)


class _Graph(NamedTuple):
    """The graph of a loss.

    Attributes
    ----------
    nodes : set of Node
        Its nodes, but for those of the parameters.
    widest : int
        The most elements of a gradient with respect to what a node computed; 0 where that isn't known.
    is_hooked : bool
        Hooks of parameters or of modules are called in a backward pass; those of other tensors aren't known.
    """

    nodes: set[Node]
    widest: int
    is_hooked: bool


def _graph(loss: torch.Tensor) -> _Graph:
    nodes: set[Node] = set()
    widest, is_hooked = 0, False
    for node in nodes_of(loss):
        if node.name() == "_DDPSinkBackward":
            raise _of_ranks()
        hooks = getattr(getattr(node, "variable", None), "_backward_hooks", None)
        is_hooked = is_hooked or bool(hooks) or node.name() == "BackwardHookFunctionBackward"
        if is_reentrant(node):
            raise ValueError(REENTRANT)
        widest = max([widest, *(math.prod(output.shape) for output in getattr(node, "_input_metadata", ()))])
        if not hasattr(node, "variable"):
            nodes.add(node)
    return _Graph(nodes, widest, is_hooked)


def _rows_at_once(losses: torch.Tensor) -> int:
    """Rows that share a backward pass, so that it takes bounded memory and less time than one for each."""
    graph = _graph(losses)
    if graph.is_hooked:
        # Each row is to be seen, and what hooks keep of several at once can't be read afterwards.
        return 1
    widest = graph.widest
    on_cpu = losses.device.type == "cpu"
    elements = limits.BATCHED_GRADIENT_ELEMENTS if on_cpu else limits.BATCHED_GRADIENT_ELEMENTS_OF_DEVICE
    return max(1, elements // widest) if widest else 1


def _needed_later(losses: Sequence[torch.Tensor]) -> Iterator[bool]:
    """Tell for each loss whether a later one shares a part of its graph."""
    later: set[Node] = set()
    needed = []
    for loss in reversed(losses):
        nodes = _graph(loss).nodes
        needed.append(not nodes.isdisjoint(later))
        later |= nodes
    return reversed(needed)
