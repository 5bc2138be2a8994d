"""Losses: which of them are means over samples, and the losses of samples and of groups that they give."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.utils import to_tensor
from torch import nn

from skbgmd._utils import limits
from skbgmd._utils.checks import check_choice
from skbgmd._utils.registration import attach, registered
from skbgmd.ghost.derivatives import is_called_plainly

#: Autograd's names of operations that leave numbers as they are, and may follow a module's last layer.
SHAPING = re.compile(
    r"(Alias|Cat|Clone|Expand|Permute|ReshapeAlias|Select|Slice|Split|Squeeze|T|ToCopy|Transpose|Unsqueeze|UnsafeView"
    r"|View)Backward\d*"
)


#: Function of a loss, predictions and targets that gives the losses (n, ...) and their derivatives by the predictions,
#: of the predictions' shape; NotImplementedError: autograd is to do it.
LossDerivative = Callable[[Any, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class LossTraits(NamedTuple):
    """Traits of a loss whose mean over a batch is the mean of a loss of each sample.

    Attributes
    ----------
    targets : {"numbers", "classes", "binary", "signs"}
        Numbers; indices of classes; 0 or 1, or -1 or 1, for two classes by one output.
    weighs_classes : bool
        Its ``weight`` is one for each class, and means are divided by the weights of what they are of.
    derivative : callable, or None
        The losses and their derivatives in closed form; None: by autograd.
    """

    targets: Literal["numbers", "classes", "binary", "signs"] = "numbers"
    weighs_classes: bool = False
    derivative: LossDerivative | None = None


_REGISTRY: dict[type, LossTraits] = {}


def register_loss(
    *losses: type[nn.Module],
    targets: Literal["numbers", "classes", "binary", "signs"] = "numbers",
    weighs_classes: bool = False,
    derivative: LossDerivative | None = None,
) -> None:
    """Register losses for per-sample gradients from one pass, a subclass without a ``forward`` of its own included.

    A loss is fit for one pass if it has an attribute ``reduction``: "none" gives losses (n, ...), each of one sample
    and its target alone, and "mean" and "sum" are their mean and sum. Other losses are trained with micro-batches.

    Parameters
    ----------
    *losses : classes of torch modules
        The losses.
    targets : {"numbers", "classes", "binary", "signs"}, default="numbers"
        Targets that are learnt: numbers; indices of classes; 0 or 1, or -1 or 1, for two classes by one output. Where
        they are classes, sorted data are dealt out to groups.
    weighs_classes : bool, default=False
        The loss has a ``weight`` for each class, and an ``ignore_index``, as ``CrossEntropyLoss``: a mean is divided by
        the weights of what it is of.
    derivative : callable, default=None
        Of the loss, the predictions and the targets: gives the losses (n, ...), as with ``reduction="none"``, and their
        derivatives by the predictions, without autograd. ``NotImplementedError``, or None: autograd finds them.

    Examples
    --------
    >>> import math, torch
    >>> from skbgmd.training import register_loss
    >>> class LogCosh(torch.nn.Module):
    ...     reduction = "mean"
    ...     def forward(self, predicted, y):
    ...         distance = (predicted - y).abs()
    ...         losses = distance + torch.nn.functional.softplus(-2.0 * distance) - math.log(2.0)
    ...         return {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[self.reduction]
    >>> register_loss(LogCosh)
    """
    check_choice(targets, "targets", ("numbers", "classes", "binary", "signs"))
    if not losses:
        raise TypeError("losses must be classes of torch modules; found none.")
    for kind in losses:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module):
            raise TypeError(f"losses must be classes of torch modules; found {kind!r}.")
        _REGISTRY[kind] = LossTraits(targets, weighs_classes, derivative)
        attach(kind, "loss", _REGISTRY[kind])


aten: Any = torch.ops.aten


def _of_cross_entropy(
    criterion: nn.CrossEntropyLoss, predicted: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, less one for the class that is right, times the weight of that class."""
    if criterion.label_smoothing != 0.0 or y.is_floating_point() or predicted.ndim != 2:
        raise NotImplementedError
    if _are_few(predicted) and criterion.weight is None and criterion.ignore_index < 0:
        values, classes = predicted.detach().numpy(), y.numpy()
        if _are_classes(classes, *values.shape):
            return _of_few_classes(values, classes)
    known = torch.log_softmax(predicted, 1)
    losses, total = aten.nll_loss_forward(known, y, criterion.weight, 0, criterion.ignore_index)
    ones = torch.ones_like(losses)
    ups = aten.nll_loss_backward(ones, known, y, criterion.weight, 0, criterion.ignore_index, total)
    return losses, aten._log_softmax_backward_data(ups, known, 1, predicted.dtype)


def _are_few(predicted: torch.Tensor) -> bool:
    """Tell whether classes are few, of numbers that NumPy has on the CPU."""
    known = predicted.device.type == "cpu" and predicted.dtype in (torch.float32, torch.float64)
    return known and predicted.shape[1] <= limits.FEW_CLASSES


def _of_few_classes(predicted: NDArray[Any], classes: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropies (n,) of predictions (n, c), and their derivatives, by a fraction of the time torch's calls take.

    Logarithms are taken along columns: along lines of a few classes they take several times as long.
    """
    n = len(classes)
    # Where the right class of each sample is.
    at = classes * n
    at += np.arange(n)
    shifted = np.ascontiguousarray(predicted.T)
    shifted = shifted - np.maximum.reduce(shifted, axis=0)
    shares = np.exp(shifted)
    total = np.add.reduce(shares, axis=0)
    losses = np.log(total)
    losses -= shifted.take(at)
    # The probability of the others: one less that of the right class would lose the digits of a small one.
    flat = shares.reshape(-1)
    flat[at] = 0.0
    flat[at] = -np.add.reduce(shares, axis=0)
    shares /= total
    return torch.from_numpy(losses), torch.from_numpy(np.ascontiguousarray(shares.T))


def _are_classes(classes: NDArray[Any], n: int, n_classes: int) -> bool:
    """Tell whether targets are n classes, none of them to be ignored."""
    # Negative ones are the largest without a sign.
    are_numbers = n > 0 and classes.shape == (n,) and classes.dtype == np.int64
    return are_numbers and bool(classes.view(np.uint64).max() < n_classes)


def _of_distances(name: str, *settings: str) -> LossDerivative:
    """A loss of distances to targets, by torch's own kernels of that name."""
    forward, backward = getattr(aten, name), getattr(aten, f"{name}_backward")

    def derivative(criterion: Any, predicted: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if predicted.shape != y.shape or predicted.dtype != y.dtype:
            raise NotImplementedError
        how = [getattr(criterion, setting) for setting in settings]
        if 0.0 in how:
            # Torch takes another loss at the limit, or none.
            raise NotImplementedError
        losses = forward(predicted, y, 0, *how)
        return losses, backward(torch.ones_like(losses), predicted, y, 0, *how)

    return derivative


def _of_logits(
    criterion: nn.BCEWithLogitsLoss, predicted: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The probability, less one where that is right."""
    plain = criterion.weight is None and criterion.pos_weight is None
    if not plain or predicted.shape != y.shape or predicted.dtype != y.dtype:
        raise NotImplementedError
    losses = nn.functional.binary_cross_entropy_with_logits(predicted, y, reduction="none")
    return losses, torch.sigmoid(predicted).sub_(y)


register_loss(nn.CrossEntropyLoss, targets="classes", weighs_classes=True, derivative=_of_cross_entropy)
register_loss(nn.NLLLoss, targets="classes", weighs_classes=True)
register_loss(nn.MultiMarginLoss, targets="classes")
register_loss(nn.BCELoss, targets="binary")
register_loss(nn.BCEWithLogitsLoss, targets="binary", derivative=_of_logits)
register_loss(nn.SoftMarginLoss, targets="signs")
register_loss(nn.MSELoss, derivative=_of_distances("mse_loss"))
register_loss(nn.HuberLoss, derivative=_of_distances("huber_loss", "delta"))
register_loss(nn.SmoothL1Loss, derivative=_of_distances("smooth_l1_loss", "beta"))
register_loss(nn.L1Loss, nn.MultiLabelSoftMarginLoss, nn.PoissonNLLLoss)


def traits_of(criterion: Any, *, overridden: bool = False) -> LossTraits | None:
    """Traits of a registered loss, an instance or a class; None where it isn't one.

    A subclass counts as its parent, unless it has a ``forward`` of its own; then only where ``overridden``.
    """
    kind: Any = criterion if isinstance(criterion, type) else type(criterion)
    for base in kind.__mro__:
        traits = registered(_REGISTRY, base, "loss")
        if traits is not None:
            return traits if overridden or kind.forward is base.forward else None
    return None


def targets_of(criterion: Any) -> str | None:
    """Targets of a registered loss or of a subclass, even one with a ``forward`` of its own; None: not known."""
    traits = traits_of(criterion, overridden=True)
    return None if traits is None else traits.targets


def unreduced(net: Any, criterion: Any, predicted: Any, y: Any, X: Any) -> torch.Tensor:
    """Losses (n, ...) by a net's criterion, before it makes one number of them.

    Raises
    ------
    ValueError
        The criterion has no ``reduction`` to be set to "none".
    """
    before = getattr(criterion, "reduction", None)
    if before is None:
        raise ValueError(
            f"The criterion must have an attribute `reduction` for samples to be weighted, by sample_weight or by "
            f"their class; found {criterion!r}."
        )
    criterion.reduction = "none"
    try:
        losses: torch.Tensor = net.get_loss(predicted, y, X=X, training=True)
    finally:
        criterion.reduction = before
    return losses


def differentiated(
    net: Any, criterion: Any, predicted: torch.Tensor, y: Any, X: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (n, ...) as :func:`unreduced` gives them, and the derivatives of their sum by the predictions (n, ...)."""
    traits = traits_of(criterion)
    is_plain = isinstance(y, torch.Tensor) and is_called_plainly(criterion) and "forward" not in vars(criterion)
    if is_plain and traits is not None and traits.derivative is not None:
        try:
            # What overflows is seen by its norms.
            with torch.no_grad(), np.errstate(all="ignore"):
                return traits.derivative(criterion, predicted, to_tensor(y, device=net.device))
        except NotImplementedError:
            pass
    with torch.enable_grad():
        predicted = predicted.detach().requires_grad_()
        losses = unreduced(net, criterion, predicted, y, X)
        (gradient,) = torch.autograd.grad(losses.sum(), predicted)
    return losses.detach(), gradient


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


def target_weights(criterion: Any, y: Any) -> torch.Tensor | None:
    """Weights that a criterion gives to the targets y of a batch by their classes; None: all are one."""
    traits = traits_of(criterion, overridden=True)
    if traits is None or not traits.weighs_classes or not isinstance(y, torch.Tensor):
        return None
    if y.is_floating_point():
        return None  # shares of classes, by whose weights nothing is divided
    # A loss without it ignores none: it is torch's default, which is no class.
    counted = y != getattr(criterion, "ignore_index", -100)
    weight = getattr(criterion, "weight", None)
    if weight is None and bool(counted.all()):
        return None
    weights = counted.double()
    if weight is not None:
        of_class = weight.detach().double()
        weights = weights.to(of_class.device) * of_class[torch.where(counted, y, 0).to(of_class.device)]
    return weights


def mean_weight(weights: torch.Tensor | None, of_samples: torch.Tensor | None = None) -> torch.Tensor | None:
    """Mean of the weights (n, ...) of targets; None where all are one.

    It is weighted by the weights ``of_samples`` (n,), where they have some.

    A cross entropy's mean is divided by the weights of the classes, and leaves targets out that are to be ignored. Of a
    group, or a sample, that would take the weights away again: all are divided by what the batch has.
    """
    if weights is None:
        return None
    if of_samples is None:
        mean = weights.mean()
    else:
        shares = of_samples.double().to(weights.device)
        mean = weights.view(len(shares), -1).mean(dim=1) @ (shares / shares.sum())
    # With nothing to learn from, all losses are zero.
    return torch.where(mean > 0.0, mean, 1.0)


def complaint(criterion: Any, predicted: Any) -> str | None:
    """Complain of predictions (n, ...) that are probabilities already, for a criterion of logits; None: they aren't."""
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


def wrong_probabilities(probabilities: NDArray[Any]) -> NDArray[np.bool_]:
    """Lines of numbers (n, n_classes) that are not the probabilities of classes, (n,)."""
    totals = probabilities.sum(axis=1, dtype=np.float64)
    rounding = 2e-2 if probabilities.dtype == np.float16 else 1e-3
    # One that isn't a number is for others to be told of.
    wrong: NDArray[np.bool_] = (probabilities < 0.0).any(axis=1) | (np.abs(totals - 1.0) > rounding)
    return wrong


def _twice(layer: str, found: str, criterion: Any, other: str) -> str:
    return (
        f"module must give logits for the criterion {type(criterion).__name__}; found {found}, which it squashes once "
        f"more. Leave out its last {layer}, or take the criterion {other}."
    )


def _is_sigmoid(predicted: torch.Tensor) -> bool:
    """True if numbers were last put through a sigmoid: numbers between zero and one may be logits as well."""
    node = predicted.grad_fn
    while node is not None and SHAPING.fullmatch(node.name()):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("SigmoidBackward")
