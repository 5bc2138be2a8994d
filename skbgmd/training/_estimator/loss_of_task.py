"""Torch's losses that can't learn what an estimator is for."""

from __future__ import annotations

import functools
from typing import Any, Literal

from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

from skbgmd.training._step.one_pass import KNOWN_WAYS

Task = Literal["numbers", "classes", "labels"]

#: What torch's losses compare predictions with, or what else they need.
_OF: dict[type[nn.Module], str] = {
    **dict.fromkeys((nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.PoissonNLLLoss), "numbers"),
    **dict.fromkeys((nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss), "one class among several"),
    **dict.fromkeys((nn.BCELoss, nn.BCEWithLogitsLoss), "two classes"),
    **dict.fromkeys((nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss), "several labels"),
    nn.MultiLabelMarginLoss: "lists of labels",
    nn.HingeEmbeddingLoss: "distances",
    nn.KLDivLoss: "distributions",
    nn.GaussianNLLLoss: "numbers and variances that are predicted",
    nn.CTCLoss: "sequences",
    **dict.fromkeys((nn.CosineEmbeddingLoss, nn.MarginRankingLoss), "pairs of predictions"),
    **dict.fromkeys((nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss), "triplets of predictions"),
}
_TAKEN = {
    "numbers": {"numbers"},
    "classes": {"one class among several", "two classes"},
    # Numbers as well: squares of errors are the Brier score.
    "labels": {"numbers", "two classes", "several labels"},
}
_MUST = {
    "numbers": "a loss of numbers, such as SmoothL1Loss or MSELoss, for a regressor",
    "classes": "a loss of classes, such as CrossEntropyLoss or, for two of them, BCEWithLogitsLoss, for y with one "
    "label a sample",
    "labels": "a loss of each label by itself, such as BCEWithLogitsLoss, for y with several labels",
}


def check_loss_of_task(criterion: Any, task: Task) -> None:
    """Refuse torch's losses of something else than what is to be learnt; others may be of anything.

    Parameters
    ----------
    criterion : loss class, instance, or function that makes one
    task : {"numbers", "classes", "labels"}
        Targets of a regressor, labels of which a sample has one, or an indicator matrix.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from torch import nn
    >>> check_loss_of_task(nn.MSELoss, "numbers")
    >>> check_loss_of_task(nn.MSELoss, "classes")
    Traceback (most recent call last):
    ValueError: criterion must be a loss of classes, such as CrossEntropyLoss or, for two of them, BCEWithLogitsLoss, \
for y with one label a sample; found MSELoss, which is of numbers.
    """
    while isinstance(criterion, functools.partial):
        criterion = criterion.func
    kind: Any = criterion if isinstance(criterion, type) else type(criterion)
    base = next((each for each in kind.__mro__ if each in _OF), None)
    # One that computes something else is no longer torch's.
    if base is None or kind.forward is not base.forward or (kind is not criterion and "forward" in vars(criterion)):
        return
    if _OF[base] not in _TAKEN[task]:
        raise ValueError(f"criterion must be {_MUST[task]}; found {kind.__name__}, which is of {_OF[base]}.")


def check_net_of_task(net: NeuralNet, task: Task, *, collates: bool) -> None:
    """Refuse skorch nets with such a loss, unless they, or what makes their batches, may give it something else."""
    if not collates and type(net).get_loss in KNOWN_WAYS:
        # The targets of a binary net are numbers, 0 and 1.
        check_loss_of_task(net.criterion, "labels" if isinstance(net, NeuralNetBinaryClassifier) else task)
