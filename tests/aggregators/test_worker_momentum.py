"""Worker momentum: running means of each worker's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import Mean, NearestNeighborMixing, WorkerMomentum
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.rows import DenseRows


def test_running_means_by_definition(rng):
    rule, state, mean = WorkerMomentum(Mean(), momentum=0.8), None, None
    for _ in range(5):
        X = rng.normal(size=(4, 7))
        mean = X if mean is None else 0.8 * mean + 0.2 * X
        aggregate, state = rule(dense(X, np.array([1.0, 2.0, 1.0, 1.0])), state)
        np.testing.assert_allclose(state.momentum, mean)
        np.testing.assert_allclose(aggregate.vector, np.array([1.0, 2.0, 1.0, 1.0]) @ mean / 5.0)
        state = unpack_state(pack_state(state))


def test_rows_are_not_changed(rng):
    X = torch.from_numpy(rng.normal(size=(4, 7)))
    before = X.clone()
    _, state = WorkerMomentum(Mean())(DenseRows(X))
    kept = state.momentum.clone()
    WorkerMomentum(Mean())(DenseRows(X), state)
    assert torch.equal(X, before)
    assert torch.equal(state.momentum, kept)


def test_workers_come_and_go_and_bad_rows_leave_no_trace(rng):
    rule, X = WorkerMomentum(Mean(), momentum=0.5), rng.normal(size=(3, 4))
    _, state = rule(DenseRows(torch.from_numpy(X), ids=(5, 6, 7)))
    bad = X.copy()
    bad[1, 2] = np.nan
    aggregate, state = rule(DenseRows(torch.from_numpy(bad), ids=(7, 6, 9)), state)
    assert aggregate.weights[1] == 0.0
    assert state.ids == (7, 6, 9)
    np.testing.assert_allclose(state.momentum, [0.5 * (X[2] + X[0]), X[1], X[2]])
    # A new worker whose first row isn't finite isn't remembered.
    _, state = rule(DenseRows(torch.from_numpy(bad), ids=(1, 2, 3)), state)
    assert state.ids == (1, 3)


def test_other_columns_begin_anew(rng):
    _, state = WorkerMomentum(Mean())(dense(rng.normal(size=(3, 4))))
    X = rng.normal(size=(3, 6))
    aggregate, state = WorkerMomentum(Mean())(dense(X), state)
    np.testing.assert_allclose(aggregate.vector, X.mean(axis=0))


def test_an_attack_that_hides_in_noise_shows_in_running_means():
    rng, states = np.random.default_rng(0), {}
    rules = {"now": NearestNeighborMixing(), "over time": WorkerMomentum(momentum=0.95)}
    shares = {}
    for _ in range(60):
        X = rng.normal(size=(10, 100)) + 0.1
        X[:4] -= 0.4
        for name, rule in rules.items():
            aggregate, states[name] = rule(dense(X), states.get(name))
            shares[name] = aggregate.weights[:4].sum()
    assert shares["over time"] < 0.01 < shares["now"]


@pytest.mark.parametrize(
    ("rule", "kind", "message"),
    [
        (WorkerMomentum("mean"), TypeError, "aggregator must be an Aggregator or None; found 'mean'"),
        (WorkerMomentum(momentum=1.0), ValueError, "momentum must be less than 1"),
        (WorkerMomentum(momentum=-0.1), ValueError, "momentum must be"),
    ],
)
def test_parameters_are_checked(rule, kind, message):
    with pytest.raises(kind, match=message):
        rule(DenseRows(torch.eye(3)))
