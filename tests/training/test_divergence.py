"""Errors of trainings that can't go on say what is not finite, and since when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.corruption.gradients import GradientCorruption


class Spoilt(GradientCorruption):
    """Makes most rows NaN."""

    fraction = 1.0

    def _replace(self, rows: torch.Tensor, *others: Any) -> None:
        raise NotImplementedError

    def apply_(self, gradients: torch.Tensor, random_state: Any) -> Any:
        gradients[1:] = torch.nan


class Late(nn.Module):
    """Goes wrong in one way from the third epoch on."""

    def __init__(self, way: str = "predictions", n: int = 0) -> None:
        super().__init__()
        self.first, self.last, self.way = nn.Linear(4, 6), nn.Linear(6, 2), way
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x) if self.training else 0
        h = self.first(x)
        if self.seen > 128 and self.training:
            if self.way == "predictions":
                h = h * 1e38 * 1e38
            if self.way == "gradients":
                # A square root has no slope at zero.
                h = h + (h - h).abs().sqrt()
        result: torch.Tensor = self.last(h)
        return result


@pytest.fixture
def samples(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(64, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


SETTINGS = {"batch_size": 32, "max_epochs": 20, "random_state": 0}


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("group_size", [1, 4])
def test_parameters(samples: Any, gradients: str, group_size: int) -> None:
    how = {"gradients": gradients, "group_size": group_size, "optimizer": torch.optim.SGD}
    with pytest.raises(
        NonFiniteRowsError, match=r"In epoch 1 the parameters '0.weight', .* are not finite: the training"
    ):
        BlockGMDClassifier(lr=1e38, optimizer__weight_decay=1e38, **how, **SETTINGS).fit(*samples)
    expected = r"In epoch \d+ the predictions are not finite, .* whose largest parameter is \de\+\d\d. A smaller lr"
    with pytest.raises(NonFiniteRowsError, match=expected):
        BlockGMDClassifier(lr=1e25, **how, **SETTINGS).fit(*samples)


@pytest.mark.parametrize("way", ["predictions", "gradients"])
@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_predictions_and_gradients(samples: Any, way: str, gradients: str) -> None:
    model = BlockGMDClassifier(Late, module__way=way, gradients=gradients, **SETTINGS)
    expected = (
        "predictions are not finite, though"
        if way == "predictions"
        else "gradients of 'first.weight', 'first.bias' are"
    )
    with pytest.raises(NonFiniteRowsError, match=f"In epoch 3 the {expected}"):
        model.fit(*samples)


def test_losses(samples: Any) -> None:
    class Logarithm(nn.MSELoss):
        def forward(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            each = super().forward(predicted, targets)
            return each / (targets - targets)

    X = samples[0]
    model = BlockGMDRegressor(criterion=Logarithm, **SETTINGS)
    with pytest.raises(NonFiniteRowsError, match="In epoch 1 the loss Logarithm is not finite, though predictions, "):
        model.fit(X, X[:, 0])


def test_corruption(samples: Any) -> None:
    model = BlockGMDClassifier(gradient_corruption=Spoilt(), **SETTINGS)
    with pytest.raises(
        NonFiniteRowsError, match=r"In epoch 1 the gradients of '0.weight', '0.bias', '2.weight' and 1 more "
    ):
        model.fit(*samples)


def test_data(samples: Any, forked: None) -> None:
    """Nets take what they are given, outside of epochs as well."""
    X, y = samples
    X[:40] = np.inf
    net = RobustNeuralNetClassifier(nn.Linear(4, 2), criterion=nn.CrossEntropyLoss, group_size=1, verbose=0)
    with pytest.raises(NonFiniteRowsError, match="In epoch 1 the data are not finite: X holds NaN or inf"):
        net.fit(X, y)
    plain = RobustNeuralNetClassifier(nn.Linear(4, 2), criterion=nn.CrossEntropyLoss, group_size=None, verbose=0)
    with pytest.raises(NonFiniteRowsError, match=r"In epoch \d+ the data are not finite: X holds NaN or inf"):
        plain.fit(X, y)
    net.initialize()
    with pytest.raises(NonFiniteRowsError, match="The data are not finite: X holds NaN or inf"):
        net.train_step_single((torch.as_tensor(X), torch.as_tensor(y)))
