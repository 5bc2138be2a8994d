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
