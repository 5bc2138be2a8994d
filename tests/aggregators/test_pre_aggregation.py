"""The inner aggregator of a pre-aggregation, with its state and parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import (
    AdaptiveClipping,
    BlockGeometricMedian,
    Bucketing,
    NearestNeighborMixing,
    WorkerMemory,
    WorkerMomentum,
)
from skbgmd.rows import DenseRows


def test_the_inner_state_is_kept(rng):
    mixing = NearestNeighborMixing(BlockGeometricMedian(complement="memory"))
    _, state = mixing(dense(rng.normal(size=(8, 40))))
    assert state.step == 1
    assert state.inner.step == 1
    assert state.inner.memory is not None
    _, state = mixing(dense(rng.normal(size=(8, 40))), state)
    assert state.inner.step == 2


def test_nested_parameters_can_be_set():
    mixing = NearestNeighborMixing(BlockGeometricMedian())
    mixing.set_params(aggregator__beta=0.3, fraction=0.1)
    assert mixing.aggregator.beta == 0.3


@pytest.mark.parametrize(
    "rule", [NearestNeighborMixing, WorkerMemory, AdaptiveClipping], ids=["neighbors", "memory", "clipping"]
)
@pytest.mark.parametrize("ids", [None, ("a", "b", "c", "d", "e", "f")])
def test_rules_behind_know_workers_when_rows_before_them_are_left_out(rng, rule, ids):
    X = rng.normal(size=(6, 4))
    bad = X.copy()
    bad[1] = np.nan
    expected = tuple(range(6)) if ids is None else ids
    _, state = rule(WorkerMomentum())(DenseRows(torch.from_numpy(X), ids=ids))
    assert state.inner.ids == expected
    aggregate, state = rule(WorkerMomentum())(DenseRows(torch.from_numpy(bad), ids=ids), state)
    assert state.inner.ids == expected[:1] + expected[2:]
    assert aggregate.weights[1] == 0.0


def test_random_buckets_are_no_workers(rng):
    rows = DenseRows(torch.ones(6, 4), ids=tuple("abcdef"))
    with pytest.warns(UserWarning, match="found WorkerMomentum in Bucketing"):
        _, state = Bucketing(WorkerMomentum(), random_state=0)(rows)
    assert state.inner.ids == (0, 1, 2)
