"""Worker momentum: running means of each worker's rows."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import Mean, NearestNeighborMixing, WorkerMomentum
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.worker_momentum import WorkerMomentumState
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
    assert (state.ids, state.away, state.steps_away) == ((7, 6, 9), (5,), (1,))
    np.testing.assert_allclose(state.momentum, [0.5 * (X[2] + X[0]), X[1], X[2]])
    # A new worker whose first row isn't finite isn't remembered.
    _, state = rule(DenseRows(torch.from_numpy(bad), ids=(1, 2, 3)), state)
    assert (state.ids, state.away, state.steps_away) == ((1, 3), (7, 6, 9, 5), (1, 1, 1, 2))


def test_a_worker_that_is_away_keeps_its_running_mean(rng):
    rule, states, means = WorkerMomentum(Mean(), momentum=0.8), [None, None], {}
    for step in range(60):
        ids = tuple(rng.permutation(6)[: rng.integers(1, 5)].tolist())
        X = rng.normal(size=(len(ids), 5))
        for worker, row in zip(ids, X, strict=True):
            means[worker] = 0.8 * means[worker] + 0.2 * row if worker in means else row
        order = rng.permutation(len(ids))
        aggregate, states[0] = rule(DenseRows(torch.from_numpy(X), ids=ids), states[0])
        shuffled = DenseRows(torch.from_numpy(X[order]), ids=tuple(ids[i] for i in order))
        other, states[1] = rule(shuffled, states[1])
        np.testing.assert_allclose(states[0].momentum, [means[worker] for worker in ids])
        np.testing.assert_allclose(aggregate.vector, np.mean([means[worker] for worker in ids], axis=0))
        np.testing.assert_allclose(other.vector, aggregate.vector)
        if step % 7 == 0:
            file = io.BytesIO()
            torch.save(pack_state(states[0]), file)
            file.seek(0)
            states[0] = unpack_state(torch.load(file))
    assert set(states[0].ids) | set(states[0].away) == set(range(6))


def test_what_is_said_after_an_absence_counts_no_more_than_at_any_time():
    rule, state = WorkerMomentum(Mean()), None
    for ids, last in [((1, 2, 3), 1.0)] * 50 + [((1, 2), 1.0), ((1, 2, 3), -100.0)]:
        _, state = rule(DenseRows(torch.tensor([[1.0], [1.0], [last]])[: len(ids)], ids=ids), state)
    np.testing.assert_allclose(state.momentum[:, 0], [1.0, 1.0, 0.9 - 10.0], rtol=1e-6)


@pytest.mark.parametrize(("momentum", "lasts"), [(0.9, 65), (0.5, 9), (0.0, 0)])
def test_workers_that_are_away_for_long_are_forgotten(momentum, lasts):
    rule = WorkerMomentum(Mean(), momentum=momentum)
    _, state = rule(DenseRows(torch.ones(2, 3), ids=("a", "b")))
    for step in range(1, 80):
        _, state = rule(DenseRows(torch.ones(1, 3), ids=("a",)), state)
        assert state.away == (("b",) if step <= lasts else ())
        assert len(state.means_away) == len(state.steps_away) == len(state.away)


def test_means_of_those_away_hold_no_memory_of_others():
    _, state = WorkerMomentum(Mean())(DenseRows(torch.ones(50, 30)))
    _, state = WorkerMomentum(Mean())(DenseRows(torch.ones(49, 30)), state)
    assert state.means_away[0].untyped_storage().nbytes() == 30 * 4


def test_states_of_earlier_versions_are_taken():
    _, state = WorkerMomentum(Mean())(DenseRows(torch.ones(2, 3)))
    packed = pack_state(state)
    old = {"ids": packed["values"]["ids"], "momentum": packed["values"]["momentum"], "inner": None}
    _, state = WorkerMomentum(Mean())(DenseRows(torch.zeros(2, 3)), unpack_state({**packed, "values": old}))
    np.testing.assert_allclose(state.momentum, np.full((2, 3), 0.9))


def test_a_state_whose_parts_differ_in_number_is_refused():
    state = WorkerMomentumState(away=(1,))
    with pytest.raises(ValueError, match="means_away and steps_away of 1 workers must be as many; found 0 and 0"):
        WorkerMomentum()(DenseRows(torch.eye(3)), state)


def test_other_columns_begin_anew(rng):
    _, state = WorkerMomentum(Mean())(dense(rng.normal(size=(3, 4))))
    X = rng.normal(size=(3, 6))
    aggregate, state = WorkerMomentum(Mean())(dense(X), state)
    np.testing.assert_allclose(aggregate.vector, X.mean(axis=0))
    _, state = WorkerMomentum(Mean())(dense(X[:2]), state)
    _, state = WorkerMomentum(Mean())(dense(X[:, :2]), state)
    assert (state.away, state.means_away) == ((), ())


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
