"""Spectral filtering against plain transcriptions, and what its weights prove."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd import geometric_median
from skbgmd.location.spectral import _spectrum, median_spectral_weights, spectral_weights


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


def test_spectral_weights_know_no_scale(rng):
    X = rng.normal(size=(12, 4))
    expected = spectral_weights(X @ X.T, np.ones(12), 0.3)
    for exponent in (-900, 900):
        products = np.ldexp(X @ X.T, exponent)
        np.testing.assert_allclose(spectral_weights(products, np.ones(12), 0.3), expected, rtol=1e-9)


def test_the_threshold_knows_no_scale(rng):
    X = rng.normal(size=(20, 60))
    X[:5] += 3.0
    for exponent in (-900, 0, 900):
        weights = spectral_weights(np.ldexp(X @ X.T, exponent), np.ones(20), 0.4, 1.0)
        np.testing.assert_allclose(weights, spectral_weights(X @ X.T, np.ones(20), 0.4, 1.0), rtol=1e-9)
    assert len(set(weights)) > 1


# ---------------------------------------------------------------------------------------------------------------------
# About medians


def test_median_spectral_weights_by_a_plain_transcription(rng):
    X, fraction, threshold = rng.normal(size=(15, 5)), 0.3, 0.5
    X[:4] += 3.0
    kept = np.ones(15)
    while True:
        p = kept / kept.sum()
        z = X - p @ X
        values, vectors = np.linalg.eigh(z.T @ (p[:, None] * z))
        if values[-1] <= threshold * values.sum() / np.sqrt((values > 1e-9 * values[-1]).sum()):
            break
        along = X @ vectors[:, -1]
        order = np.argsort(along)
        tau = (along - along[order[np.searchsorted(np.cumsum(kept[order]), 0.5 * kept.sum())]]) ** 2
        fewer = kept * (1 - tau / tau[kept > 0].max())
        if fewer.sum() <= (1 - fraction) * 15:
            kept += (fewer - kept) * (kept.sum() - (1 - fraction) * 15) / (kept - fewer).sum()
            break
        kept = fewer
    found = median_spectral_weights(X @ X.T, np.ones(15), fraction, threshold)
    np.testing.assert_allclose(found, kept / kept.sum(), atol=1e-9)
    assert found[:4].sum() < 0.1


@pytest.mark.parametrize("exponent", [-900, 0, 900])
def test_median_spectral_weights_know_no_scale_and_no_origin(exponent, rng):
    X = rng.normal(size=(20, 60))
    X[:7] += 2.0
    expected = median_spectral_weights(X @ X.T, np.ones(20), 0.4, 1.0)
    for moved in (X, X + rng.normal(size=60)):
        found = median_spectral_weights(np.ldexp(moved @ moved.T, exponent), 3.0 * np.ones(20), 0.4, 1.0)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert len(set(expected)) > 1


def test_rows_in_many_dimensions_keep_equal_weights(rng):
    for d in (200, 2000):
        X = rng.normal(size=(34, d))
        np.testing.assert_allclose(median_spectral_weights(X @ X.T, np.ones(34), 0.4, 1.0), 1 / 34)
    np.testing.assert_allclose(median_spectral_weights(np.zeros((4, 4)), np.ones(4), 0.4, 1.0), 0.25)
    np.testing.assert_allclose(median_spectral_weights(np.eye(1), np.ones(1), 0.4, 1.0), 1.0)


def test_no_row_is_left_to_decide_alone():
    """Two camps and a row between them: rows about the mean lose all weight in one round, but for that one."""
    X = np.vstack([np.full((5, 2), [1.0, 0.0]), np.full((5, 2), [-1.0, 0.0]), [[0.0, 1e-2]]])
    assert spectral_weights(X @ X.T, np.ones(11), 0.4, 1.0).max() > 0.99
    assert median_spectral_weights(X @ X.T, np.ones(11), 0.4, 1.0).max() <= 1 / (0.6 * 11) * (1 + 1e-9)


@pytest.mark.parametrize("spread", [0.0, 0.25])
@pytest.mark.parametrize("n_corrupt", [9, 11, 13])
def test_about_medians_a_large_minority_loses_its_weight(n_corrupt, spread, rng):
    """About the mean, honest rows lose a share that leaves too little of the 40 % for all of the corrupt ones."""
    X = 0.1 * rng.normal(size=(34, 50))
    X[:n_corrupt, 0] += 3.0
    X[n_corrupt:, 0] += spread * rng.normal(size=34 - n_corrupt)
    weights = median_spectral_weights(X @ X.T, np.ones(34), 0.4, 1.0)
    assert weights[:n_corrupt].sum() < 0.02


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 13), st.floats(0.0, 30.0), st.floats(0.0, 2.0))
def test_the_answer_is_near_the_honest_mean_by_the_variance_that_is_left(seed, n_corrupt, far, noise):
    """The theorem on variance, for rows of any kind and any weights of the rows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_t(3, size=(34, 20)) * rng.uniform(0.1, 3.0, size=20)
    X[:n_corrupt] = far * rng.normal(size=20) + noise * rng.normal(size=(n_corrupt, 20))
    a = rng.uniform(0.5, 1.5, size=34)
    w = median_spectral_weights(X @ X.T, a, 0.4, 1.0)
    a /= a.sum()
    multiple, corrupt = (w / a).max(), a[:n_corrupt].sum()
    assert w.min() >= 0.0
    np.testing.assert_allclose(w.sum(), 1.0)
    assert multiple <= 1.0 / 0.6 + 1e-9
    common = (1.0 - multiple * corrupt) / max(1.0, multiple * (1.0 - corrupt))
    if common <= 0.0:
        return
    s = a[n_corrupt:] / a[n_corrupt:].sum()
    y, mean = w @ X, s @ X[n_corrupt:]
    left = np.linalg.eigvalsh((X - y).T @ (w[:, None] * (X - y)))[-1]
    own = np.linalg.eigvalsh((X[n_corrupt:] - mean).T @ (s[:, None] * (X[n_corrupt:] - mean)))[-1]
    bound = (np.sqrt(max(left, 0.0)) + np.sqrt(own)) * np.sqrt((1.0 - common) / common)
    assert np.linalg.norm(y - mean) <= bound * (1.0 + 1e-9) + 1e-12


