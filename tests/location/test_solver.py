"""The minimization loop and its safeguards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from conftest import ZOO, vertex
from oracle import objective
from skbgmd.location.solver import _line_search, approach, minimize, near_radius, vardi_zhang_weights
from skbgmd.location.spaces import EuclideanSpace


def space_of(X, weights=None):
    return EuclideanSpace(X, np.ones(len(X)) if weights is None else weights, np.zeros(X.shape[1]))


def test_few_steps_where_weiszfeld_takes_thousands():
    """51 % against 49 %, far apart; and an optimum on a row that Weiszfeld approaches sublinearly."""
    for X in (ZOO["clusters"], vertex(3)):
        X = X + 0.0
        solution = minimize(space_of(X), X[-1] + 0.3, tol=1e-9, max_iter=100)
        assert solution.converged
        assert solution.n_iter <= 15
        y = X[-1] + 0.3
        for _ in range(1000):
            d = np.maximum(np.linalg.norm(X - y, axis=1), 1e-300)
            y = (X / d[:, None]).sum(axis=0) / (1 / d).sum()
        assert objective(X, y) >= objective(X, solution.position) * (1 - 1e-12)


def test_every_step_lowers_the_objective(hard_matrix):
    X = hard_matrix
    start = X.mean(axis=0)
    values = [float(objective(X, minimize(space_of(X), start, tol=1e-12, max_iter=k).position)) for k in range(1, 12)]
    for before, after in pairwise(values):
        assert after <= before * (1 + 1e-12)


def test_leaves_a_row_that_is_not_the_optimum():
    X = ZOO["mean on a row"]
    solution = minimize(space_of(X), X[4], tol=1e-10, max_iter=100)
    assert solution.converged
    assert solution.vertex is None
    assert objective(X, solution.position) < objective(X, X[4])
    assert objective(X, solution.position) < objective(X, X.mean(axis=0))


def test_stops_on_an_optimal_row():
    X = vertex(3)
    solution = minimize(space_of(X), X[-1], tol=1e-15, max_iter=100)
    assert solution.n_iter == 0
    assert solution.vertex is not None
    np.testing.assert_array_equal(X[solution.vertex], X[-1])
    np.testing.assert_allclose(solution.weights[-3:], 1 / 3)


def test_weights_are_those_of_the_vardi_zhang_step(rng):
    X = rng.normal(size=(8, 3))
    space = space_of(X)
    for position in (X.mean(axis=0), X[2]):
        w = vardi_zhang_weights(space.at(position, np.inf))
        d = np.linalg.norm(X - position, axis=1)
        weiszfeld = np.where(d > 0, 1 / np.where(d > 0, d, 1), 0)
        stay = 0.0
        if (d == 0).any():
            stay = min(1.0, 1.0 / np.linalg.norm(weiszfeld @ (X - position)))
        expected = stay * (d == 0) + (1 - stay) * weiszfeld / weiszfeld.sum()
        np.testing.assert_allclose(w, expected)


def test_gives_up_at_the_floor_of_rounding(rng):
    X = rng.normal(size=(30, 3))
    solution = minimize(space_of(X), X[0], tol=1e-300, max_iter=1000)
    assert solution.n_iter < 60
    assert solution.iterate.excess.absolute < 1e-11


def test_near_radius_ignores_zeros_and_far_rows():
    assert near_radius(np.array([0.0, 0.0, 1.0, 2.0, 3.0, 1e300])) == 30.0
    assert near_radius(np.zeros(3)) == 0.0
    # Half of the rows are far and weigh a third.
    assert near_radius(np.array([1.0, 2.0, 1e9, 1e9]), np.array([2.0, 2.0, 1.0, 1.0])) == 20.0


def test_near_radius_counts_where_that_tells_as_much(rng):
    for _ in range(200):
        distances = np.exp(rng.normal(scale=rng.uniform(0.1, 2.0), size=int(rng.integers(1, 9))))
        counted = near_radius(distances, None, distances.min(), distances.max())
        np.testing.assert_array_equal(distances <= counted, distances <= near_radius(distances))


def test_approach_takes_the_steps_of_minimize_without_their_bounds(rng):
    X = rng.normal(size=(200, 3))
    X[:60] += 5.0
    space = space_of(X)
    position, n_iter = approach(space, np.zeros(3), tol=1e-8, max_iter=100)
    expected = minimize(space, np.zeros(3), tol=1e-30, max_iter=n_iter).iterate.position
    np.testing.assert_allclose(position, expected, rtol=1e-12)
    assert space.at(position).excess.absolute < 1e-8 * space.at(position).objective
    assert approach(space, np.zeros(3), tol=1e-8, max_iter=1)[1] == 1
    # Less of a tolerance takes fewer steps.
    assert approach(space, np.zeros(3), tol=1e-2, max_iter=100)[1] < n_iter


def test_approach_goes_back_from_a_step_that_is_of_no_use(hard_matrix):
    X = hard_matrix
    for start in (X.mean(axis=0), X[0], X[0] + 1e6):
        space = space_of(X)
        with np.errstate(all="ignore"):
            position, _ = approach(space, start, tol=1e-12, max_iter=50)
            sizes = [space.newton_step(place)[1] for place in (start, position)]
        if not np.array_equal(position, start):
            assert sizes[0] < np.inf
            assert not sizes[1] > sizes[0] + 1e-12


def test_line_search_finds_a_far_minimum(rng):
    X = np.vstack([rng.normal(size=(9, 2)), [[100.0, 0.0]]])
    space = space_of(X)
    point = space.at(np.array([-1e4, 0.0]), np.inf)
    direction = np.array([1.0, 0.0])
    along, square = space.project(point, direction)
    _, slope = space.decrease(point, along, square, 0.0)
    step = _line_search(space, point, along, square, slope)
    assert 0.9e4 < step < 1.1e4


def test_weiszfelds_steps_end_where_newtons_are_dear(rng):
    """Within reach of the tolerance no Newton direction is asked for."""
    X = rng.normal(size=(200, 100))
    space = space_of(X)
    assert space.newton_is_expensive
    start = minimize(space, X.mean(axis=0) + 0.05, tol=1e-3, max_iter=100)
    space.newton_direction = None
    solution = minimize(space, start.position, tol=1e-4, max_iter=100)
    assert solution.converged
    exact = minimize(space_of(X), start.position, tol=1e-12, max_iter=100)
    assert objective(X, solution.position) <= float(objective(X, exact.position)) * (1 + 1e-4)


def weighted_clusters(seed):
    """Tight clusters far apart, whose weights are near enough to each other for the lead to be found late."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(3, 16), rng.integers(2, 16)
    X = 10.0 ** rng.uniform(-6, 0) * rng.normal(size=(n, d))
    for share in (0.5, 0.2):
        X += (rng.random((n, 1)) < share) * rng.normal(size=d) * 10.0 ** rng.uniform(0, 4)
    return X, rng.choice([1.0, 2.0, rng.uniform(0.1, 9.0)], size=n)


def test_goes_on_from_one_tight_cluster_to_another():
    """The bound is worse for some steps after the objective fell from one cluster to the other."""
    for seed in range(300):
        X, weights = weighted_clusters(seed)
        solution = minimize(space_of(X, weights), X[0] + 1e-3, tol=1e-6, max_iter=100)
        assert solution.converged, seed


def test_the_answer_is_within_the_tolerance_that_ended_the_search(rng):
    """An iterate may be close at more near rows, where the bound isn't much smaller than that of the one before."""
    for _ in range(200):
        X = rng.normal(size=(3, 30))
        X[1] *= 30.0
        start = (np.array([0.49, 0.02, 0.49])[:, None] * X).sum(axis=0)
        solution = minimize(space_of(X), start, tol=0.2, max_iter=100)
        assert solution.converged
        excess = solution.iterate.excess
        assert excess.absolute <= 0.2 * excess.near_objective
