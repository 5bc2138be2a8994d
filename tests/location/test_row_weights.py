"""Weights of the rows in the median, by Gram matrices alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd import geometric_median
from skbgmd.location.row_weights import clipped_start, gram_weights, median_distances, place, row_weights
from skbgmd.rows import DenseRows


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(12, 40))
    X[:4] *= 30.0
    return DenseRows(torch.from_numpy(X), rng.uniform(0.5, 1.0, size=12))


def test_weights_and_distances_are_those_of_the_median(rows):
    result = geometric_median(rows.matrix, sample_weight=rows.weights, tol=1e-10, return_result=True)
    solution, _, n_iter = row_weights(rows, tol=1e-10, max_iter=100)
    np.testing.assert_allclose(solution.weights, result.weights, atol=1e-7)
    assert 0 < n_iter == solution.n_iter
    weights, gram, distances = median_distances(rows, tol=1e-10, max_iter=100)
    np.testing.assert_allclose(weights, result.weights, atol=1e-7)
    expected = torch.linalg.vector_norm(rows.matrix - result.median, dim=1)
    np.testing.assert_allclose(distances * gram.unit, expected, rtol=1e-7)


def test_a_large_offset_is_solved_about_the_solution(rows):
    moved = DenseRows(rows.matrix + 1e7, rows.weights)
    weights = row_weights(moved, tol=1e-9, max_iter=100)[0].weights
    np.testing.assert_allclose(weights, row_weights(rows, tol=1e-9, max_iter=100)[0].weights, atol=1e-5)


def test_the_start_may_be_the_center(rows):
    weights = gram_weights(rows.gram(), rows.weights, tol=1e-9, max_iter=100).weights
    about = rows.gram(about=weights)
    again = gram_weights(about, rows.weights, tol=1e-6, max_iter=100, start=np.zeros(rows.n_rows))
    assert again.converged
    assert again.n_iter == 0


def test_the_start_counts_far_rows_by_their_direction():
    start = clipped_start(np.array([1.0, 2.0, 2.0, 1e9]), np.ones(4))
    assert start.sum() == pytest.approx(1.0)
    assert start[3] * 1e9 == pytest.approx(start[1] * 2.0)


def test_all_weight_is_on_the_row_that_the_solution_is(rng):
    X = np.vstack([np.zeros((3, 5)), rng.normal(size=(4, 5))])
    rows = DenseRows(torch.from_numpy(X))
    solution, _, _ = row_weights(rows, tol=1e-9, max_iter=100)
    assert solution.vertex is not None
    np.testing.assert_array_equal(place(solution) @ X, np.zeros(5))
