"""Coordinate-wise median and trimmed mean against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.aggregators import CoordinatewiseMedian, TrimmedMean
from skbgmd.rows import DenseRows


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    monkeypatch.setattr(limits, "CHUNK_ELEMENTS", 1 << 8)
    monkeypatch.setattr(limits, "MIN_CHUNK_COLUMNS", 16)


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (7, 100), (8, 100), (5, 1)])
def test_median(shape, rng):
    X = rng.normal(size=shape)
    before = X.copy()
    vector = CoordinatewiseMedian()(DenseRows(torch.from_numpy(X)))[0].vector
    np.testing.assert_allclose(vector, np.median(X, axis=0))
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(("n", "fraction", "f"), [(10, 0.2, 2), (10, 0.25, 3), (5, 0.49, 2), (6, 0.0, 0)])
def test_trimmed_mean(n, fraction, f, rng):
    X = rng.normal(size=(n, 40))
    vector = TrimmedMean(fraction)(DenseRows(torch.from_numpy(X)))[0].vector
    np.testing.assert_allclose(vector, np.sort(X, axis=0)[f : n - f].mean(axis=0))


@pytest.mark.parametrize("aggregator", [CoordinatewiseMedian(), TrimmedMean(0.2)])
def test_weights_count_as_repeated_rows(aggregator, rng):
    X, counts = rng.normal(size=(5, 30)), np.array([1, 2, 1, 3, 3])
    weighted = aggregator(DenseRows(torch.from_numpy(X), counts / 3))[0].vector
    repeated = aggregator(DenseRows(torch.from_numpy(np.repeat(X, counts, axis=0))))[0].vector
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)


@pytest.mark.parametrize("aggregator", [CoordinatewiseMedian(), TrimmedMean(0.4)])
def test_equal_weights_take_the_same_road_as_no_weights(aggregator, rng):
    X = rng.normal(size=(6, 20))
    rows = DenseRows(torch.from_numpy(X))
    lines = torch.from_numpy(X.T.copy())
    plain = aggregator(rows)[0].vector
    np.testing.assert_allclose(aggregator._reduce_weighted(lines, np.ones(6)), plain, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [CoordinatewiseMedian(), TrimmedMean(0.0), TrimmedMean(0.2)])
def test_largest_and_smallest_numbers(rule, dtype):
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    X = torch.full((9, 50), largest, dtype=dtype)
    X[:, 1::2] *= -1.0
    for weights in (None, np.linspace(0.1, 1.0, 9)):
        torch.testing.assert_close(rule(DenseRows(X, weights))[0].vector.to(dtype), X[0], rtol=1e-6, atol=0.0)
    tiny = torch.full((9, 50), 64 * smallest, dtype=dtype)
    torch.testing.assert_close(rule(DenseRows(tiny))[0].vector.to(dtype), tiny[0], rtol=0.1, atol=0.0)


def test_the_median_of_the_smallest_number_is_that_number():
    for dtype in (torch.float32, torch.float64):
        X = torch.full((3, 4), torch.finfo(dtype).tiny * torch.finfo(dtype).eps, dtype=dtype)
        assert torch.equal(CoordinatewiseMedian()(DenseRows(X))[0].vector, X[0])
