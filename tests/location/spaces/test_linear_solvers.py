"""Conjugate gradients and Cholesky's factorization against dense solves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from two_spaces import both

from skbgmd.location.spaces.linear_solvers import conjugate_gradients, solve_positive


@pytest.mark.parametrize("index", [0, 1])
def test_conjugate_gradients_agree_with_the_dense_solve(points, index):
    space, y = both(points)[index]
    point = space.at(y, np.inf)
    exact = space.newton_direction(point)
    found = conjugate_gradients(lambda v: space.hessian_times(point, v), space.inner, point.residual, tol=1e-12)
    # Coefficients of 12 points in R^5 aren't unique; what they stand for is.
    left, right = (found, exact) if index == 0 else (found[1], exact[1])
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_positive_systems_are_solved_and_singular_ones_told(rng, as_array):
    factor = rng.normal(size=(6, 6))
    right = rng.normal(size=6)
    solution = solve_positive(as_array(factor @ factor.T), as_array(right))
    np.testing.assert_allclose(factor @ factor.T @ np.asarray(solution), right, rtol=1e-9, atol=1e-9)
    assert np.isnan(np.asarray(solve_positive(as_array(np.diag([1.0, 0.0, 2.0])), as_array(right[:3])))).all()
