"""Inner products of clipped rows about zero."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense

from skbgmd._utils import limits
from skbgmd.aggregators.clipped_products import clipped_products, products_about_zero, row_norms, typical_norm
from skbgmd.rows.gram import clip_factors


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
@pytest.mark.parametrize("center", [0.0, 3.0, 1e4])
def test_products_are_those_of_clipped_rows_about_zero(scale, center, rng):
    X = rng.normal(size=(8, 30)) * rng.lognormal(sigma=1.0, size=(8, 1)) + center
    rows = dense(scale * X)
    norms, finite = row_norms(rows)
    np.testing.assert_allclose(norms, scale * np.linalg.norm(X, axis=1), rtol=1e-9)
    assert finite.all()
    typical = typical_norm(norms, np.ones(8))
    assert typical == np.sort(norms)[3]
    clip = clip_factors(typical, norms)
    clipped = X * scale / typical * clip[:, None]
    found = clipped_products(rows, clip, norms, typical)
    np.testing.assert_allclose(found, clipped @ clipped.T, rtol=1e-7, atol=1e-7)
    assert np.diagonal(found).max() <= 1.0 + 1e-9


def test_rows_far_beyond_the_typical_one_count_as_zero(rng):
    X = rng.normal(size=(7, 20))
    X[2] *= 10.0 * limits.FARTHEST
    found = products_about_zero(dense(X))
    others = np.delete(X, 2, axis=0)
    typical = np.sort(np.linalg.norm(X, axis=1))[3]
    assert not found[2].any()
    assert not found[:, 2].any()
    rest = np.delete(np.delete(found, 2, axis=0), 2, axis=1)
    np.testing.assert_allclose(rest, others @ others.T / typical**2, rtol=1e-7, atol=1e-9)


def test_the_typical_norm_is_of_rows_that_are_not_zero_where_these_are_few():
    assert typical_norm(np.array([0.0, 0.0, 0.0, 2.0, 3.0]), np.ones(5)) == 2.0
    assert typical_norm(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.ones(5)) == 2.0
    assert typical_norm(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 9.0])) == 3.0
    assert typical_norm(np.zeros(3), np.ones(3)) == typical_norm(np.zeros(0), np.ones(0)) == 0.0
    assert not products_about_zero(dense(np.zeros((3, 4)))).any()
