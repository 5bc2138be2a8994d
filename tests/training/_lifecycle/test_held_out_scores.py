from __future__ import annotations

import numpy as np
import pytest

from skbgmd.training._lifecycle.held_out_scores import bounded_likelihood, quantiles, residual_scores


def test_likelihood_of_labels():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    points = np.log(np.array([0.9, 0.8, 0.0]) + 0.05)
    assert bounded_likelihood(probabilities, np.array([0, 1, 1])) == pytest.approx(points.mean())
    weight = np.array([1.0, 0.0, 3.0])
    expected = np.average(points, weights=weight)
    assert bounded_likelihood(probabilities, np.array([0, 1, 1]), weight) == pytest.approx(expected)
    # Of numbers that are no probabilities it is the accuracy.
    assert bounded_likelihood(5.0 * probabilities, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_scores_of_residuals(rng):
    residuals = np.abs(rng.normal(size=(31, 2))) * np.array([4.0, 3.0, 1.0, 2.0])[:, None, None]
    scores = residual_scores(residuals)
    scale = np.median(residuals[2], axis=0)
    np.testing.assert_allclose(scores, -np.log1p((residuals / (3 * scale)) ** 2).mean(axis=(1, 2)))
    assert np.argsort(-scores).tolist() == [2, 3, 1, 0]
    np.testing.assert_allclose(residual_scores(1e150 * residuals), scores)
    # A gross error counts for about as much in any epoch.
    residuals[:, :5] = 1e9 * rng.uniform(1.0, 1.01, size=(4, 5, 2))
    assert np.argmax(residual_scores(residuals)) == 2
    # By one scale, whatever the epoch.
    np.testing.assert_allclose(residual_scores(residuals, 2.0), -np.log1p((residuals / 2.0) ** 2).mean(axis=(1, 2)))
    # Without any residual, and with nothing but those that aren't finite.
    assert residual_scores(np.zeros((1, 3, 1))).tolist() == [0.0]
    assert residual_scores(np.full((1, 3, 1), np.inf)).tolist() == [-np.inf]


def test_quantiles(rng):
    values = rng.normal(size=(700, 2))
    np.testing.assert_array_equal(quantiles(values, None, 700), np.sort(values, axis=0))
    kept = quantiles(values, None, 100)
    assert kept.shape == (100, 2)
    np.testing.assert_allclose(np.median(kept, axis=0), np.median(values, axis=0), atol=0.02)
    np.testing.assert_allclose(np.tanh(kept).mean(axis=0), np.tanh(values).mean(axis=0), atol=2e-3)
    # A weight of two is the sample twice, and one of none is none.
    weight = rng.integers(0, 3, size=700).astype(float)
    repeated = np.repeat(values, weight.astype(int), axis=0)
    np.testing.assert_array_equal(quantiles(values, weight, 64), quantiles(repeated, None, 64))
    np.testing.assert_array_equal(quantiles(values, np.ones(700), 64), quantiles(values, None, 64))
