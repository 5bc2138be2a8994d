"""Rows of all groups of a batch from one forward and backward pass, where nothing mixes the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import get_len
from skorch.utils import multi_indexing
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skbgmd.columns import Units
from skbgmd.ghost import GhostError, GhostRows, Tape
from skbgmd.ghost.persample import agree
from skbgmd.ghost.rules import rule_of, sample_axis
from skbgmd.rows import DenseRows
from skbgmd.slices import Slices

#: Losses whose mean over a batch is the mean of what they are for each sample.
PLAIN_LOSSES = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.CrossEntropyLoss,
    nn.HuberLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.MultiLabelSoftMarginLoss,
    nn.MultiMarginLoss,
    nn.NLLLoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)
#: skorch's own ways to a loss; one of the user's may hold anything.
KNOWN_WAYS = {kind.get_loss for kind in (NeuralNet, NeuralNetClassifier, NeuralNetBinaryClassifier, NeuralNetRegressor)}
#: Samples in a group up to which one pass is taken to be cheaper (benchmarks/results/group_passes.csv); where a CPU has
#: convolutions to do, which it does best for few samples at a time; and where torch.func has to differentiate some
#: layer for each sample.
GROUP, GROUP_CONVOLVED, GROUP_WITHOUT_RULE = 32, 8, 2
#: Numbers that are written out at most, where there are few rows of small networks and calls are what takes time.
SMALL_ELEMENTS, SMALL_ROWS = 1 << 18, 64
#: Passes over written-out rows that an aggregation takes, in multiplications for each number.
PASSES = 16


def why_not(net: NeuralNet, y: Any) -> str | None:
    """What keeps a net from one pass for all samples with targets y; None if nothing that is known beforehand does."""
    if type(net).get_loss not in KNOWN_WAYS:
        return "the net has a get_loss of its own"
    criterion = net.criterion_
    if type(criterion) not in PLAIN_LOSSES or criterion.reduction not in ("mean", "sum"):
        return f"the loss {type(criterion).__name__} may not be a mean over samples"
    if getattr(criterion, "weight", None) is not None:
        return "the loss has weights of classes, by which a mean over a group is divided"
    ignored = getattr(criterion, "ignore_index", None)
    if ignored is not None and isinstance(y, torch.Tensor) and bool((y == ignored).any()):
        return "the loss ignores some samples, of which a mean over a group is not made"
    if not isinstance(net.module_, nn.Module) or hasattr(net.module_, "_orig_mod"):
        return "the module is compiled"
    return None


def is_cheaper(tape: Tape, slices: Slices) -> bool:
    """Whether one pass is likely to cost less than a pass for each group."""
    ruled = all(rule_of(layer) is not None or isinstance(layer, nn.MultiheadAttention) for _, layer in tape.layers)
    if not ruled:
        return slices.longest <= GROUP_WITHOUT_RULE
    if slices.longest <= GROUP_CONVOLVED:
        return True
    convolves = any(isinstance(layer, _ConvNd) for _, layer in tape.layers)
    on_cpu = all(parameter.device.type == "cpu" for parameter in tape.parameters)
    return slices.longest <= (GROUP_CONVOLVED if convolves and on_cpu else GROUP)


def refuse_mixing(net: NeuralNet, tape: Tape, X: Any, fit_params: dict[str, Any]) -> bool:
    """See whether what comes out for two samples depends on two more; in evaluation mode, where nothing is drawn.

    Returns
    -------
    seen : bool
        Whether there was anything to see: four samples at least, of finite output.

    Raises
    ------
    GhostError
        It does; or a layer is called with what all samples share.
    """
    if get_len(X) < 4:
        return False
    try:
        two, four, lengths = _of_two_and_four(net, tape, X, fit_params)
    except Exception as error:
        raise refusal(f"the module fails on two or four samples: {error}") from error
    for name, seen in lengths.items():
        # As many things for two samples as for four are not one for each sample.
        if any(few == many for few, many in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=False)):
            raise refusal(f"the layer {name!r} is called with what samples share")
    if not (isinstance(two, torch.Tensor) and two.numel() and two.shape == four[:2].shape):
        return True  # not what can be compared; the loss has a say on it
    if not agree(two, four[:2]):
        raise refusal("what comes out for a sample depends on the others")
    return bool((two - four[:2]).isfinite().all())


def refusal(reason: str) -> GhostError:
    """The error that says why there can't be one pass."""
    return GhostError(f"One pass for all groups can't be: {reason}.")


def _of_two_and_four(
    net: NeuralNet, tape: Tape, X: Any, fit_params: dict[str, Any]
) -> tuple[Any, Any, dict[str, list[int]]]:
    """What comes out for the first two samples and for the first four, and how many things layers were called with."""
    modes = {module: module.training for module in net.module_.modules()}
    devices = {parameter.device for parameter in tape.parameters if parameter.device.type == "cuda"}
    lengths: dict[str, list[int]] = {name: [] for name, layer in tape.layers if rule_of(layer) is not None}
    hooks = [
        layer.register_forward_pre_hook(_keeper(lengths[name], sample_axis(layer)))
        for name, layer in tape.layers
        if name in lengths
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=list(devices)):
            net.module_.eval()
            two, four = (_first(net.infer(multi_indexing(X, slice(0, n)), **fit_params)) for n in (2, 4))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return two, four, lengths


def _keeper(lengths: list[int], axis: int) -> Callable[[nn.Module, Any], None]:
    """A hook that keeps how many things a layer is called with, which lie along an axis."""

    def keep(layer: nn.Module, args: Any) -> None:
        if args and isinstance(args[0], torch.Tensor) and args[0].ndim > axis:
            lengths.append(args[0].shape[axis])

    return keep


def _first(predicted: Any) -> Any:
    return predicted[0] if isinstance(predicted, tuple) else predicted


def group_rows(
    tape: Tape, losses: torch.Tensor, slices: Slices, weights: NDArray[np.float64], units: Units
) -> GhostRows:
    """Gradients of the groups' losses.

    Parameters
    ----------
    tape : Tape
        What the forward pass of the batch left.
    losses : tensor of shape (n,)
        Losses of the samples, divided so that they add up to their group's.
    slices : Slices
        The groups.
    weights : ndarray of shape (g,)
        Weights of the groups.
    units : Units
        Units of all parameters.
    """
    n, factors = len(losses), tape.factors(losses)
    if slices.longest == 1:
        return GhostRows(factors, n, units.total, weights, units=units, device=losses.device)
    samples = GhostRows(factors, n, units.total, units=units, device=losses.device)
    return samples.grouped(slices, weights)


def is_better_written_out(rows: GhostRows) -> bool:
    """Whether a matrix of the rows costs less than working through their factors."""
    elements = rows.n_rows * rows.n_columns
    if rows.n_rows <= SMALL_ROWS and elements <= SMALL_ELEMENTS:
        return True
    factored = sum(factor.multiplications for _, factor in rows.factors)
    return elements * (rows.n_rows + PASSES) < factored


def write_out(rows: GhostRows, matrix: torch.Tensor) -> DenseRows:
    """Write rows to a matrix of their shape."""
    if sum(factor.n_columns for _, factor in rows.factors) < rows.n_columns:
        matrix.zero_()
    for start, factor in rows.factors:
        matrix[:, start : start + factor.n_columns] = factor.explicit(slice(0, factor.n_units))
    return DenseRows(matrix, rows.weights, units=rows.units)
