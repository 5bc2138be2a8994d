"""Nearest-neighbor mixing against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import (
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    Mean,
    NearestNeighborMixing,
)
from skbgmd.rows import DenseRows
from skbgmd.rows.averaged import AveragedRows


@pytest.mark.parametrize("inner", [Mean(), GeometricMedian(), CoordinatewiseMedian()])
def test_nearest_neighbors_by_definition(inner, rng):
    X, f = rng.normal(size=(10, 20)), 4
    X[:3] += 10.0
    mixed = np.stack([X[np.argsort(np.linalg.norm(X - x, axis=1))[: 10 - f]].mean(axis=0) for x in X])
    aggregate, _ = NearestNeighborMixing(inner, fraction=f / 10)(dense(X))
    np.testing.assert_allclose(aggregate.vector, inner(dense(mixed))[0].vector, atol=1e-6)
    if aggregate.weights is not None:
        np.testing.assert_allclose(aggregate.weights @ X, aggregate.vector, atol=1e-6)


@pytest.mark.parametrize(
    ("aggregator", "kind", "message"),
    [
        (NearestNeighborMixing("mean"), TypeError, "aggregator must be an Aggregator or None; found 'mean'"),
        (NearestNeighborMixing(fraction=0.6), ValueError, "fraction must be"),
    ],
)
def test_parameters_are_checked(aggregator, kind, message):
    with pytest.raises(kind, match=message):
        aggregator(DenseRows(torch.eye(3)))


def test_float32_digits_of_means_of_many_columns(rng):
    """Means lie near each other: their differences must not drown in the rounding of the rows' products."""
    X = rng.normal(size=(32, 40_000)).astype(np.float32)
    X[:12] *= -100.0
    found, _ = NearestNeighborMixing(GeometricMedian())(DenseRows(torch.from_numpy(X)))
    expected, _ = NearestNeighborMixing(GeometricMedian())(DenseRows(torch.from_numpy(X.astype(np.float64))))
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-4)
    mixed = AveragedRows(DenseRows(torch.from_numpy(X)), np.full((3, 32), 1 / 32) + 0.01 * np.eye(3, 32), np.ones(3))
    exact = torch.from_numpy(mixed.averaging @ X.astype(np.float64))
    np.testing.assert_allclose(
        mixed.gram().squared_distances()[0, 1], float((exact[0] - exact[1]).square().sum()), rtol=1e-5
    )


@pytest.mark.parametrize(
    "inner",
    [GeometricMedian(tol=1e-9), BlockGeometricMedian(0.1, GeometricMedian(tol=1e-9)), GeometricMedian(rejection=10.0)],
)
@pytest.mark.parametrize("size", [1e3, 1e9, 1e18])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_honest_rows_that_mix_to_one_point_outweigh_huge_ones(inner, size, dtype, rng):
    """All honest rows have the same neighbors; unequal weights, as groups of unequal sizes have."""
    X = rng.normal(size=(34, 400)).astype(dtype)
    X[20:27, :40] = size
    X[27:] *= -1000.0
    a = np.where(np.arange(34) % 3 == 0, 0.875, 1.0)
    aggregate, _ = NearestNeighborMixing(inner)(dense(X, a))
    assert aggregate.weights[20:].sum() < 1e-6
    expected = a[:20] @ X[:20] / a[:20].sum()
    np.testing.assert_allclose(aggregate.vector, expected, atol=1e-4)
