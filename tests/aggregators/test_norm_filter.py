"""Norm filter against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense

from skbgmd.aggregators import AdaptiveClipping, NormFilter


def test_norm_filter_drops_both_tails():
    X = np.diag([5.0, 1.0, 4.0, 2.0, 3.0])
    np.testing.assert_array_equal(NormFilter(fraction=0.2, both_tails=True).weights(dense(X)) > 0, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(NormFilter(fraction=0.4, both_tails=True).weights(dense(X)), [0, 0, 0, 0, 1])


def test_norm_filter_drops_the_largest_norms(rng):
    X = rng.normal(size=(10, 4))
    X[3] *= 100
    X[7] *= 50
    weights = NormFilter(fraction=0.2).weights(dense(X))
    np.testing.assert_allclose(weights, np.where(np.isin(np.arange(10), [3, 7]), 0, 1 / 8))


def test_rows_of_equal_norms_share_the_places_that_are_left(rng):
    X = np.diag([2.0, 1.0, 2.0, 2.0, 5.0])
    np.testing.assert_allclose(NormFilter(fraction=0.4).weights(dense(X)), np.array([2, 3, 2, 2, 0]) / 9)
    weights = np.array([3.0, 1.0, 1.0, 2.0, 9.0])
    np.testing.assert_allclose(NormFilter(fraction=0.4).weights(dense(X, weights)), np.array([6, 3, 2, 4, 0]) / 15)
    both = NormFilter(fraction=0.2, both_tails=True)
    np.testing.assert_allclose(both.weights(dense(X)), np.array([1, 0, 1, 1, 0]) / 3)
    np.testing.assert_allclose(both.weights(dense(np.eye(4))), np.full(4, 0.25))


@pytest.mark.parametrize("both_tails", [True, False])
def test_behind_clipping_the_order_of_rows_makes_no_difference(both_tails, rng):
    # Clipping makes the norms of ten of 20 rows equal.
    rule, X, order = AdaptiveClipping(NormFilter(both_tails=both_tails)), rng.normal(size=(20, 50)), rng.permutation(20)
    np.testing.assert_allclose(rule(dense(X[order]))[0].weights, rule(dense(X))[0].weights[order], atol=1e-12)


def test_both_tails_is_a_flag():
    with pytest.raises(TypeError, match=r"both_tails must be True or False; found {}"):
        NormFilter(both_tails={}).check_parameters()
