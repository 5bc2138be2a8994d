"""Adaptive clipping against its definition, and the rule that filters what is clipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense
from sklearn.base import clone

from skbgmd.aggregators import (
    AdaptiveClipping,
    Bucketing,
    CoordinatewiseMedian,
    GeometricMedian,
    Krum,
    Mean,
    SpectralFilter,
    get_aggregator,
)
from skbgmd.aggregators.adaptive_clipping import adaptive_limit
from skbgmd.ghost import DenseFactor, GhostRows


def clipped_by_hand(X, n_clipped):
    norms = np.linalg.norm(X, axis=1)
    limit = np.sort(norms)[::-1][n_clipped]
    return X * np.minimum(1.0, limit / norms)[:, None]


@pytest.mark.parametrize(
    "inner",
    [Mean(), GeometricMedian(), CoordinatewiseMedian(), Krum(0.4), SpectralFilter(0.4), Bucketing(random_state=0)],
)
@pytest.mark.parametrize(("fraction", "n_clipped"), [(0.0, 0), (0.1, 1), (0.4, 4)])
def test_clipped_rows_by_definition(inner, fraction, n_clipped, rng):
    X = rng.normal(size=(10, 20)) * rng.uniform(0.1, 10.0, size=(10, 1))
    aggregate, _ = AdaptiveClipping(inner, fraction)(dense(X))
    expected, _ = inner(dense(clipped_by_hand(X, n_clipped)))
    np.testing.assert_allclose(aggregate.vector, expected.vector, atol=1e-6)
    if expected.weights is not None:
        np.testing.assert_allclose(aggregate.weights, expected.weights, atol=1e-6)


def test_nothing_moves_rows_of_equal_length(rng):
    X = rng.normal(size=(10, 20))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(AdaptiveClipping(Mean())(dense(X))[0].vector, X.mean(axis=0), atol=1e-12)


def test_the_limit_is_no_longer_than_some_honest_row(rng):
    """As many rows or more are clipped than are corrupt."""
    for n in range(1, 60):
        for fraction in (0.1, 0.2, 0.3, 0.4, 0.49):
            norms = rng.uniform(1.0, 2.0, size=n)
            norms[: int(fraction * n)] = 1e9
            assert adaptive_limit(norms, fraction) <= 2.0, (n, fraction)


def test_huge_rows_count_as_ordinary_ones(rng):
    X = rng.normal(size=(10, 20)) + 1.0
    X[:4] *= -1e6
    vector = AdaptiveClipping(Mean())(dense(X))[0].vector
    assert np.linalg.norm(vector) <= np.linalg.norm(X[4:], axis=1).max()


def test_rows_known_by_factors_give_the_same(rng):
    X = rng.normal(size=(10, 20)) * rng.uniform(0.1, 10.0, size=(10, 1))
    rows = GhostRows([(0, DenseFactor(torch.from_numpy(X)[:, :, None]))], *X.shape)
    for rule in (AdaptiveClipping(), get_aggregator("clipped_spectral_filter")):
        np.testing.assert_allclose(rule(rows)[0].vector, rule(dense(X))[0].vector, atol=1e-9)


def test_the_ratio_of_noise_to_signal_is_recorded(rng):
    X = rng.normal(size=(200, 30)) + np.eye(30)[0] * 2.0
    for inner in (Mean(), CoordinatewiseMedian()):
        aggregate, _ = AdaptiveClipping(inner)(dense(X))
        assert aggregate.record["noise_to_signal"] == pytest.approx(0.5, rel=0.2)
    assert "noise_to_signal" not in AdaptiveClipping()(dense(np.zeros((4, 3))))[0].record


@pytest.mark.parametrize(
    ("aggregator", "kind", "message"),
    [
        (AdaptiveClipping("mean"), TypeError, "aggregator must be an Aggregator or None; found 'mean'"),
        (AdaptiveClipping(fraction=0.5), ValueError, "fraction must be less than 0.5"),
    ],
)
def test_parameters_are_checked(aggregator, kind, message):
    with pytest.raises(kind, match=message):
        aggregator(dense(np.eye(3)))


def test_the_named_rule_is_written_out():
    rule = get_aggregator("clipped_spectral_filter")
    assert repr(clone(rule)) == repr(rule)
    assert rule.set_params(aggregator__fraction=0.3).aggregator.fraction == 0.3
    assert get_aggregator("clipped_spectral_filter").aggregator.fraction == 0.4


def test_colluding_rows_of_ordinary_length_are_filtered(rng):
    """Rows that all lie a standard deviation to the same side, where a median is drawn to them."""
    honest = rng.normal(size=(20, 400))
    mean = honest.mean(axis=0)
    X = np.vstack([honest, np.tile(mean - 1.0, (13, 1)) + 1e-3 * rng.normal(size=(13, 400))])
    error = {
        name: float((torch.from_numpy(mean) - get_aggregator(name)(dense(X))[0].vector).mean())
        for name in ("mean", "geometric_median", "clipped_spectral_filter")
    }
    assert error["clipped_spectral_filter"] < 0.25 * error["mean"]
    assert error["mean"] < error["geometric_median"]
