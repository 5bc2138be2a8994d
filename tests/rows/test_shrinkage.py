"""Rows that are too far for the digits of their products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.aggregators import GeometricMedian
from skbgmd.rows import DenseRows
from skbgmd.rows.shrinkage import out_of_range, shrink_outliers, underflow_bound


def test_a_typical_norm_is_of_the_majority():
    unit, shrinkage = shrink_outliers(np.array([0.0, 1.0, 1.0, 1e30, 1e30]), 1e8)
    assert unit == 1.0
    np.testing.assert_allclose(shrinkage, [1.0, 1.0, 1.0, 1e-22, 1e-22])


def test_rows_whose_ratio_overflows_are_shrunk_to_nothing():
    typical, shrinkage = shrink_outliers(np.array([1e-170, 1e-170, 0.0, 1e-170, 1e308]), 1e12)
    assert typical == 1e-170
    np.testing.assert_array_equal(shrinkage, [1.0, 1.0, 1.0, 1.0, 0.0])
    assert shrink_outliers(np.array([1.0, 1.0, 1e300]), 1e8, np.array([0.1, 0.1, 1.0]))[0] == 1e300


def test_rows_at_the_center_count_in_the_typical_norm():
    """Far rows are most of those that aren't at the center."""
    norms = np.repeat([0.0, 1.0, 1e30], [102, 98, 100])
    typical, shrinkage = shrink_outliers(norms, 1e12)
    assert typical == 1.0
    np.testing.assert_allclose(shrinkage[200:], 1e-18)
    assert shrink_outliers(np.repeat([0.0, 1.0, 3.0], [9, 2, 1]), 1e12)[0] == 1.0


def test_rows_beyond_the_range_of_squares_leave_the_others_apart(monkeypatch):
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(5, 20_000, generator=generator) + 5.0
    X[3:] = 1e25 * torch.randn(2, 20_000, generator=generator)
    X[0] += 3.0
    weights = GeometricMedian(tol=1e-6)(DenseRows(X))[0].weights
    exact = GeometricMedian(tol=1e-6)(DenseRows(X.double()))[0].weights
    np.testing.assert_allclose(weights, exact, atol=1e-3)
    assert weights[0] < 0.25


@pytest.mark.parametrize("far", [1e13, 1e25, 1e100])
def test_rows_that_are_too_far_for_the_digits_of_their_products_are_shrunk(far, rng):
    X = rng.normal(size=(9, 40))
    X[:3] += far
    gram = DenseRows(torch.from_numpy(X)).gram()
    assert gram.unit == 1.0
    assert gram.original.shrinkage is None
    np.testing.assert_array_equal(gram.shrinkage < 1.0, np.arange(9) < 3)
    assert gram.norms.max() <= 1.01e12 * np.median(gram.norms)
    near = gram.squared_distances()[3:, 3:]
    np.testing.assert_allclose(near, ((X[3:, None] - X[3:]) ** 2).sum(axis=2), rtol=1e-9)


def test_rows_that_are_far_by_less_are_left_as_they_are(rng):
    X = rng.normal(size=(9, 40))
    X[:3] += 1e10
    assert DenseRows(torch.from_numpy(X)).gram().shrinkage is None


def test_squares_are_out_of_range_where_one_overflows_or_most_underflow():
    floor = underflow_bound(torch.float32, 1000)
    assert not out_of_range(np.array([1.0, 2.0, floor]), floor)
    assert out_of_range(np.array([1.0, 2.0, np.inf]), floor)
    assert out_of_range(np.array([1.0, floor, floor]), floor)
    assert out_of_range(np.zeros(3), floor)
