"""The center of products: a row of the majority, or zero, whatever single rows hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from skbgmd._utils import limits
from skbgmd.rows import DenseRows
from skbgmd.rows.center import central_line, lies_among


def test_the_center_is_a_row_of_the_majority(rng):
    X = rng.normal(size=(50, 400)) + 100.0
    X[:20] += 1e6
    assert DenseRows(torch.from_numpy(X)).central_index() >= 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e5, 1e12, 1e18, 1e30, -3e38])
@pytest.mark.parametrize("n", [3, 8, 35, 200])
@pytest.mark.parametrize("n_bad", [1, 0.4])
def test_distances_are_right_whatever_a_row_in_the_middle_has_in_a_column(rng, monkeypatch, value, n, n_bad):
    """Rows that a sample of columns takes for central, each of them with a fault where it wasn't looked."""
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    X = (10.0 * rng.normal(size=3000) + rng.normal(size=(n, 3000))).astype(np.float32)
    bad = rng.permutation(n)[: max(1, int(n_bad * n))] if n_bad < 1 else np.array([n // 2])
    X[bad] = X.mean(axis=0) + 1e-3 * X[bad]
    X[bad, 50 + np.arange(len(bad)) % 20] = value
    good = np.setdiff1d(np.arange(n), bad)
    gram = DenseRows(torch.from_numpy(X)).gram()
    assert gram.finite.tolist() == np.isfinite(X).all(axis=1).tolist()
    distances = cdist(X[good].astype(float), X[good].astype(float))
    found = gram.unit * np.sqrt(gram.squared_distances()[np.ix_(good, good)])
    np.testing.assert_allclose(found, distances, rtol=1e-3, atol=0.05)


def test_a_center_that_is_as_it_should_be_takes_one_pass(rng, monkeypatch):
    passes = []
    products = DenseRows._products
    monkeypatch.setattr(DenseRows, "_products", lambda *given: passes.append(1) or products(*given))
    for n in (2, 3, 8, 34, 300):
        for scale in (0.1, 1.0, 10.0):
            DenseRows(torch.from_numpy(rng.normal(size=2000) + scale * rng.normal(size=(n, 2000))).float()).gram()
    assert len(passes) == 15


@pytest.mark.parametrize(("rows_at", "zero_is_central"), [(0.0, True), (1e4, False)])
def test_zero_is_the_center_of_rows_about_it(rng, monkeypatch, rows_at, zero_is_central):
    """Rows about zero are multiplied as they are; a common offset would cost digits, and is taken off."""
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    X = (rng.normal(size=(20, 9000)) + rows_at).astype(np.float32)
    X[:6] += 10.0
    rows = DenseRows(torch.from_numpy(X))
    assert (rows.central_index() is None) == zero_is_central
    distances = np.linalg.norm(X[:, None].astype(float) - X, axis=2)
    np.testing.assert_allclose(np.sqrt(rows.gram().squared_distances()), distances, rtol=1e-5, atol=1e-3)


def test_a_line_that_is_not_finite_is_central_to_nobody():
    sample = np.array([[np.nan, 0.0], [5.0, 5.0], [5.0, 5.1], [5.1, 5.0], [np.inf, 1.0]])
    assert central_line(sample) in (1, 2, 3)
    assert central_line(np.full((3, 2), np.nan)) is None


def test_products_that_are_not_finite_tell_nothing_of_a_center():
    products = np.eye(5)
    products[0] = products[:, 0] = 0.0
    assert lies_among(products, 0)
    products[1:4, 1:4] = np.nan
    assert not lies_among(products, 0)
    assert lies_among(np.zeros((1, 1)), 0)
