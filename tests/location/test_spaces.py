"""The two homes of the points: same geometry, same answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.location.solver import near_radius
from skbgmd.location.spaces import EuclideanSpace, GramSpace
from skbgmd.location.spaces.linear_solvers import conjugate_gradients, solve_positive
from skbgmd.rows.gram import Gram


@pytest.fixture
def points(rng):
    X = rng.normal(size=(12, 5))
    X[:4] += 3.0
    return X


def gram_about(X, center, rounding=2.0**-50):
    Z = X - center
    return Gram(Z @ Z.T, np.ones(len(X), dtype=bool), rounding)


def both(X, weights=None):
    """A point space about zero, a Gram space about a row, and the position 'mean' in either."""
    a = np.ones(len(X)) if weights is None else weights
    space = EuclideanSpace(X, a, np.zeros(X.shape[1]))
    gram = GramSpace(gram_about(X, X[3]), a)
    w = np.full(len(X), 1.0 / len(X))
    return (space, w @ X), (gram, gram.vector(w))


def test_iterates_agree(points, rng):
    (space, y), (gram, v) = both(points, rng.random(12))
    radius = near_radius(np.linalg.norm(points - y, axis=1))
    left, right = space.at(y, radius), gram.at(v, radius)
    np.testing.assert_allclose(left.distances, np.linalg.norm(points - y, axis=1), rtol=1e-12)
    np.testing.assert_allclose(left.distances, right.distances, rtol=1e-12)
    assert left.objective == pytest.approx(right.objective, rel=1e-13)
    assert left.residual_norm == pytest.approx(right.residual_norm, rel=1e-12)
    assert left.excess.absolute == pytest.approx(right.excess.absolute, rel=1e-9)


def test_newton_directions_agree_and_solve_the_system(points):
    (space, y), (gram, v) = both(points)
    left, right = space.at(y, np.inf), gram.at(v, np.inf)
    p, q = space.newton_direction(left), gram.newton_direction(right)
    np.testing.assert_allclose(q[0] @ (points - points[3]), p, rtol=1e-9)
    unit = (points - y) / left.distances[:, None]
    hessian = left.total_pull * np.eye(5) - (unit * left.pull[:, None]).T @ unit
    np.testing.assert_allclose(hessian @ p, left.residual, atol=1e-12)
    np.testing.assert_allclose(space.hessian_times(left, p), left.residual, atol=1e-12)
    np.testing.assert_allclose(gram.hessian_times(right, q)[1], right.residual[1], atol=1e-10)


@pytest.mark.parametrize("index", [0, 1])
def test_conjugate_gradients_agree_with_the_dense_solve(points, index):
    space, y = both(points)[index]
    point = space.at(y, np.inf)
    exact = space.newton_direction(point)
    found = conjugate_gradients(lambda v: space.hessian_times(point, v), space.inner, point.residual, tol=1e-12)
    # Coefficients of 12 points in R^5 aren't unique; what they stand for is.
    left, right = (found, exact) if index == 0 else (found[1], exact[1])
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_decrease_is_the_change_of_the_objective_and_its_slope(points, index):
    space, y = both(points)[index]
    point = space.at(y, np.inf)
    direction = 3.0 * point.residual
    along, square = space.project(point, direction)
    for step in (0.1, 1.0, 7.0):
        change, slope = space.decrease(point, along, square, step)
        moved = space.at(y + step * direction, np.inf)
        assert change == pytest.approx(moved.objective - point.objective, rel=1e-9)
        assert slope == pytest.approx(-space.inner(moved.residual, direction), rel=1e-8)


def test_decrease_has_digits_among_far_rows(rng):
    X = np.vstack([rng.normal(size=(6, 2)), [[1e160, 0.0], [0.0, -1e160]]])
    space = EuclideanSpace(X, np.ones(8), np.zeros(2))
    with np.errstate(over="ignore", invalid="ignore"):
        point = space.at(np.array([5.0, 5.0]), 1e3)
    direction = X[:6].mean(axis=0) - 5.0
    along, square = space.project(point, direction)
    near = np.linalg.norm(X[:6] - 5.0 - direction, axis=1).sum() - np.linalg.norm(X[:6] - 5.0, axis=1).sum()
    far = -direction[0] + direction[1]
    assert space.decrease(point, along, square, 1.0)[0] == pytest.approx(near + far, rel=1e-12)


@pytest.mark.parametrize("index", [0, 1])
def test_a_row_is_at_itself(points, index):
    space, _ = both(points)[index]
    point = space.at(space.row(3), np.inf)
    assert point.weight_at == 1.0
    assert point.distances[3] == 0.0
    assert point.pull[3] == 0.0
    assert space.nearest(point) == (3, 0.0)


def test_rows_too_near_to_tell_count_as_at_with_their_doubt(points):
    gram = GramSpace(gram_about(points, points[3], rounding=1e-2), np.ones(12))
    exact = GramSpace(gram_about(points, points[3], rounding=1e-16), np.ones(12))
    assert gram.at(gram.row(5), np.inf).excess.absolute > exact.at(exact.row(5), np.inf).excess.absolute


def test_blocks_give_the_same_as_one_piece(points, monkeypatch):
    whole = EuclideanSpace(points, np.ones(12), points[0]).at(points[5] - points[0], 3.0)
    monkeypatch.setattr(limits, "POINT_BLOCK_ELEMENTS", 10)
    monkeypatch.setattr(limits, "KEPT_ELEMENTS", 0)
    space = EuclideanSpace(points, np.ones(12), points[0])
    parts = space.at(points[5] - points[0], 3.0)
    np.testing.assert_allclose(whole.distances, parts.distances)
    np.testing.assert_allclose(whole.residual, parts.residual)
    np.testing.assert_allclose(EuclideanSpace(points, np.ones(12), points[0])._kept is None, True)


def test_large_products_go_through_torch(rng, monkeypatch):
    X = rng.normal(size=(80, 100))
    small = GramSpace(gram_about(X, 0.0), np.ones(80))
    assert small.n > limits.NUMPY_PRODUCT_ROWS
    w = rng.dirichlet(np.ones(80))
    np.testing.assert_allclose(small.vector(w)[1], w @ X @ X.T, atol=1e-12)
    direct = small.newton_direction(small.at(small.vector(w), np.inf))
    monkeypatch.setattr(limits, "NUMPY_PRODUCT_ROWS", 1000)
    np.testing.assert_allclose(small.newton_direction(small.at(small.vector(w), np.inf)), direct, atol=1e-10)


def test_torch_namespace_matches_numpy(points):
    y = points.mean(axis=0)
    left = EuclideanSpace(points, np.ones(12), np.zeros(5)).at(y, 3.0)
    tensor = EuclideanSpace(
        torch.from_numpy(points), torch.ones(12, dtype=torch.float64), torch.zeros(5).double(), torch
    )
    right = tensor.at(torch.from_numpy(y), 3.0)
    np.testing.assert_allclose(left.residual, right.residual.numpy())
    assert left.excess.absolute == pytest.approx(right.excess.absolute)
    np.testing.assert_allclose(
        EuclideanSpace(points, np.ones(12), np.zeros(5)).newton_direction(left), tensor.newton_direction(right).numpy()
    )


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_positive_systems_are_solved_and_singular_ones_told(rng, as_array):
    factor = rng.normal(size=(6, 6))
    right = rng.normal(size=6)
    solution = solve_positive(as_array(factor @ factor.T), as_array(right))
    np.testing.assert_allclose(factor @ factor.T @ np.asarray(solution), right, rtol=1e-9, atol=1e-9)
    assert np.isnan(np.asarray(solve_positive(as_array(np.diag([1.0, 0.0, 2.0])), as_array(right[:3])))).all()


def test_newton_direction_off_rows_at_the_point(points):
    """Rows at the point have no pull and no share in the step."""
    space = GramSpace(gram_about(points, points[3]), np.ones(12))
    point = space.at(space.row(5), np.inf)
    direction = space.newton_direction(point)
    np.testing.assert_allclose(space.hessian_times(point, direction)[1], point.residual[1], atol=1e-9)
