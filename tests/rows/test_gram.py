"""Gram matrices and what is derived from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from conftest import halves
from skbgmd._utils.arrays import as_weights
from skbgmd.rows import DenseRows
from skbgmd.rows.gram import Gram, lower_weighted_median, lower_weighted_quantile


def gram_of(X):
    return Gram(X @ X.T, np.ones(len(X), dtype=bool))


def test_squared_distances(rng):
    X = rng.normal(size=(6, 4))
    np.testing.assert_allclose(gram_of(X).squared_distances(), cdist(X, X) ** 2, atol=1e-12)


def test_subset_and_averages_are_those_of_the_rows(rng):
    X = rng.normal(size=(6, 4))
    index = np.array([4, 1, 2])
    np.testing.assert_allclose(gram_of(X).subset(index).products, gram_of(X[index]).products)
    averaging = rng.dirichlet(np.ones(6), size=3)
    np.testing.assert_allclose(gram_of(X).averaged(averaging).products, gram_of(averaging @ X).products)


@pytest.mark.parametrize("center", [0.0, 2.0])
def test_scaled_products_are_about_the_origin_wherever_the_given_are(center, rng):
    X, factors = rng.normal(size=(6, 4)), rng.uniform(size=6)
    scaled = gram_of(X - center).scaled(factors, np.linalg.norm(X, axis=1))
    assert scaled is not None
    np.testing.assert_allclose(scaled.products, gram_of(factors[:, None] * X).products, atol=1e-12)
    assert gram_of(X).scaled(factors, np.full(6, 1e200)) is None


def test_weights_are_restored_for_shrunk_rows(rng):
    X = rng.normal(size=(5, 3))
    X[0] *= 1e200
    gram = DenseRows(torch.from_numpy(X)).gram()
    assert gram.shrinkage is not None
    restored = gram.restore(np.full(5, 0.2))
    assert np.isclose(restored.sum(), 1.0)
    assert restored[0] < 1e-180
    plain = gram_of(X[1:])
    np.testing.assert_array_equal(plain.restore(np.full(4, 0.25)), np.full(4, 0.25))


def test_cancellation_is_noticed(rng):
    X = rng.normal(size=(6, 40))
    near = gram_of(X)
    assert near.noise < 2 * near.rounding
    assert gram_of(X + 10.0).noise > 20 * near.rounding
    assert gram_of(X - X[0]).noise < 2 * near.rounding


def test_means_of_rows_keep_the_rounding_of_the_rows(rng):
    X = np.vstack([rng.normal(size=(6, 4)), 1e9 * rng.normal(size=(2, 4))])
    averaging = np.zeros((2, 8))
    averaging[0, :6] = 1 / 6
    averaging[1] = 1 / 8
    gram = gram_of(X - X[:6].mean(axis=0))
    averaged = gram.averaged(averaging)
    assert averaged.rounding == gram.rounding
    # The first is at the point that the products are about: its error is that of rows like it, whatever the others are.
    np.testing.assert_allclose(averaged.known_lengths, averaging @ gram.known_lengths)
    assert abs(averaged.products[0, 0]) <= averaged.rounding * averaged.known_lengths[0] ** 2
    assert averaged.subset(np.array([1])).known_lengths == averaged.known_lengths[1:]


def test_rows_shrunk_to_nothing_count_as_nothing():
    gram = replace(gram_of(np.eye(4)), shrinkage=np.array([1.0, 1.0, 0.5, 0.0]))
    np.testing.assert_allclose(gram.restore(np.full(4, 0.25)), [0.4, 0.4, 0.2, 0.0])
    np.testing.assert_array_equal(gram.restore(np.array([0.0, 0.0, 0.0, 1.0])), [0.0, 0.0, 0.0, 1.0])
    averaged = gram.averaged(np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.5, 0.5]]))
    np.testing.assert_allclose(averaged.shrinkage, [1.0, 2.0 / 3.0, 0.0])


@pytest.mark.parametrize("others", [1, 3])
def test_a_share_of_the_weight_is_reached_whatever_the_rounding(others):
    share = others / (1 + others)
    for seed in range(5):
        values, weights = halves(2000, seed, others)
        assert lower_weighted_quantile(values, as_weights(weights, 2000), share) == 0.0
        assert lower_weighted_quantile(-values, as_weights(weights, 2000), 1.0 - share) == -1000.0
        weights[values.argmax()] += 1
        assert lower_weighted_quantile(values, as_weights(weights, 2000), share) == 1000.0


def test_large_integers_are_told_apart():
    """One in 2**41 is no rounding."""
    values, weights = np.array([1.0, 2.0]), np.array([2.0**40, 2.0**40 + 1.0])
    assert lower_weighted_median(values, weights) == 2.0
    assert lower_weighted_median(values, weights[::-1]) == 1.0
    assert lower_weighted_quantile(values, weights - [0.0, 1.0], 0.5) == 1.0
