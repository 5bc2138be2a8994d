"""Rows whose squares overflow or underflow."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd import geometric_median


@pytest.mark.parametrize("shape", [(40, 3), (10, 2000), (9000, 2)])
@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e155, 1e160, 1e300])
def test_the_median_of_huge_and_tiny_rows_is_that_of_others_multiplied(shape, size, rng):
    X = rng.normal(size=shape) + 1.0
    result = geometric_median(X * size, tol=1e-13, return_result=True)
    # Of 1e-310 the smallest number is a relative 5e-14.
    np.testing.assert_allclose(result.median / size, geometric_median(X, tol=1e-13), atol=1e-8)
    assert result.converged


@pytest.mark.parametrize(("most", "others"), [(1e300, 1.0), (1e-200, 1e300), (1.0, 1e300)])
def test_most_rows_decide_what_is_huge(most, others, rng):
    X = rng.normal(size=(40, 3))
    expected = geometric_median(np.vstack([np.full((5, 3), 1e12 if others > most else 0.0), X]))
    found = geometric_median(np.vstack([np.full((5, 3), others), most * X]))
    np.testing.assert_allclose(found / most, expected, atol=1e-9)


@pytest.mark.parametrize("weights", [None, [0.4, 1.0, 1.0], [5.0, 1.0, 1.0]])
def test_huge_ratios(weights, path):
    for size in (1e20, 1e80, 1e160, 1e199, 1e300):
        for small in (1e-300, 1e-20, 1.0):
            X = np.array([[2.0 * size, -0.9 * size], [small, 0.0], [0.0, small]])
            result = geometric_median(X, sample_weight=weights, return_result=True)
            assert result.converged
            heavy = weights is not None and weights[0] > 2.0
            scale = size if heavy else small
            wanted = X[0] if heavy else X[1:].mean(axis=0)
            np.testing.assert_allclose(result.median / scale, wanted / scale, atol=0.6)
    assert np.isfinite(geometric_median([[1.0, 0.0], [2e199, -9e199]])).all()
