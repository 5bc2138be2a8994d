"""Coordinate-wise trimmed mean against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import TrimmedMean
from skbgmd.rows import DenseRows

pytestmark = pytest.mark.usefixtures("several_chunks")


@pytest.mark.parametrize(("n", "fraction", "f"), [(10, 0.2, 2), (10, 0.25, 3), (5, 0.49, 2), (6, 0.0, 0)])
def test_trimmed_mean(n, fraction, f, rng):
    X = rng.normal(size=(n, 40))
    vector = TrimmedMean(fraction)(DenseRows(torch.from_numpy(X)))[0].vector
    np.testing.assert_allclose(vector, np.sort(X, axis=0)[f : n - f].mean(axis=0))
