"""Krum and multi-Krum against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from aggregating import dense

from skbgmd.aggregators import Krum
from skbgmd.rows import DenseRows


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


@pytest.mark.parametrize("n", range(3, 16))
def test_no_minority_of_equal_rows_wins(n, rng):
    for n_bad in range(1, (n - 1) // 2 + 1):
        X = rng.normal(size=(n, 20))
        X[:n_bad] = 1e6
        for fraction in (n_bad / n, 0.4, 0.49):
            weights = Krum(fraction).weights(dense(X))
            assert not weights[:n_bad].any(), (n_bad, fraction)


def test_no_more_corrupt_rows_are_assumed_than_the_condition_of_krum_allows(rng):
    X = rng.normal(size=(10, 4))
    # 2 * 4 + 2 is not less than 10.
    for n_selected in (1, 10):
        of_four = Krum(0.4, n_selected).weights(dense(X))
        np.testing.assert_array_equal(of_four, Krum(0.3, n_selected).weights(dense(X)))


def test_krum_with_very_few_rows(rng):
    for n in (1, 2, 3):
        assert Krum().weights(dense(rng.normal(size=(n, 4)))).sum() == pytest.approx(1.0)


def test_krum_parameters():
    rows = DenseRows(torch.eye(3))
    with pytest.raises(ValueError, match="n_selected must be at least 1; found 0"):
        Krum(n_selected=0)(rows)
    with pytest.raises(ValueError, match="fraction must be"):
        Krum(fraction=0.5)(rows)


def test_sums_of_the_largest_distances_do_not_overflow():
    X = np.zeros((12, 4))
    X[0, 0] = 5e153
    aggregate, _ = Krum(fraction=0.0)(dense(X))
    assert aggregate.weights[0] == 0.0
