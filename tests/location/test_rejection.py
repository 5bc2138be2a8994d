"""Rejection of far rows: the geometric median of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd import geometric_median
from skbgmd.location.rejection import check_rejection, median_weights
from skbgmd.rows import DenseRows


def test_without_rejection_the_weights_are_the_medians(rng) -> None:
    X, a = rng.normal(size=(12, 5)), rng.uniform(0.5, 1.0, size=12)
    weights = median_weights(DenseRows(torch.from_numpy(X), a), None, tol=1e-10, max_iter=100).weights
    np.testing.assert_allclose(weights @ X, geometric_median(X, sample_weight=a, tol=1e-10), atol=1e-6)


@pytest.mark.parametrize("rejection", [1.5, 3.0])
def test_rows_beyond_the_limit_have_no_weight_and_the_others_their_median(rejection, rng) -> None:
    X = rng.normal(size=(13, 5))
    X[:4] += 40.0
    distances = np.linalg.norm(X - geometric_median(X, tol=1e-10), axis=1)
    near = distances <= rejection * np.median(distances)
    weights = median_weights(DenseRows(torch.from_numpy(X)), rejection, tol=1e-10, max_iter=100).weights
    np.testing.assert_array_equal(weights > 0.0, near)
    np.testing.assert_allclose(weights.sum(), 1.0)
    np.testing.assert_allclose(weights @ X, geometric_median(X[near], tol=1e-10), atol=1e-6)


def test_rows_without_far_ones_are_all_kept(rng) -> None:
    rows = DenseRows(torch.from_numpy(rng.normal(size=(9, 6))))
    both = [median_weights(rows, rejection, tol=1e-8, max_iter=100).weights for rejection in (None, 50.0)]
    np.testing.assert_array_equal(*both)


def test_limits_are_checked() -> None:
    check_rejection(None)
    check_rejection(1.01)
    for value, kind in ((1.0, ValueError), (np.inf, ValueError), ("far", TypeError)):
        with pytest.raises(kind, match="rejection must be"):
            check_rejection(value)
