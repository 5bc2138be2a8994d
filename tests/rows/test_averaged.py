"""Means of rows that are never formed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd._utils import limits
from skbgmd.rows import DenseRows
from skbgmd.rows.averaged import AveragedRows


def test_norms_of_averaged_rows_take_no_pass_unless_digits_cancel(rng):
    matrix = torch.from_numpy(rng.normal(size=(6, 50)) + 0.3)
    averaging = rng.dirichlet(np.ones(6), size=4)
    rows = AveragedRows(DenseRows(matrix), averaging, np.ones(4))
    assert rows._averaged_squares() is not None
    np.testing.assert_allclose(rows.norms(), np.linalg.norm(averaging @ matrix.numpy(), axis=1), rtol=1e-10)
    opposite = torch.cat([matrix, -matrix])
    halves = np.hstack([np.eye(6), np.eye(6) * (1 + 1e-9)])
    cancelling = AveragedRows(DenseRows(opposite), halves / halves.sum(axis=1, keepdims=True), np.ones(6))
    assert cancelling._averaged_squares() is None
    exact = np.linalg.norm(cancelling.averaging @ opposite.numpy(), axis=1)
    np.testing.assert_allclose(cancelling.norms(), exact, rtol=1e-6)


def test_averaged_rows_multiply_again_only_where_digits_are_wanted(rng, monkeypatch):
    monkeypatch.setattr(limits, "FLOAT64_PRODUCT_ELEMENTS", 0)
    matrix = torch.from_numpy(rng.normal(size=(20, 3000)).astype(np.float32))
    averaging = np.full((20, 20), 0.9 / 20) + 0.1 * np.eye(20)
    exact = torch.from_numpy(averaging) @ matrix.double()
    squares = torch.cdist(exact, exact).square().numpy()
    rows = AveragedRows(DenseRows(matrix), averaging, np.ones(20))
    coarse = rows.gram(tol=1e-3)
    assert not rows._own
    assert np.abs(coarse.squared_distances() - squares).max() < 1e-3 * squares.max()
    fine = rows.gram()
    assert rows._own
    assert np.abs(fine.squared_distances() - squares).max() < 1e-5 * squares.max()
    assert rows.gram(tol=1e-3) is fine


def test_a_row_near_the_largest_number_stays_finite():
    matrix = torch.full((31, 3), torch.finfo(torch.float32).max)
    averaging = np.full((2, 31), 1 / 31)
    assert torch.isfinite(AveragedRows(DenseRows(matrix), averaging, np.ones(2)).row(0)).all()


def test_inner_products_are_means_of_those_of_the_rows(rng, monkeypatch):
    x, averaging = torch.from_numpy(rng.normal(size=(6, 9))), rng.dirichlet(np.ones(6), size=4)
    rows, vector = AveragedRows(DenseRows(x), averaging, np.ones(4)), torch.from_numpy(rng.normal(size=9))
    expected = averaging @ (x @ vector).numpy()
    monkeypatch.setattr(AveragedRows, "column_chunks", lambda self: pytest.fail("means were formed"))
    np.testing.assert_allclose(rows.inner_products(vector), expected, rtol=1e-12)


def test_inner_products_of_means_are_in_range_where_those_of_the_rows_are_not():
    x = torch.tensor([[3e38, 3e38], [-3e38, -3e38], [1.0, 2.0]])
    averaging = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    found = AveragedRows(DenseRows(x), averaging, np.ones(2)).inner_products(torch.ones(2))
    np.testing.assert_allclose(found, [0.0, 3.0])
