"""Coordinate-wise trimmed mean against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import halves
from skbgmd._utils.arrays import as_weights
from skbgmd.aggregators import TrimmedMean
from skbgmd.rows import DenseRows

pytestmark = pytest.mark.usefixtures("several_chunks")


@pytest.mark.parametrize(("n", "fraction", "f"), [(10, 0.2, 2), (10, 0.25, 3), (5, 0.49, 2), (6, 0.0, 0)])
def test_trimmed_mean(n, fraction, f, rng):
    X = rng.normal(size=(n, 40))
    vector = TrimmedMean(fraction)(DenseRows(torch.from_numpy(X)))[0].vector
    np.testing.assert_allclose(vector, np.sort(X, axis=0)[f : n - f].mean(axis=0))


@pytest.mark.parametrize("n", [10, 50, 200, 2000])
@pytest.mark.parametrize("seed", range(10))
def test_rows_with_all_of_the_trimmed_weight_are_trimmed(n, seed):
    """What rounding leaves of a number of 1e30 would be the whole result."""
    values, weights = halves(n, seed, others=4)
    X = torch.from_numpy(np.where(values == 0.0, 1.0, 1e30))[:, None]
    vector = TrimmedMean(0.2)(DenseRows(X, as_weights(weights, n)))[0].vector
    np.testing.assert_allclose(vector, [1.0], rtol=1e-12)
