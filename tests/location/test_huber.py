"""Huber's M-estimate from a Gram matrix, against its equation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.location.huber import huber_weights
from skbgmd.rows.gram import Gram


def problem(seed: int, n: int = 15) -> tuple[np.ndarray, Gram, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    X[: n // 4] += 8.0
    return X, Gram(X @ X.T, np.ones(n, dtype=bool), 2.0**-50), rng.choice([0.5, 1.0, 2.0], size=n)


@given(seed=st.integers(0, 2**32 - 1), limit=st.sampled_from([0.3, 2.0, 5.0]))
def test_weights_satisfy_hubers_equation(seed: int, limit: float) -> None:
    X, gram, a = problem(seed)
    weights = huber_weights(gram, a, np.linalg.norm(X - np.median(X, axis=0), axis=1), limit, tol=1e-12, max_iter=5000)
    expected = a * np.minimum(1.0, limit / np.linalg.norm(X - weights @ X, axis=1))
    np.testing.assert_allclose(weights, expected / expected.sum(), atol=1e-8)


def test_one_iteration_is_the_reweighted_mean_about_the_first_estimate() -> None:
    _, gram, a = problem(0)
    distances = np.linspace(0.0, 4.0, 15)
    weights = huber_weights(gram, a, distances, 2.0, tol=1e-12, max_iter=1)
    expected = a * np.minimum(1.0, 2.0 / np.maximum(distances, 1e-300))
    np.testing.assert_allclose(weights, expected / expected.sum())


def test_a_large_limit_gives_the_weighted_mean_and_rows_of_no_weight_keep_none() -> None:
    X, gram, a = problem(1)
    a[3] = 0.0
    weights = huber_weights(gram, a, np.linalg.norm(X, axis=1), 1e6, tol=1e-12, max_iter=100)
    assert weights[3] == 0.0
    assert weights == pytest.approx(a / a.sum())


@pytest.mark.parametrize("seed", range(20))
def test_a_limit_of_zero_leaves_the_rows_that_coincide_with_the_first_estimate(seed: int) -> None:
    """However their mean is rounded."""
    X, _, a = problem(seed)
    X[:9] = X[0]
    gram = Gram(X @ X.T, np.ones(15, dtype=bool), 0.0)
    weights = huber_weights(gram, a, np.linalg.norm(X - X[0], axis=1), 0.0, tol=1e-12, max_iter=100)
    np.testing.assert_allclose(weights, np.where(np.arange(15) < 9, a, 0.0) / a[:9].sum())
