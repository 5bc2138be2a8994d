"""Norm filter against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense

from skbgmd.aggregators import NormFilter


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


def test_both_tails_is_a_flag():
    with pytest.raises(TypeError, match=r"both_tails must be True or False; found {}"):
        NormFilter(both_tails={}).check_parameters()
