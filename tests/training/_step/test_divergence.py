"""Errors of trainings that can't go on say what is not finite, and since when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.corruption.gradients import GradientCorruption
from skbgmd.rows import DenseRows
from skbgmd.training._step.divergence import _largest, _of_data, explanation


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


def test_gradients_whose_lengths_overflow(samples: Any) -> None:
    """Each of their numbers is finite, so that no parameter is to blame."""
    X, y = np.asarray(samples[0], dtype=np.float64), samples[1]
    with pytest.raises(NonFiniteRowsError, match=r"In epoch 1 the gradients are so large .* or data and targets of sm"):
        BlockGMDClassifier(**SETTINGS).fit(1e300 * X, y)


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


class Overflows(nn.Module):
    """Has a parameter without entries."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.nothing = nn.Linear(4, 2), nn.Parameter(torch.zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(x) * 1e38 * 1e38 + self.nothing.sum()
        return result


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_parameters_without_entries(samples: Any, gradients: str) -> None:
    model = BlockGMDClassifier(Overflows, gradients=gradients, **SETTINGS)
    with pytest.raises(NonFiniteRowsError, match=r"whose largest parameter is 0\.\d\. A smaller lr"):
        model.fit(*samples)


def test_where_there_are_no_numbers(forked: None) -> None:
    net = RobustNeuralNetClassifier(Overflows, criterion=nn.CrossEntropyLoss).initialize()
    rows = DenseRows(torch.full((1, 1), torch.nan))
    nothing, batch = [net.module_.nothing], (torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    losses = torch.full((1,), torch.nan)
    expected = "The loss CrossEntropyLoss is not finite, though predictions and targets are. A smaller lr"
    assert explanation(net, batch, rows, nothing, losses, ()).startswith(expected)
    expected = "The predictions are not finite, though the data are: numbers overflow in the module. A smaller lr"
    assert explanation(net, batch, rows, nothing, losses, losses).startswith(expected)


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([], None),
        ({"a": torch.zeros(0), "b": np.ones(3)}, None),
        ([torch.tensor([True]), torch.tensor([3])], None),
        ((torch.zeros(0, 2), torch.tensor([[-2.0, 1.0]])), 2.0),
        (torch.tensor([3.0 + 4.0j]), 5.0),
        (torch.eye(2).to_sparse(), 1.0),
    ],
)
def test_largest_number(values: Any, largest: float | None) -> None:
    assert _largest(values) == largest


FRAME = pd.DataFrame({"number": np.arange(64.0), "text": "a", "integer": pd.array([1] * 64, dtype="Int64")})


@pytest.mark.parametrize(
    ("values", "is_finite"),
    [
        (FRAME, True),
        (FRAME.replace({"number": {3.0: np.inf}}), False),
        (FRAME.assign(integer=FRAME["integer"].mask(FRAME["number"] == 3.0)), False),
        (FRAME.assign(number=FRAME["number"].astype("float32").mask(FRAME["number"] == 3.0)), False),
        ([FRAME["number"], FRAME["text"]], True),
        ([FRAME["number"].mask(FRAME["number"] == 3.0)], False),
        (sparse.csr_array(np.eye(3)), True),
        (sparse.csr_array(np.diag([1.0, np.nan])), False),
        (torch.eye(2).to_sparse(), True),
        ({"a": (torch.eye(2) * torch.inf).to_sparse()}, False),
        ([1.0, float("nan")], False),
        (np.array([1.0 + 1j * np.inf]), False),
        (np.array(["a"], dtype=object), True),
        (torch.tensor([True]), True),
    ],
)
def test_data_of_every_kind(values: Any, is_finite: bool, forked: None) -> None:
    net = RobustNeuralNetClassifier(nn.Linear(1, 2))
    expected = None if is_finite else "The data are not finite: X holds NaN or inf."
    assert _of_data(net, {"X": values}) == expected


class OfColumns(nn.Module):
    """Takes the columns of a data frame."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.cat([a, b], dim=1).float())
        return result


# skorch makes tensors of what pandas has.
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_data_frames(samples: Any, forked: None) -> None:
    frame = pd.DataFrame(samples[0][:, :2], columns=["a", "b"])
    frame.iloc[:40, 1] = np.nan
    settings = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    for group_size in (1, None):
        net = RobustNeuralNetClassifier(OfColumns(), group_size=group_size, **settings)
        with pytest.raises(NonFiniteRowsError, match=r"In epoch \d+ the data are not finite: X holds NaN or inf"):
            net.fit(frame, samples[1])
