"""Coordinate-wise median against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import halves
from skbgmd._utils.arrays import as_weights
from skbgmd.aggregators import CoordinatewiseMedian
from skbgmd.rows import DenseRows

pytestmark = pytest.mark.usefixtures("several_chunks")


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (7, 100), (8, 100), (5, 1)])
def test_median(shape, rng):
    X = rng.normal(size=shape)
    before = X.copy()
    vector = CoordinatewiseMedian()(DenseRows(torch.from_numpy(X)))[0].vector
    np.testing.assert_allclose(vector, np.median(X, axis=0))
    np.testing.assert_array_equal(X, before)


def test_the_median_of_the_smallest_number_is_that_number():
    for dtype in (torch.float32, torch.float64):
        X = torch.full((3, 4), torch.finfo(dtype).tiny * torch.finfo(dtype).eps, dtype=dtype)
        assert torch.equal(CoordinatewiseMedian()(DenseRows(X))[0].vector, X[0])


@pytest.mark.parametrize("n", [20, 200, 2000])
@pytest.mark.parametrize("seed", range(10))
def test_integer_weights_of_half_the_total_have_the_midpoint(n, seed):
    values, weights = halves(n, seed)
    rows = DenseRows(torch.from_numpy(values[:, None] * [1.0, -2.0]), as_weights(weights, n))
    assert CoordinatewiseMedian()(rows)[0].vector.tolist() == [500.0, -1000.0]
