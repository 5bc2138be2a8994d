"""The training step and its hook for rows from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset

from skbgmd import RobustNeuralNetRegressor
from skbgmd.aggregators import GeometricMedian, Mean
from skbgmd.corruption import LabelFlip, SearchedInnerProduct
from skbgmd.rows import DenseRows
from skbgmd.training._step.gradient_matrix import GradientMatrix, GradientRows
from skbgmd.training._step.groups import GroupedBatch

pytestmark = pytest.mark.usefixtures("forked")
X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = X @ np.ones((3, 1), dtype=np.float32)


class WithOthers(RobustNeuralNetRegressor):
    """Rows of two others come before those of the batch, and are far off."""

    def make_rows(self, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]) -> GradientRows:
        made = super().make_rows(batch, gradients, fit_params)
        assert isinstance(batch, GroupedBatch)
        matrix = made.rows.weighted_sum(np.eye(made.rows.n_rows))
        others = torch.full((2, gradients.n_columns), 1e3)
        rows = DenseRows(torch.cat([others, matrix]), units=gradients.units)
        return made._replace(rows=rows, own=slice(2, None))


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_rows_from_elsewhere_need_no_change_of_the_step(gradients: str) -> None:
    settings = {"group_size": 4, "max_epochs": 1, "gradients": gradients, "train_split": None, "verbose": 0}
    module = torch.nn.Linear(3, 1)
    rule = GeometricMedian(rejection=3.0, tol=1e-9)
    net = WithOthers(module, aggregator=rule, **settings).initialize()
    net.train_step_single((torch.from_numpy(X), torch.from_numpy(Y)))
    found = [p.grad.clone() for p in net.module_.parameters()]
    plain = RobustNeuralNetRegressor(module, aggregator=rule, **settings).initialize()
    module.zero_grad()  # skorch trains a module as it is
    plain.train_step_single((torch.from_numpy(X), torch.from_numpy(Y)))
    # The others are rejected, and what is left is the batch's own.
    for ours, theirs in zip(found, plain.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-3, atol=1e-4)


def test_trust_is_of_the_batchs_own_rows() -> None:
    net = WithOthers(
        torch.nn.Linear(3, 1),
        aggregator=GeometricMedian(rejection=3.0),
        group_size=4,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).fit(X, Y)
    trust = net.sample_trust(24)
    # Of eight rows two have no weight: six share what eight would.
    assert trust.sum() == pytest.approx(24 * 8 / 6)
    assert (trust > 0.0).all()


class Seen(Mean):
    """Remembers what it was handed."""

    def __init__(self, calls: Any = None) -> None:
        self.calls = calls

    def __call__(self, rows: Any, state: Any = None) -> Any:
        self.calls.append(rows.ids)
        return super().__call__(rows, state)

    def __deepcopy__(self, memo: Any) -> Seen:
        return self


@pytest.mark.parametrize("settings", [{}, {"gradients": "micro_batches"}, {"local_steps": 2}])
@pytest.mark.parametrize("attack", [None, SearchedInnerProduct(corrupt=[0]), LabelFlip(corrupt=[0])])
def test_rules_know_clients_that_come_and_go(settings: dict[str, Any], attack: Any) -> None:
    calls: list[Any] = []
    net = RobustNeuralNetRegressor(
        torch.nn.Linear(3, 1),
        aggregator=Seen(calls),
        gradient_corruption=attack,
        batch_size=4,
        max_epochs=1,
        train_split=None,
        verbose=0,
        **settings,
    ).initialize()
    for clients in (["c", "a", "b"], ["d", "b", "c"]):
        dataset = Dataset(X, Y)
        dataset.clients = np.repeat(clients, 8)
        net.partial_fit(dataset, None)
    assert set(calls) == {("a", "b", "c"), ("b", "c", "d")}
    calls.clear()
    net.set_params(group_size=8, batch_size=-1).partial_fit(X, Y)
    assert set(calls) == {None}
