"""Spectral filter against a plain transcription."""

from __future__ import annotations

import numpy as np
import pytest
from aggregating import dense

from skbgmd.aggregators import SpectralFilter


def test_spectral_filter_removes_a_far_cluster(rng):
    X = rng.normal(size=(50, 8))
    X[:8] += 20.0
    weights = SpectralFilter(fraction=0.2).weights(dense(X))
    assert weights[:8].sum() < 1e-3
    assert np.abs(weights @ X).max() < 0.6


@pytest.mark.parametrize("size", [1e100, 1e149, 1e300, 1e-300])
def test_spectral_filter_of_rows_far_beyond_the_others(size, rng):
    X = rng.normal(size=(20, 5)) * min(1.0, size * 1e10)
    X[:4] = size
    aggregate, _ = SpectralFilter(0.25)(dense(X))
    np.testing.assert_allclose(aggregate.weights.sum(), 1.0)
    if size > 1.0:
        assert aggregate.weights[:4].sum() == 0.0
        assert float(aggregate.vector.abs().max()) < 2.0


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


@pytest.mark.parametrize(("threshold", "kind"), [(0.0, ValueError), (-1.0, ValueError), ("a", TypeError)])
def test_the_threshold_is_checked(threshold, kind):
    with pytest.raises(kind, match="threshold must be"):
        SpectralFilter(0.4, threshold)(dense(np.eye(3)))


def test_the_threshold_is_a_share_of_the_variance():
    """Six orthogonal directions, of which one has half of the variance: 0.5 of it, times the root of six, is 1.22."""
    X = np.vstack([np.diag(row) for row in ([5.0**0.5, 1, 1, 1, 1, 1], [-(5.0**0.5), -1, -1, -1, -1, -1])])
    np.testing.assert_allclose(SpectralFilter(0.3, 1.23).weights(dense(X)), 1 / 12)
    assert SpectralFilter(0.3, 1.22).weights(dense(X))[[0, 6]].sum() == 0.0
