"""Rows of a forward and backward pass for each group of a batch, whatever the module does with its samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from skorch.utils import multi_indexing
from torch.nn.modules.batchnorm import _BatchNorm

from skbgmd.rows import DenseRows
from skbgmd.training._losses import of_samples, unreduced
from skbgmd.training._step.gradient_matrix import GradientMatrix, GradientRows
from skbgmd.training._step.groups import GroupedBatch, pieces


def micro_batch_rows(
    net: Any, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]
) -> GradientRows:
    """Rows of a forward and backward pass for each group, or of some steps that each group takes by itself.

    Parameters
    ----------
    net, batch, gradients, fit_params
        As in :func:`skbgmd.training._step.one_pass.one_pass_rows`.
    """
    if batch.slices.shortest < 2 * net.local_steps:
        for module in net._networks():
            _refuse_batch_norm(module)
    matrix = gradients.rows(len(batch.slices))
    norms = torch.empty(len(matrix), dtype=matrix.dtype, device=matrix.device)
    losses: list[torch.Tensor] = []
    predictions: list[Any] = []
    for number, part in enumerate(batch.slices):
        compute = [
            partial(_group_loss, net, batch, piece, predictions, fit_params) for piece in pieces(part, net.local_steps)
        ]
        if net.local_steps == 1:
            seen = [compute[0]()]
            gradients.differentiate(seen[0], matrix[number])
        else:
            seen = gradients.local_sgd_displacement(compute, net._learning_rate(), matrix[number])
        # While the row is still in the cache; fetched later, so that no group waits for another.
        torch.linalg.vector_norm(matrix[number], out=norms[number])
        losses.append(torch.stack(seen).mean())
    lengths = norms.cpu().numpy().astype(np.float64)
    # A norm that overflowed or is lost in rounding is for the rows to find out.
    known = lengths if np.all((lengths > 1e-16) & (lengths < np.inf)) else None
    of_groups = torch.stack(losses)
    batch.tilt(of_groups, net.tilt)
    rows = DenseRows(matrix, batch.relative_weights, norms=known, units=gradients.units)
    return GradientRows(rows, of_groups, _concatenated(predictions))


def _group_loss(
    net: Any,
    batch: GroupedBatch,
    part: slice,
    predictions: list[Any],
    fit_params: dict[str, Any],
) -> torch.Tensor:
    """Mean loss of some samples of a batch; what was predicted is appended to ``predictions``."""
    X, y = batch.inputs(part), multi_indexing(batch.y, part)
    predicted = net.infer(X, **fit_params)
    predictions.append(predicted)
    if batch.weight is None and batch.divisor is None:
        loss: torch.Tensor = net.get_loss(predicted, y, X=X, training=True)
        return loss / (part.stop - part.start) if batch.summed else loss
    losses = unreduced(net, net._criterion(), predicted, y, X)
    each = of_samples(losses, part.stop - part.start, summed=batch.summed)
    each = each if batch.divisor is None else each / batch.divisor.to(each)
    if batch.weight is None:
        return each.mean()
    # Shares of the group's weight, whatever that is: they are numbers in the losses' dtype.
    of_sample = batch.weight[part].double()
    total = of_sample.sum()
    shares = torch.where(total > 0.0, of_sample / total, 1.0 / len(of_sample))
    mean: torch.Tensor = each @ shares.to(each)
    return mean


def _refuse_batch_norm(module: torch.nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            raise ValueError(
                f"Groups must have at least two samples to pass through batch normalization; found a group of one and "
                f"the layer {name!r}. Raise group_size, or use torch.nn.GroupNorm or LayerNorm."
            )


def _concatenated(predictions: Sequence[Any]) -> Any:
    if isinstance(predictions[0], tuple):
        return tuple(_concatenated(parts) for parts in zip(*predictions, strict=True))
    # Those of a group of one may have lost their axis.
    return torch.cat([part if part.ndim else part[None] for part in predictions])
