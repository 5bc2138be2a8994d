"""The weighted mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import Mean
from skbgmd.rows import DenseRows


def test_mean(rng):
    X, a = rng.normal(size=(6, 10)), rng.random(6)
    np.testing.assert_allclose(Mean()(dense(X, a))[0].vector, a @ X / a.sum())
    np.testing.assert_allclose(Mean().weights(dense(X)), np.full(6, 1 / 6))


def test_mean_of_finite_rows_whose_sum_overflows():
    X = torch.tensor([[3e38, 0.0], [3e38, 0.0], [0.0, 1.0]])
    assert torch.isfinite(Mean()(DenseRows(X))[0].vector).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 7, 31])
def test_means_of_the_largest_numbers_are_numbers(dtype, n):
    largest = torch.finfo(dtype).max
    X = torch.full((n, 900), largest, dtype=dtype)
    X[:, 1], X[:, 2] = -largest, 1.0
    weights = np.linspace(0.1, 1.0, n)
    for rows in (DenseRows(X), DenseRows(X, weights), DenseRows(X, index=torch.arange(900))):
        vector = Mean()(rows)[0].vector
        torch.testing.assert_close(vector.to(dtype), X[0])
