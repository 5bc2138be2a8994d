"""Combinations of rows through their Gram matrix."""

from __future__ import annotations

import numpy as np
from two_spaces import gram_about

from skbgmd._utils import limits
from skbgmd.location.spaces import GramSpace


def test_rows_too_near_to_tell_count_as_at_with_their_doubt(points):
    gram = GramSpace(gram_about(points, points[3], rounding=1e-2), np.ones(12))
    exact = GramSpace(gram_about(points, points[3], rounding=1e-16), np.ones(12))
    assert gram.at(gram.row(5), np.inf).excess.absolute > exact.at(exact.row(5), np.inf).excess.absolute


def test_large_products_go_through_torch(rng, monkeypatch):
    X = rng.normal(size=(80, 100))
    small = GramSpace(gram_about(X, 0.0), np.ones(80))
    assert small.n > limits.NUMPY_PRODUCT_ROWS
    w = rng.dirichlet(np.ones(80))
    np.testing.assert_allclose(small.vector(w)[1], w @ X @ X.T, atol=1e-12)
    direct = small.newton_direction(small.at(small.vector(w), np.inf))
    monkeypatch.setattr(limits, "NUMPY_PRODUCT_ROWS", 1000)
    np.testing.assert_allclose(small.newton_direction(small.at(small.vector(w), np.inf)), direct, atol=1e-10)


def test_newton_direction_off_rows_at_the_point(points):
    """Rows at the point have no Weiszfeld weight and no share in the step."""
    space = GramSpace(gram_about(points, points[3]), np.ones(12))
    point = space.at(space.row(5), np.inf)
    direction = space.newton_direction(point)
    np.testing.assert_allclose(space.hessian_times(point, direction)[1], point.residual[1], atol=1e-9)
