"""Rows brought to order one."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import halves
from skbgmd._utils import limits
from skbgmd._utils.arrays import as_weights
from skbgmd.location.ranges import RangedRows, coordinatewise_median
from skbgmd.rows.gram import lower_weighted_median


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-100, 1.0, 1e200, 1.7e308])
def test_typical_distances_are_of_order_one(size):
    X = size * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    ranged = RangedRows.of(X, np.ones(4), np.zeros(2))
    assert ranged.shrinkage is None
    norms = np.linalg.norm(ranged.points, axis=1)
    assert ((norms >= 1.0) & (norms < 2.0)).all()
    for row, point in zip(X, ranged.points, strict=True):
        np.testing.assert_array_equal(ranged.place(row), point)
        np.testing.assert_array_equal(ranged.restored(point), row)


def test_far_rows_are_drawn_in_and_zeros_are_not():
    X = np.array([[3e300, 4e300], [1e-300, 0.0], [0.0, 1e-300], [0.0, 0.0]])
    ranged = RangedRows.of(X, np.ones(4), np.zeros(2))
    np.testing.assert_allclose(np.linalg.norm(ranged.points[0]), 2.0**limits.RANGE_EXPONENT, rtol=1.0)
    np.testing.assert_allclose(ranged.points[0] / np.linalg.norm(ranged.points[0]), [0.6, 0.8])
    np.testing.assert_array_equal(ranged.shrinkage[1:], 1.0)
    np.testing.assert_array_equal(ranged.points[3], 0.0)
    weights = ranged.restored_weights(np.array([0.1, 0.3, 0.3, 0.3]))
    np.testing.assert_allclose(weights, [0.0, 1 / 3, 1 / 3, 1 / 3])


def test_the_typical_distance_is_by_weight():
    X = np.array([[1e300], [1.0], [2.0], [3.0]])
    assert RangedRows.of(X, np.array([1.0, 1.0, 1.0, 1.0]), np.zeros(1)).exponent < 3
    assert RangedRows.of(X, np.array([9.0, 1.0, 1.0, 1.0]), np.zeros(1)).exponent > 900


def test_differences_of_numbers_that_have_none_themselves():
    X = np.array([[1.7e308, 1.0], [-1.7e308, 1.0]])
    ranged = RangedRows.of(X, np.ones(2), X[1])
    assert np.isfinite(ranged.points).all()
    np.testing.assert_array_equal(ranged.restored(ranged.points[0]), X[0])


def test_rows_at_the_point():
    ranged = RangedRows.of(np.ones((3, 2)), np.ones(3), np.ones(2))
    np.testing.assert_array_equal(ranged.points, 0.0)
    assert ranged.shrinkage is None


def test_weighted_median_of_each_column(rng):
    X, weights = rng.normal(size=(9, 5)), rng.uniform(size=9)
    expected = [lower_weighted_median(column, weights) for column in X.T]
    np.testing.assert_array_equal(coordinatewise_median(X, weights), expected)
    weights[3] = 10.0
    np.testing.assert_array_equal(coordinatewise_median(X, weights), X[3])


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_weight_is_enough_for_the_lower_median(seed):
    values, weights = halves(20_000, seed)
    assert coordinatewise_median(values[:, None], as_weights(weights, len(values))).tolist() == [0.0]
