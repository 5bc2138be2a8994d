"""Losses of samples and of groups: their means, whatever the criterion divides by."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

#: What autograd calls operations that leave numbers as they are, and may follow a module's last layer.
SHAPING = re.compile(
    r"(Alias|Cat|Clone|Expand|Permute|ReshapeAlias|Select|Slice|Split|Squeeze|T|ToCopy|Transpose|Unsqueeze|UnsafeView"
    r"|View)Backward\d*"
)

#: Losses of two classes by one output: their targets are numbers, of two values where they are labels.
BINARY_LOSSES = (nn.BCELoss, nn.BCEWithLogitsLoss, nn.SoftMarginLoss)
#: Losses of classes, whatever the net is.
CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def of_samples(losses: torch.Tensor, n: int, *, summed: bool) -> torch.Tensor:
    """Losses (n, ...) of the parts of each sample as one a sample, (n,): their sum or their mean.

    Raises
    ------
    ValueError
        They aren't of ``n`` samples.
    """
    if losses.ndim == 0 and n == 1:
        return losses[None]
    if losses.ndim == 0 or len(losses) != n:
        raise ValueError(
            f"criterion must give a loss for each sample where its reduction is 'none', for sample_weight and weights "
            f"of classes to count; found losses of shape {tuple(losses.shape)} for {n} samples."
        )
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


def complaint(criterion: Any, predicted: Any) -> str | None:
    """What is wrong with predictions (n, ...) of a batch for a criterion that is of logits; None where nothing is."""
    if not isinstance(predicted, torch.Tensor) or len(predicted) < 2:
        return None
    values = predicted.detach()
    if isinstance(criterion, nn.CrossEntropyLoss) and values.ndim > 1 and values.shape[1] > 1:
        rounding = 2e-2 if values.dtype in (torch.float16, torch.bfloat16) else 1e-4
        if bool((values >= 0.0).all()) and bool(((values.float().sum(dim=1) - 1.0).abs() <= rounding).all()):
            return _twice("Softmax", "probabilities", criterion, "NLLLoss, of which skorch takes the logarithms")
    if isinstance(criterion, nn.BCEWithLogitsLoss) and _is_sigmoid(predicted):
        return _twice("Sigmoid", "probabilities", criterion, "BCELoss")
    return None


def check_probabilities(predicted: Any) -> None:
    """Refuse predictions that a classifier of skorch's, with ``NLLLoss``, can't take the logarithms of.

    Raises
    ------
    ValueError
        There are negative ones.
    """
    if bool((predicted < 0.0).any()):
        raise ValueError(
            "module must give probabilities for the criterion NLLLoss, of which skorch takes the logarithms; found "
            "negative numbers. End it with Softmax rather than LogSoftmax, or give logits to CrossEntropyLoss."
        )


def _twice(layer: str, found: str, criterion: Any, other: str) -> str:
    return (
        f"module must give logits for the criterion {type(criterion).__name__}; found {found}, which it squashes once "
        f"more. Leave out its last {layer}, or take the criterion {other}."
    )


def _is_sigmoid(predicted: torch.Tensor) -> bool:
    """Whether numbers were last put through a sigmoid: numbers between zero and one may be logits as well."""
    node = predicted.grad_fn
    while node is not None and SHAPING.fullmatch(node.name()):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("SigmoidBackward")


@contextmanager
def reduction(criterion: Any, kind: str) -> Any:
    """Let a criterion reduce its losses otherwise."""
    before = getattr(criterion, "reduction", None)
    if before is None:
        raise ValueError(
            f"The criterion must have an attribute `reduction` for samples to be weighted, by sample_weight or by "
            f"their class; found {criterion!r}."
        )
    criterion.reduction = kind
    try:
        yield
    finally:
        criterion.reduction = before
