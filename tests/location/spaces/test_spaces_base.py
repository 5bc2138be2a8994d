"""Both spaces: the same geometry, the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from two_spaces import both

from skbgmd.location.solver import near_radius


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
    hessian = left.total_weiszfeld_weight * np.eye(5) - (unit * left.weiszfeld_weights[:, None]).T @ unit
    np.testing.assert_allclose(hessian @ p, left.residual, atol=1e-12)
    np.testing.assert_allclose(space.hessian_times(left, p), left.residual, atol=1e-12)
    np.testing.assert_allclose(gram.hessian_times(right, q)[1], right.residual[1], atol=1e-10)


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


@pytest.mark.parametrize("index", [0, 1])
def test_a_row_is_at_itself(points, index):
    space, _ = both(points)[index]
    point = space.at(space.row(3), np.inf)
    assert point.weight_at == 1.0
    assert point.distances[3] == 0.0
    assert point.weiszfeld_weights[3] == 0.0
    assert space.nearest(point) == (3, 0.0)
