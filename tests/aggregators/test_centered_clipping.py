"""Centered clipping against its definition, its bound, and the attack over time that it is meant for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import assert_convex, dense

from conftest import ZOO, extremes
from skbgmd.aggregators import CenteredClipping, CoordinatewiseMedian, GeometricMedian, Krum
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.centered_clipping import CenteredClippingState, distances_to
from skbgmd.ghost import GhostRows
from skbgmd.ghost.factors import DenseFactor
from skbgmd.rows import DenseRows


def from_center(rule, X, center, weights=None):
    return rule(dense(X, weights), CenteredClippingState(torch.from_numpy(center), X.shape[1]))[0]


@pytest.mark.parametrize("radius", [0.5, 2.0, 100.0, None])
@pytest.mark.parametrize("n_iter", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_definition(rng, radius, n_iter, weighted):
    X, y = rng.normal(size=(9, 5)), rng.normal(size=5)
    X[0] *= 30.0
    a = np.linspace(0.5, 1.0, 9) if weighted else np.ones(9)
    found = from_center(CenteredClipping(radius, n_iter), X, y, a)
    for _ in range(n_iter):
        distances = np.linalg.norm(X - y, axis=1)
        order = np.argsort(distances)
        at = order[np.searchsorted(a[order].cumsum(), 0.5 * a.sum())]
        tau = distances[at] if radius is None else radius
        y = y + (a / a.sum() * np.minimum(1.0, tau / distances)) @ (X - y)
    np.testing.assert_allclose(found.vector, y, rtol=1e-9, atol=1e-12)


def test_a_large_radius_gives_the_mean_and_its_weights(rng):
    X = rng.normal(size=(7, 4))
    found = from_center(CenteredClipping(1e9), X, np.zeros(4))
    np.testing.assert_allclose(found.vector, X.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.weights, 1 / 7)


def test_the_first_call_begins_at_the_geometric_median(rng):
    X = rng.normal(size=(9, 4))
    first, state = CenteredClipping(1e-9)(dense(X))
    median, _ = GeometricMedian()(dense(X))
    torch.testing.assert_close(first.vector, median.vector, atol=1e-8, rtol=0.0)
    assert torch.equal(state.center, first.vector)


@pytest.mark.parametrize("hostile", [0.0, 1.0, 1e6, 1e300, np.inf, np.nan])
def test_rows_move_the_aggregate_by_no_more_than_their_share_of_the_radius(rng, hostile):
    """What hostile rows hold doesn't matter, to the digit: only that they are so many."""
    radius, n, n_hostile = 0.7, 10, 4
    honest, center = 0.1 * rng.normal(size=(n - n_hostile, 6)), np.zeros(6)
    X = np.vstack([honest, np.full((n_hostile, 6), hostile)])
    found = from_center(CenteredClipping(radius), X, center)
    alone = honest.sum(axis=0) / (n if np.isfinite(hostile) else len(honest))
    moved = np.linalg.norm(found.vector.numpy() - alone)
    assert moved <= n_hostile / n * radius * (1 + 1e-12)
    if hostile >= 1.0 and np.isfinite(hostile):
        assert moved == pytest.approx(n_hostile / n * radius)


@pytest.mark.parametrize("jump", [0.01, 1.0, 1e6])
def test_the_adaptive_radius_follows_rows_that_jump(rng, jump):
    """A bound from the rows' own distances holds whatever the others send, and needs no scale that is known."""
    rule, state = CenteredClipping(), None
    for step in range(12):
        honest = jump * (step >= 2) + 1e-3 * rng.normal(size=(7, 6))
        X = np.vstack([honest, -1e9 * np.ones((3, 6))])
        aggregate, state = rule(dense(X), state)
    assert np.linalg.norm(aggregate.vector.numpy() - jump) < 0.02 * jump + 0.01


def minimized(rule, momentum, seed=0, steps=800):
    """Minimize (x - 1)^2 / 2 by ten workers with skewed noise, of which two are hostile; the mean of the last half."""
    rng = np.random.default_rng(seed)
    x, state, momenta, found = 0.0, None, np.zeros(8), []
    for step in range(steps):
        # Rare and large, mean zero: each worker's median gradient is zero at 2.
        noise = np.where(rng.random(8) < 0.1, 9.0, -1.0)
        momenta = momentum * momenta + (1.0 - momentum) * (x - 1.0 + noise)
        # Within what honest workers send, the same way in each step.
        sent = np.append(momenta, np.full(2, momenta.mean() - 0.5 * momenta.std()))
        aggregate, state = rule(dense(sent[:, None]), state)
        x -= 0.02 * float(aggregate.vector)
        if step >= steps // 2:
            found.append(x)
    return float(np.mean(found))


