"""Mean, norm filter, Krum and spectral filter against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import Krum, Mean, NormFilter, SpectralFilter
from skbgmd.aggregators.spectral_filter import spectral_weights
from skbgmd.rows import DenseRows


def dense(X, weights=None):
    return DenseRows(torch.from_numpy(X), weights)


def test_mean(rng):
    X, a = rng.normal(size=(6, 10)), rng.random(6)
    np.testing.assert_allclose(Mean()(dense(X, a))[0].vector, a @ X / a.sum())
    np.testing.assert_allclose(Mean().weights(dense(X)), np.full(6, 1 / 6))


def test_mean_of_finite_rows_whose_sum_overflows():
    X = torch.tensor([[3e38, 0.0], [3e38, 0.0], [0.0, 1.0]])
    assert torch.isfinite(Mean()(DenseRows(X))[0].vector).all()


def test_norm_filter_drops_both_tails():
    X = np.diag([5.0, 1.0, 4.0, 2.0, 3.0])
    np.testing.assert_array_equal(NormFilter(fraction=0.2, both_tails=True).weights(dense(X)) > 0, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(NormFilter(fraction=0.4, both_tails=True).weights(dense(X)), [0, 0, 0, 0, 1])


def test_norm_filter_drops_the_largest_norms(rng):
    X = rng.normal(size=(10, 4))
    X[3] *= 100
    X[7] *= 50
    weights = NormFilter(fraction=0.2).weights(dense(X))
    np.testing.assert_allclose(weights, np.where(np.isin(np.arange(10), [3, 7]), 0, 1 / 8))


@pytest.mark.parametrize("n_selected", [1, 3, 100])
def test_krum_by_its_definition(n_selected, rng):
    X, f = rng.normal(size=(11, 6)), 3
    scores = []
    for i in range(11):
        distances = np.sort(((X - X[i]) ** 2).sum(axis=1))[1:]
        scores.append(distances[: 11 - f - 2].sum())
    best = np.argsort(scores)[: min(n_selected, 11 - f)]
    aggregate, _ = Krum(fraction=f / 11, n_selected=n_selected)(dense(X))
    np.testing.assert_allclose(aggregate.vector, X[best].mean(axis=0))


def test_krum_with_very_few_rows(rng):
    for n in (1, 2, 3):
        assert Krum().weights(dense(rng.normal(size=(n, 4)))).sum() == pytest.approx(1.0)


def test_krum_parameters():
    rows = DenseRows(torch.eye(3))
    with pytest.raises(ValueError, match="n_selected must be at least 1; found 0"):
        Krum(n_selected=0)(rows)
    with pytest.raises(ValueError, match="fraction must be"):
        Krum(fraction=0.5)(rows)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 7, 31])
def test_means_of_the_largest_numbers_are_numbers(dtype, n):
    largest = torch.finfo(dtype).max
    X = torch.full((n, 900), largest, dtype=dtype)
    X[:, 1], X[:, 2] = -largest, 1.0
    weights = np.linspace(0.1, 1.0, n)
    for rows in (DenseRows(X), DenseRows(X, weights), DenseRows(X, index=torch.arange(900))):
        vector = Mean()(rows)[0].vector
        torch.testing.assert_close(vector.to(dtype), X[0])
