"""The duality gap as a function of inner products."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import extended, objective
from skbgmd.location.certificate import duality_gap_bound, relative_gap


def bound_at(X, y, radius=np.inf, slack=0.0):
    """The bound for rows of weight one, assembled by hand."""
    z = X - y
    d = np.linalg.norm(z, axis=1)
    at, near = d == 0, d <= radius
    weiszfeld = np.where(at, 0.0, 1.0 / np.where(at, 1.0, d))
    sums = np.stack([weiszfeld, weiszfeld * near, np.ones(len(X)), near.astype(float)]) @ z
    return duality_gap_bound(
        (sums @ sums.T).tolist(),
        weight_all=float(len(X)),
        objective=float(d.sum()),
        weight_near=float(near.sum()),
        near_objective=float(d[near].sum()),
        weight_at=float(at.sum()),
        slack=slack,
    )


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 5), st.floats(0.3, 20.0))
def test_holds_at_any_point_for_any_near_set(seed, n, d, radius):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    X[: n // 3] *= 50.0
    y = X[int(rng.integers(n))] if rng.random() < 0.3 else rng.normal(size=d)
    best = extended(X)[1]
    bound = bound_at(X, y, radius).absolute
    assert bound >= float(objective(X, y) - best) - 1e-13 * float(best)


@pytest.mark.parametrize("row", [None, 3])
def test_all_rows_near_takes_the_sums_over_all_alone(row, rng):
    X = rng.normal(size=(9, 3))
    y = np.zeros(3) if row is None else X[row]
    d = np.linalg.norm(X - y, axis=1)
    weiszfeld = np.where(d == 0.0, 0.0, 1.0 / np.where(d == 0.0, 1.0, d))
    sums = np.stack([weiszfeld, np.ones(9)]) @ (X - y)
    bound = duality_gap_bound(
        (sums @ sums.T).tolist(), weight_all=9.0, objective=float(d.sum()), weight_at=float((d == 0.0).sum())
    )
    assert bound == pytest.approx(tuple(bound_at(X, y)), rel=1e-12)


def test_is_zero_at_an_optimum_and_at_an_optimal_row():
    square = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert bound_at(square, np.zeros(2)).absolute == pytest.approx(0.0, abs=1e-15)
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert bound_at(rows, np.zeros(2)).absolute == 0.0


def test_near_rows_make_it_independent_of_a_far_row(rng):
    X = rng.normal(size=(20, 3))
    X[0] = 1e12
    y = extended(X)[0].astype(float) + 1e-9
    assert bound_at(X, y, radius=100.0).absolute < 1e-6
    assert bound_at(X, y).absolute > 1e6 * bound_at(X, y, radius=100.0).absolute


@pytest.mark.parametrize("far", [1e12, 1e25, 1e30])
def test_costs_that_cancel_to_nothing_are_no_proof(far, rng):
    """On a line, far rows' costs and their repair are huge and opposite; their rounding is larger than what is left."""
    X = np.concatenate([np.full((100, 1), far), rng.normal(size=(200, 1))])
    near = X[100:, 0]
    best = np.sort(near)[149:151].mean()
    for y in 10.0 ** np.linspace(1.0, 11.0, 101):
        excess = (np.abs(near - y) - np.abs(near - best)).sum() - 100.0 * (y - best)
        assert bound_at(X, np.array([y]), radius=10.0 * y, slack=2.0**-50 * 300).absolute >= (1.0 - 1e-9) * excess


def test_rounding_of_the_products_only_raises_the_bound():
    products = [[1.0, -1.0], [-1.0, 4.0]]

    def bound(rounding):
        found = duality_gap_bound(products, weight_all=2.0, objective=3.0, lengths=[5.0, 7.0], rounding=rounding)
        return found.absolute

    bounds = [bound(rounding) for rounding in (0.0, 1e-9, 1e-3)]
    assert bounds == sorted(bounds)
    assert bounds[2] > bounds[0] + 1e-3 * 5.0 * 7.0 / 3.0


def test_no_near_repair_where_the_far_rows_outweigh_the_near():
    X = np.array([[0.1, 0.0], [10.0, 0.0], [10.0, 1.0], [10.0, -1.0]])
    bound = bound_at(X, np.zeros(2), radius=1.0).absolute
    assert math.isfinite(bound)
    assert bound >= float(objective(X, np.zeros(2)) - extended(X)[1])


def test_slack_only_raises_the_bound(rng):
    X, y = rng.normal(size=(9, 3)), np.zeros(3)
    bounds = [bound_at(X, y, slack=slack).absolute for slack in (0.0, 1e-6, 1e-3)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[2]


def test_relative_gap():
    assert relative_gap(0.0, 0.0) == 0.0
    assert relative_gap(1.0, 11.0) == pytest.approx(0.1)
    assert relative_gap(2.0, 1.0) == math.inf