def test_history_withstands_what_no_rule_for_single_steps_can():
    """The authors' claim: rules without memory fail on noise that isn't symmetric, clipped momenta don't."""
    for rule in (CoordinatewiseMedian(), GeometricMedian(), Krum(0.2)):
        assert minimized(rule, 0.0) > 1.7
    for seed in range(2):
        assert abs(minimized(CenteredClipping(1.0), 0.99, seed) - 1.0) < 0.25
    # Clipping gradients is a rule for single steps as well.
    assert minimized(CenteredClipping(1.0), 0.0) > 1.5


@pytest.mark.parametrize("name", [name for name, X in ZOO.items() if np.isfinite(X).all()])
def test_distances_on_every_hard_matrix(name):
    X = ZOO[name]
    for center in (X.mean(axis=0), X[0], np.zeros(X.shape[1]), 3.0 * X[-1]):
        rows, at = dense(X), torch.from_numpy(np.ascontiguousarray(center))
        np.testing.assert_allclose(distances_to(rows, at), rows.distances(at), rtol=1e-6)


def test_distances_where_digits_cancel():
    X = 1e4 + torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    rows, center = dense(X.numpy()), X.mean(dim=0)
    expected = np.linalg.norm(X.double().numpy() - center.double().numpy(), axis=1)
    np.testing.assert_allclose(distances_to(rows, center), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [None, 1.0])
def test_every_extreme_matrix_with_a_state(dtype, radius):
    rule = CenteredClipping(radius, n_iter=2)
    for X in extremes(dtype).values():
        _, state = rule(DenseRows(X))
        for at in (X, -X, X[torch.randperm(len(X), generator=torch.Generator().manual_seed(0))]):
            aggregate, state = rule(DenseRows(at), state)
            assert torch.isfinite(aggregate.vector).all()
            assert_convex(aggregate.weights)
            assert aggregate.vector.abs().max() <= 1.01 * X.abs().max().double()


def test_factored_rows_are_as_dense_ones():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(6, 4, 3, generator=generator), torch.randn(6, 5, generator=generator)
    rows = GhostRows([(0, DenseFactor(one)), (12, DenseFactor(other))], 6, 17)
    matrix = torch.cat([one.flatten(1), other], dim=1)
    rule, states = CenteredClipping(), [None, None]
    for _ in range(3):
        (first, states[0]), (second, states[1]) = rule(rows, states[0]), rule(DenseRows(matrix), states[1])
        torch.testing.assert_close(first.vector, second.vector, rtol=1e-5, atol=1e-6)


def test_a_state_of_other_columns_begins_anew(rng):
    rule = CenteredClipping(1e-9)
    _, state = rule(dense(rng.normal(size=(5, 3))))
    X = rng.normal(size=(5, 4))
    torch.testing.assert_close(rule(dense(X), state)[0].vector, rule(dense(X))[0].vector)


def test_the_state_is_saved(rng):
    rule = CenteredClipping()
    _, state = rule(dense(rng.normal(size=(5, 3))))
    again, rows = unpack_state(pack_state(state)), dense(rng.normal(size=(5, 3)))
    assert torch.equal(rule(rows, again)[0].vector, rule(rows, state)[0].vector)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (CenteredClipping(0.0), r"radius must be greater than 0.*; found 0"),
        (CenteredClipping(-1.0), r"radius must be greater than 0.*; found -1"),
        (CenteredClipping(float("nan")), r"radius must be .*; found nan"),
        (CenteredClipping(n_iter=0), r"n_iter must be .*; found 0"),
    ],
)
def test_parameters_are_checked(rule, message):
    with pytest.raises(ValueError, match=message):
        rule(dense(np.eye(3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_the_largest_number_give_it_again(dtype):
    """A sum of shares of it is rounded, and may be beyond it."""
    largest = torch.finfo(dtype).max
    for seed in range(100):
        random = np.random.default_rng(seed)
        weights = random.uniform(0.1, 1.0, random.integers(2, 12))
        X = torch.full((len(weights), 3), largest, dtype=dtype)
        X[: len(X) // 3] = 1.0
        rule, state = CenteredClipping(), None
        for _ in range(2):
            aggregate, state = rule(DenseRows(X, weights), state)
            assert torch.isfinite(aggregate.vector).all()
