"""Spectral filter against a plain transcription."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense

from skbgmd.aggregators import SpectralFilter
from skbgmd.aggregators.spectral_filter import spectral_weights


def test_spectral_filter_removes_a_far_cluster(rng):
    X = rng.normal(size=(50, 8))
    X[:8] += 20.0
    weights = SpectralFilter(fraction=0.2).weights(dense(X))
    assert weights[:8].sum() < 1e-3
    assert np.abs(weights @ X).max() < 0.6


def test_spectral_weights_by_a_plain_transcription(rng):
    X, fraction = rng.normal(size=(14, 5)), 0.3
    X[:3] *= 4
    kept = np.ones(14)
    while kept.sum() > (1 - fraction) * 14:
        p = kept / kept.sum()
        z = X - p @ X
        top = np.linalg.eigh(z.T @ (p[:, None] * z))[1][:, -1]
        tau = (z @ top) ** 2
        kept = kept * (1 - tau / tau[kept > 0].max())
    np.testing.assert_allclose(spectral_weights(X @ X.T, np.ones(14), fraction), kept / kept.sum(), atol=1e-9)


def test_spectral_weights_of_equal_rows():
    np.testing.assert_allclose(spectral_weights(np.zeros((4, 4)), np.ones(4), 0.4), 0.25)


@pytest.mark.parametrize("size", [1e100, 1e149, 1e300, 1e-300])
def test_spectral_filter_of_rows_far_beyond_the_others(size, rng):
    X = rng.normal(size=(20, 5)) * min(1.0, size * 1e10)
    X[:4] = size
    aggregate, _ = SpectralFilter(0.25)(dense(X))
    np.testing.assert_allclose(aggregate.weights.sum(), 1.0)
    if size > 1.0:
        assert aggregate.weights[:4].sum() == 0.0
        assert float(aggregate.vector.abs().max()) < 2.0


def test_spectral_weights_know_no_scale(rng):
    X = rng.normal(size=(12, 4))
    expected = spectral_weights(X @ X.T, np.ones(12), 0.3)
    for exponent in (-900, 900):
        products = np.ldexp(X @ X.T, exponent)
        np.testing.assert_allclose(spectral_weights(products, np.ones(12), 0.3), expected, rtol=1e-9)


def test_filtering_stops_where_no_direction_stands_out(rng):
    X = rng.normal(size=(40, 200))
    np.testing.assert_allclose(SpectralFilter(0.4, threshold=1.0).weights(dense(X)), 1 / 40)
    X[:10] += 3.0
    filtered = SpectralFilter(0.4, threshold=1.0).weights(dense(X))
    assert filtered[:10].sum() < 0.05
    # All of the share is gone without, most of it from honest rows.
    assert (SpectralFilter(0.4).weights(dense(X))[10:] < filtered[10:].min()).any()
    np.testing.assert_array_equal(
        SpectralFilter(0.4, threshold=1e-12).weights(dense(X)), SpectralFilter(0.4).weights(dense(X))
    )


def test_the_threshold_knows_no_scale(rng):
    X = rng.normal(size=(20, 60))
    X[:5] += 3.0
    for exponent in (-900, 0, 900):
        weights = spectral_weights(np.ldexp(X @ X.T, exponent), np.ones(20), 0.4, 1.0)
        np.testing.assert_allclose(weights, spectral_weights(X @ X.T, np.ones(20), 0.4, 1.0), rtol=1e-9)
    assert len(set(weights)) > 1


@pytest.mark.parametrize(("threshold", "kind"), [(0.0, ValueError), (-1.0, ValueError), ("a", TypeError)])
def test_the_threshold_is_checked(threshold, kind):
    with pytest.raises(kind, match="threshold must be"):
        SpectralFilter(0.4, threshold)(dense(np.eye(3)))


def test_the_threshold_is_a_share_of_the_variance():
    """Six orthogonal directions, of which one has half of the variance: 0.5 of it, times the root of six, is 1.22."""
    X = np.vstack([np.diag(row) for row in ([5.0**0.5, 1, 1, 1, 1, 1], [-(5.0**0.5), -1, -1, -1, -1, -1])])
    np.testing.assert_allclose(SpectralFilter(0.3, 1.23).weights(dense(X)), 1 / 12)
    assert SpectralFilter(0.3, 1.22).weights(dense(X))[[0, 6]].sum() == 0.0
