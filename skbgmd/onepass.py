"""Rows of all groups of a batch from one forward and backward pass, where nothing mixes the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skbgmd.columns import Units
from skbgmd.ghost import GhostRows, Tape
from skbgmd.ghost.rules import rule_of
from skbgmd.rows import DenseRows

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
#: Numbers that are written out at most, where there are few rows of small networks and calls are what takes time.
SMALL_ELEMENTS, SMALL_ROWS = 1 << 18, 64
#: Passes over written-out rows that an aggregation takes, in multiplications for each number.
PASSES = 16


def why_not(net: NeuralNet, tape: Tape, y: Any) -> str | None:
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
    for name, layer in tape.layers:
        if rule_of(layer) is None and not isinstance(layer, nn.MultiheadAttention):
            return f"the layer {name!r}, {type(layer).__name__}, has no rule"
    return None


def group_rows(
    tape: Tape, losses: torch.Tensor, slices: Sequence[slice], weights: NDArray[np.float64], units: Units
) -> GhostRows:
    """Gradients of the groups' losses.

    Parameters
    ----------
    tape : Tape
        What the forward pass of the batch left.
    losses : tensor of shape (n,)
        Losses of the samples, divided so that they add up to their group's.
    slices : list of slice
        The groups.
    weights : ndarray of shape (g,)
        Weights of the groups.
    units : Units
        Units of all parameters.
    """
    samples = GhostRows(tape.factors(losses), len(losses), units.total, units=units, device=losses.device)
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
