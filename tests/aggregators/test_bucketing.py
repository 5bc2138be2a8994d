"""Bucketing: means of disjoint rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import (
    AdaptiveClipping,
    Bucketing,
    Mean,
    PreAggregationState,
    WorkerMemory,
    WorkerMomentum,
)
from skbgmd.rows import DenseRows


def test_buckets_are_means_of_disjoint_rows(rng):
    X = rng.normal(size=(7, 5))
    bucketing = Bucketing(Mean(), bucket_size=3, random_state=0)
    mixing, weights = bucketing._average(dense(X), 0)
    assert mixing.shape == (3, 7)
    np.testing.assert_allclose(mixing.sum(axis=1), 1.0)
    np.testing.assert_array_equal((mixing > 0).sum(axis=0), 1)
    np.testing.assert_allclose(np.sort(weights), [1.0, 3.0, 3.0])
    np.testing.assert_allclose(bucketing(dense(X))[0].vector, X.mean(axis=0), atol=1e-12)


def test_buckets_differ_from_step_to_step_and_come_back_with_the_state(rng):
    X = rng.normal(size=(12, 5))
    bucketing = Bucketing(random_state=3)
    first, state = bucketing(dense(X))
    second, _ = bucketing(dense(X), state)
    assert not np.allclose(first.vector, second.vector)
    np.testing.assert_array_equal(bucketing(dense(X), PreAggregationState(1))[0].vector, second.vector)


def test_bucket_size_is_checked():
    with pytest.raises(ValueError, match="bucket_size must be at least 1"):
        Bucketing(bucket_size=0)(DenseRows(torch.eye(3)))


@pytest.mark.parametrize("rule", [WorkerMemory(fraction=0.2), AdaptiveClipping(WorkerMomentum())])
def test_buckets_are_no_workers(rule):
    rows = DenseRows(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(UserWarning, match=r"must not remember workers.*found WorkerM\w+ in Bucketing") as caught:
        _, state = Bucketing(rule, random_state=0)(rows)
    assert caught[0].filename == __file__
    # Once.
    Bucketing(rule, random_state=0)(rows, state)
    WorkerMemory(Bucketing(random_state=0), fraction=0.2)(rows)