@pytest.mark.parametrize("n", [10, 33, 34, 64, 65, 80, 130])
@pytest.mark.parametrize("seed", range(6))
def test_filters_know_no_order_of_the_rows(n, seed):
    # Eigenvectors of the permuted matrix may point the other way.
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 200))
    X = rng.normal(size=(n, d)) * np.exp(-np.arange(d) / 10) * rng.lognormal(size=(n, 1))
    a, order = rng.choice([1.0, 2.0, 0.3], size=n), rng.permutation(n)
    P = X @ X.T
    permuted = P[np.ix_(order, order)]
    for found, moved in (
        (median_spectral_weights(P, a, 0.4, 1.0), median_spectral_weights(permuted, a[order], 0.4, 1.0)),
        (spectral_weights(P, a, 0.4, 1.0), spectral_weights(permuted, a[order], 0.4, 1.0)),
        (spectral_weights(P, a, 0.4), spectral_weights(permuted, a[order], 0.4)),
    ):
        np.testing.assert_allclose(moved, found[order], atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_are_equally_far_keep_their_weights(seed):
    rng = np.random.default_rng(seed)
    row, shift = rng.normal(size=(2, 7))
    for X in (np.stack([row, shift]), np.stack([row + shift, row - shift] * 3)):
        equal = np.full(len(X), 1 / len(X))
        np.testing.assert_allclose(spectral_weights(X @ X.T, np.ones(len(X)), 0.4), equal)
        np.testing.assert_allclose(median_spectral_weights(X @ X.T, np.ones(len(X)), 0.4, 0.5), equal)


@pytest.mark.parametrize("n", [3, 64, 65, 150])
@pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-7])
def test_the_top_eigenvector_is_the_one_of_all_of_them(n, gap, rng):
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.linspace(0.0, 1.0, n)
    values[-1] = 1.0 + gap
    values[-2] = 1.0
    M = (Q * values) @ Q.T
    found, top = _spectrum(0.5 * (M + M.T))
    np.testing.assert_allclose(found, np.sort(values), atol=1e-13 * n)
    assert abs(top @ Q[:, -1]) == pytest.approx(1.0, abs=1e-9)


def test_a_matrix_without_a_positive_eigenvalue_has_a_spectrum():
    for matrix in (np.zeros((70, 70)), -np.eye(70)):
        values, top = _spectrum(matrix)
        np.testing.assert_allclose(values, matrix[0, 0])
        assert np.isfinite(top).all()


def test_no_product_tells_rows_that_hide_as_corners_of_a_simplex(rng):
    """Of honest noise without a direction, rows about a simplex have the weights of the mean, for any fixed shift."""
    n, c, d = 34, 13, 100
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0][:n]
    honest, corners, shift = basis[: n - c], basis[n - c : n - 1], basis[n - 1] / c**0.5
    simplex = np.eye(c) - 1 / c
    directions = np.linalg.svd(simplex)[0][:, : c - 1] @ corners
    X = np.vstack([honest, shift + directions])
    np.testing.assert_allclose(X @ X.T, np.eye(n), atol=1e-12)
    for weights in (
        spectral_weights(X @ X.T, np.ones(n), 0.4, 1.0),
        median_spectral_weights(X @ X.T, np.ones(n), 0.4, 1.0),
        geometric_median(X, return_result=True).weights,
    ):
        np.testing.assert_allclose(weights, 1 / n, rtol=1e-6)
    # Their mean is off by less than half of the standard error of the honest rows' mean.
    bias = X[n - c :].sum(axis=0) @ (shift / np.linalg.norm(shift)) / n
    assert bias < 0.5 / (n - c) ** 0.5
