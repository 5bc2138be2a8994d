"""Losses of samples and of groups: their means, whatever the criterion divides by."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def of_samples(losses: torch.Tensor, *, summed: bool) -> torch.Tensor:
    """Losses (n, ...) of the parts of each sample as one a sample, (n,): their sum or their mean."""
    if losses.ndim == 1:
        return losses
    parts = losses.flatten(1)
    return parts.sum(dim=1) if summed else parts.mean(dim=1)


def mean_weight(criterion: Any, y: Any, of_samples: torch.Tensor | None = None) -> torch.Tensor | None:
    """Mean of the weights that a criterion gives to the targets y of a batch; None where all are one.

    It is weighted by the weights ``of_samples`` (n,), where they have some.

    A cross entropy's mean is divided by the weights of the classes, and leaves targets out that are to be ignored. Of a
    group, or a sample, that would take the weights away again: all are divided by what the batch has.
    """
    if not (isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)) and isinstance(y, torch.Tensor)):
        return None
    if y.is_floating_point():
        return None  # shares of classes, by whose weights nothing is divided
    counted = y != criterion.ignore_index
    if criterion.weight is None and bool(counted.all()):
        return None
    weights = counted.double()
    if criterion.weight is not None:
        of_class = criterion.weight.detach().double()
        weights = weights.to(of_class.device) * of_class[torch.where(counted, y, 0).to(of_class.device)]
    if of_samples is None:
        mean = weights.mean()
    else:
        shares = of_samples.double().to(weights.device)
        mean = weights.view(len(shares), -1).mean(dim=1) @ (shares / shares.sum())
    # With nothing to learn from, all losses are zero.
    return torch.where(mean > 0.0, mean, 1.0)


def weighted_mean(losses: torch.Tensor, weights: NDArray[np.float64]) -> torch.Tensor:
    """Weighted mean of the groups' losses (g,)."""
    if weights.min() == weights.max():
        return losses.mean()
    return losses @ torch.as_tensor(weights / weights.sum(), dtype=losses.dtype, device=losses.device)


@contextmanager
def reduction(criterion: Any, kind: str) -> Any:
    """Let a criterion reduce its losses otherwise."""
    before = getattr(criterion, "reduction", None)
    if before is None:
        raise ValueError(
            f"The criterion must have an attribute `reduction` for samples to be weighted; found {criterion!r}."
        )
    criterion.reduction = kind
    try:
        yield
    finally:
        criterion.reduction = before
