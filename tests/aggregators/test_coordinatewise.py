"""Rules for single columns: weights, and numbers at the ends of a dtype's range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import CoordinatewiseMedian, TrimmedMean
from skbgmd.rows import DenseRows

pytestmark = pytest.mark.usefixtures("several_chunks")


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
