"""The geometric median as an aggregator, with rejection of far rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skbgmd import geometric_median
from skbgmd._utils import limits
from skbgmd.aggregators import (
    BlockGeometricMedian,
    GeometricMedian,
    HuberMean,
)
from skbgmd.rows import DenseRows


@pytest.mark.parametrize("shape", [(9, 40), (40, 5)])
def test_geometric_median_is_the_functions(shape, rng):
    X, a = rng.normal(size=shape), rng.random(shape[0])
    X[: shape[0] // 3] += 5.0
    aggregate, state = GeometricMedian(tol=1e-10)(dense(X, a))
    np.testing.assert_allclose(aggregate.vector, geometric_median(X, sample_weight=a, tol=1e-10), atol=1e-7)
    assert state is None


def test_geometric_median_finds_a_center_that_a_sample_of_columns_hides(rng, monkeypatch):
    """A row like the others on every sampled column, and far out elsewhere, is a center that costs all digits."""
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    X = rng.normal(size=(12, 3000)).astype(np.float32)
    rows = dense(X)
    decoy = X.copy()
    decoy[0] = np.median(X, axis=0)
    step = -(-3000 // limits.CENTER_SAMPLE_RUNS)
    decoy[0, limits.CENTER_SAMPLE_RUN :: step] = 1e7
    rows = dense(decoy)
    assert rows.central_index() == 0
    expected = geometric_median(decoy.astype(np.float64), tol=1e-10)
    vector = GeometricMedian()(rows)[0].vector
    assert np.linalg.norm(vector.double().numpy() - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        (GeometricMedian(tol=0.0), "tol must be greater than 0"),
        (GeometricMedian(max_iter=0), "max_iter must be at least 1"),
    ],
)
def test_parameters_are_checked(aggregator, message):
    with pytest.raises(ValueError, match=message):
        aggregator(DenseRows(torch.eye(3)))


@pytest.mark.parametrize(
    "rule", [GeometricMedian, lambda **kwargs: BlockGeometricMedian(1.0, GeometricMedian(**kwargs))]
)
def test_rejection(rule, rng):
    X, a = rng.normal(size=(20, 60)), rng.uniform(0.5, 1.0, size=20)
    X[:7] = 100.0 * rng.normal(size=(7, 60)) + 30.0
    aggregate, _ = rule(rejection=3.0)(dense(X, a))
    assert not aggregate.weights[:7].any()
    expected = geometric_median(X[7:], sample_weight=a[7:], tol=1e-10)
    np.testing.assert_allclose(aggregate.vector, expected, atol=1e-3)
    alone, _ = rule()(dense(X, a))
    assert np.linalg.norm(alone.vector.numpy() - expected) > 0.1
    # Nothing is far off: it is the median.
    few, _ = rule(rejection=3.0)(dense(X[7:], a[7:]))
    np.testing.assert_array_equal(few.vector, rule()(dense(X[7:], a[7:]))[0].vector)


def test_rejection_keeps_equal_rows():
    X = np.zeros((5, 3))
    X[:2] = [[1.0, 0.0, 0.0], [5.0, 5.0, 5.0]]
    aggregate, _ = GeometricMedian(rejection=2.0)(dense(X))
    np.testing.assert_allclose(aggregate.weights, [0, 0, 1 / 3, 1 / 3, 1 / 3])


@given(
    X=arrays(np.float64, (9, 3), elements=st.floats(-10, 10)),
    far=arrays(np.float64, (4, 3), elements=st.floats(-1e9, 1e9)),
    rejection=st.floats(1.01, 10.0),
)
@settings(max_examples=60, deadline=None)
def test_rejection_keeps_the_breakdown_point(X, far, rejection):
    """Four of nine rows, wherever they are: the aggregate stays within a bounded distance of the others."""
    X = np.vstack([X[4:], far])
    vector = GeometricMedian(rejection=rejection)(dense(X))[0].vector.numpy()
    # The median is within 2 (5/9) / (1 - 8/9) = 10 diameters' halves of them; what is kept is near it.
    radius = np.linalg.norm(X[:5], axis=1).max()
    assert np.linalg.norm(vector) <= 10 * radius + rejection * 11 * radius + 1e-6


@pytest.mark.parametrize(("value", "error"), [(1.0, ValueError), (np.inf, ValueError), ("far", TypeError)])
def test_rejection_is_checked(value, error, rng):
    location = GeometricMedian(rejection=value)
    for rule in (location, HuberMean(rejection=value), BlockGeometricMedian(location=location)):
        with pytest.raises(error, match="rejection must be"):
            rule(dense(rng.normal(size=(4, 3))))


def test_ties_are_checked() -> None:
    with pytest.raises(ValueError, match="ties must be one of 'median', 'huber'; found 'some'"):
        BlockGeometricMedian(location=GeometricMedian(ties="some"))(DenseRows(torch.zeros(3, 2)))
