"""Torch's losses are refused where they can't learn the task, by name and before anything is changed."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetRegressor
from torch import nn

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._estimator.loss_of_task import check_loss_of_task

# Nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3
TARGETS = {"numbers": X[:, 0], "classes": Y, "labels": np.column_stack([Y > 0, Y > 1]).astype(int)}
NUMBERS = [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.PoissonNLLLoss]
CLASSES = [nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss]
BINARY = [nn.BCELoss, nn.BCEWithLogitsLoss]
LABELS = [nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss]
OTHERS = [
    *(nn.GaussianNLLLoss, nn.KLDivLoss, nn.CTCLoss, nn.CosineEmbeddingLoss, nn.MarginRankingLoss),
    *(nn.HingeEmbeddingLoss, nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss, nn.MultiLabelMarginLoss),
]
REFUSED = {
    "numbers": [*CLASSES, *BINARY, *LABELS, *OTHERS],
    "classes": [*NUMBERS, *LABELS, *OTHERS],
    "labels": [*CLASSES, *OTHERS],
}
TAKEN = {"numbers": NUMBERS, "classes": [*CLASSES, *BINARY], "labels": [*NUMBERS, *BINARY, *LABELS]}


class Own(nn.CrossEntropyLoss):
    """What it is of its writer knows."""

    def forward(self, predicted, y):
        return (predicted - y).square().mean()


class Renamed(nn.CrossEntropyLoss):
    pass


def estimator(task, **settings):
    kind = BlockGMDRegressor if task == "numbers" else BlockGMDClassifier
    return kind(max_epochs=2, random_state=0, **settings)


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task in REFUSED for kind in REFUSED[task]])
def test_refused(task, kind):
    found = re.escape(f"found {kind.__name__}, which is of ")
    for criterion in (kind, kind(), functools.partial(kind, reduction="mean")):
        model = estimator(task, criterion=criterion)
        before = dict(vars(model))
        with pytest.raises(ValueError, match=rf"criterion must be a loss of .*{found}"):
            model.fit(X, TARGETS[task])
        assert vars(model) == before
        classes = {"classes": np.arange(3)} if task == "classes" else {}
        with pytest.raises(ValueError, match=f"criterion must be a loss of .*{found}"):
            model.partial_fit(X, TARGETS[task], **classes)


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task in TAKEN for kind in TAKEN[task]])
def test_taken(task, kind):
    check_loss_of_task(kind, task)
    check_loss_of_task(kind(), task)
    check_loss_of_task(lambda: kind(), task)


def test_losses_of_the_users_own_may_be_of_anything():
    assert np.isfinite(estimator("numbers", criterion=Own).fit(X, TARGETS["numbers"]).predict(X)).all()
    criterion = nn.CrossEntropyLoss()
    criterion.forward = nn.functional.mse_loss
    check_loss_of_task(criterion, "numbers")
    with pytest.raises(ValueError, match="found Renamed, which is of one class among several"):
        estimator("numbers", criterion=Renamed).fit(X, TARGETS["numbers"])


def test_numbers_for_several_labels_are_the_brier_score():
    model = estimator("labels", criterion=nn.MSELoss, module=lambda: nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()))
    assert model.fit(X, TARGETS["labels"]).predict_proba(X).shape == (30, 2)


def test_losses_of_nets():
    settings = {"train_split": None, "verbose": 0, "max_epochs": 1}
    with pytest.raises(ValueError, match=r"criterion must be a loss of numbers.*found CrossEntropyLoss"):
        BlockGMDRegressor(NeuralNetRegressor(nn.Linear(4, 1), criterion=nn.CrossEntropyLoss, **settings)).fit(
            X, X[:, 0]
        )
    with pytest.raises(ValueError, match=r"criterion must be a loss of classes.*found L1Loss"):
        BlockGMDClassifier(NeuralNet(nn.Linear(4, 3), nn.L1Loss, **settings)).fit(X, Y)
    module = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    settings["predict_nonlinearity"] = lambda shares: torch.stack([1.0 - shares, shares], dim=1)
    binary = NeuralNetBinaryClassifier(module, criterion=nn.MSELoss, **settings)
    BlockGMDClassifier(binary).fit(X, Y > 0)


class OneHot(NeuralNet):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, nn.functional.one_hot(y_true, 3).to(y_pred), *args, **kwargs)


def one_hot(pairs):
    data, labels = zip(*pairs, strict=True)
    return torch.tensor(np.stack(data)), torch.eye(3)[torch.tensor(labels)].double()


def test_losses_of_other_targets_that_a_net_or_its_batches_make():
    net = OneHot(nn.Linear(4, 3), nn.MSELoss, train_split=None, verbose=0, max_epochs=1)
    BlockGMDClassifier(net).fit(X, Y)
    module, collated = nn.Linear(4, 3).double(), {"iterator_train__collate_fn": one_hot}
    estimator("classes", module=module, criterion=nn.MSELoss, **collated).fit(X, Y)
