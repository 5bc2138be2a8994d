"""Combinations of rows through products with a Gram matrix that isn't formed."""

from __future__ import annotations

import numpy as np
import pytest
from two_spaces import gram_about

from skbgmd.location.spaces import GramSpace, UnformedGramSpace
from skbgmd.rows.unformed_gram import UnformedGram


@pytest.mark.parametrize("far", [1.0, 1e4])
def test_an_iterate_is_that_of_the_matrix(rng, far):
    X = rng.normal(size=(12, 5)) + 1.0
    X[0] *= far
    weights = rng.uniform(0.5, 1.0, size=12)
    calls = []

    def product(vector):
        calls.append(vector)
        return X @ (vector @ X)

    formed = GramSpace(gram_about(X, 0.0), weights)
    unformed = UnformedGramSpace(UnformedGram(product, np.linalg.norm(X, axis=1), 2.0**-50), weights)
    start = rng.dirichlet(np.ones(12))
    found, expected = unformed.at(unformed.vector(start)), formed.at(formed.vector(start))
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-10)
    np.testing.assert_allclose(found.residual, expected.residual, atol=1e-8 * far**2)
    assert found.excess.absolute == pytest.approx(expected.excess.absolute, rel=1e-6)
    before = len(calls)
    np.testing.assert_allclose(
        unformed.distances_to_mean(weights / weights.sum()), formed.distances_to_mean(weights / weights.sum())
    )
    # The proof took that product already.
    assert len(calls) == before
